//! What the float and the int8 depthwise convolution share: the walk over a row of output pixels.

use std::ops::Range;

use super::shape::ConvShape;
use crate::gemm::kernel::NR;
use crate::gemm::load;

/// The taps along one axis that fall inside an image of `size`, for the output at `position`.
#[inline(always)]
pub(super) fn taps(shape: &ConvShape, axis: usize, size: usize, position: usize) -> Range<usize> {
    let (pad, step) = (shape.pads[axis], shape.dilation[axis]);
    let start = position * shape.stride[axis];
    let first = pad.saturating_sub(start).div_ceil(step);
    let end = (size + pad).saturating_sub(start).div_ceil(step).min(shape.kernel[axis]);
    first.min(end)..end
}

/// The outputs along the horizontal axis all of whose taps fall inside the image.
pub(super) fn interior(shape: &ConvShape) -> Range<usize> {
    let (pad, stride) = (shape.pads[1], shape.stride[1]);
    let reach = shape.dilation[1] * (shape.kernel[1] - 1);
    let first = pad.div_ceil(stride);
    let end = (shape.in_w + pad).saturating_sub(reach).div_ceil(stride).min(shape.out_w());
    first.min(end)..end
}

/// One tap of the kernel for a row of output pixels.
#[derive(Clone, Copy)]
pub(super) struct Tap {
    /// Its column in the kernel.
    kx: usize,
    /// Where its weights begin.
    pub(super) weight: usize,
    /// Where its input begins for output pixel 0; wraps below 0 where that lies in the padding.
    pub(super) input: usize,
}

/// Output pixels that are computed at once, so that they share the loads of the weights.
pub(super) const PIXELS: usize = 4;

/// Groups of [`NR`] channels that are computed at once where there is a single pixel, so that
/// several sums are under way.
pub(super) const CHUNKS: usize = 4;

/// A depthwise kernel for one row of output pixels.
pub(super) trait Row {
    /// Computes and stores `N` pixels from `x` on for the channels from `col` on. `FULL` says
    /// that there are [`NR`] of them, one for each input channel.
    fn pixels<const N: usize, const FULL: bool>(&self, taps: &[Tap], x: usize, col: usize);

    /// Computes and stores [`CHUNKS`] times [`NR`] channels from `col` on for the pixel `x`; each
    /// has an input channel.
    fn chunks(&self, taps: &[Tap], x: usize, col: usize);
}

/// Calls `row` for all pixels and channels of row `line`.
#[inline(always)]
pub(super) fn walk(shape: &ConvShape, line: usize, row: &impl Row) {
    let all = line_taps(shape, line);
    let interior = interior(shape);
    let mut edge = Vec::with_capacity(all.len());
    let mut x = 0;
    while x < shape.out_w() {
        if interior.contains(&x) {
            let end = interior.end;
            columns::<PIXELS>(shape, x..end, row, &all);
            x = end;
        } else {
            let across = taps(shape, 1, shape.in_w, x);
            edge.clear();
            edge.extend(all.iter().filter(|tap| across.contains(&tap.kx)));
            columns::<1>(shape, x..x + 1, row, &edge);
            x += 1;
        }
    }
}

/// All channels of the pixels `xs`, which have the same taps.
#[inline(always)]
fn columns<const N: usize>(shape: &ConvShape, xs: Range<usize>, row: &impl Row, taps: &[Tap]) {
    let mut col = 0;
    if xs.len() == 1 && shape.group_out_c() == 1 {
        while col + CHUNKS * NR <= shape.out_c {
            row.chunks(taps, xs.start, col);
            col += CHUNKS * NR;
        }
    }
    // Channels within pixels: so input and output are walked in the order of memory.
    let mut x = xs.start;
    while x < xs.end {
        let many = x + N <= xs.end;
        for col in (col..shape.out_c).step_by(NR) {
            let full = shape.group_out_c() == 1 && col + NR <= shape.out_c;
            match (full, many) {
                (true, true) => row.pixels::<N, true>(taps, x, col),
                (true, false) => row.pixels::<1, true>(taps, x, col),
                // A loop: closures of iterators are not inlined, so they would miss the
                // instruction set.
                (false, true) => {
                    for x in x..x + N {
                        row.pixels::<1, false>(taps, x, col);
                    }
                }
                (false, false) => row.pixels::<1, false>(taps, x, col),
            }
        }
        x += if many { N } else { 1 };
    }
}

/// The taps of a row of output pixels that meet the image vertically.
fn line_taps(shape: &ConvShape, line: usize) -> Vec<Tap> {
    let (image, y) = (line / shape.out_h(), line % shape.out_h());
    let mut all = Vec::with_capacity(shape.kernel[0] * shape.kernel[1]);
    for ky in taps(shape, 0, shape.in_h, y) {
        let in_y = y * shape.stride[0] + ky * shape.dilation[0] - shape.pads[0];
        let first = (image * shape.in_h + in_y) * shape.in_w;
        for kx in 0..shape.kernel[1] {
            let pixel = (first + kx * shape.dilation[1]).wrapping_sub(shape.pads[1]);
            let weight = (ky * shape.kernel[1] + kx) * shape.out_c;
            all.push(Tap { kx, weight, input: pixel.wrapping_mul(shape.in_c) });
        }
    }
    all
}

/// The elements of `width` output channels from `col` on, for the pixel that starts at `pixel`.
#[inline(always)]
pub(super) fn channels<T: Copy + Default, const FULL: bool>(
    shape: &ConvShape,
    input: &[T],
    pixel: usize,
    col: usize,
) -> [T; NR] {
    if FULL {
        return lanes(&input[pixel + col..]);
    }
    let (width, per_channel) = (NR.min(shape.out_c - col), shape.group_out_c());
    if per_channel == 1 {
        return load(&input[pixel + col..], width);
    }
    let mut lanes = [T::default(); NR];
    for (i, lane) in lanes.iter_mut().take(width).enumerate() {
        *lane = input[pixel + (col + i) / per_channel];
    }
    lanes
}

/// The weights of the channels from `col` on.
#[inline(always)]
pub(super) fn weights<T: Copy + Default, const FULL: bool>(
    shape: &ConvShape,
    all: &[T],
    tap: &Tap,
    col: usize,
) -> [T; NR] {
    match FULL {
        true => lanes(&all[tap.weight + col..]),
        false => load(&all[tap.weight + col..], NR.min(shape.out_c - col)),
    }
}

/// The first [`NR`] elements; straight loads, unlike [`load`].
#[inline(always)]
fn lanes<T: Copy>(values: &[T]) -> [T; NR] {
    let Some(lanes) = values.first_chunk::<NR>() else {
        panic!("a slice is shorter than its shape says")
    };
    *lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_and_interior_agree_with_the_definition() {
        for case in 0..2000 {
            let [size, kernel, stride, dilation, pad, pad_after] =
                [1, 13, 57, 173, 519, 1557].map(|d| 1 + case / d % 4);
            let shape = ConvShape {
                batch: 1,
                in_h: 1,
                in_w: size + 2,
                in_c: 1,
                out_c: 1,
                kernel: [1, kernel],
                stride: [1, stride],
                dilation: [1, dilation],
                pads: [0, pad - 1, 0, pad_after - 1],
                groups: 1,
            };
            let inside = |x: usize, tap: usize| {
                let at = (x * stride + tap * dilation) as isize - (pad - 1) as isize;
                (0..shape.in_w as isize).contains(&at)
            };
            for x in 0..shape.out_w() {
                let all: Vec<usize> = (0..kernel).filter(|&tap| inside(x, tap)).collect();
                assert_eq!(
                    taps(&shape, 1, shape.in_w, x).collect::<Vec<_>>(),
                    all,
                    "{shape:?} {x}"
                );
                assert_eq!(interior(&shape).contains(&x), all.len() == kernel, "{shape:?} {x}");
            }
        }
    }
}
