//! f32 depthwise convolution with AVX2: up to eight neighbouring outputs of eight channels in
//! registers, so that each weight is loaded once for them.

use std::arch::x86_64::*;

use super::depthwise::taps;
use super::depthwise_f32::Line;
use super::shape::ConvShape;
use crate::cpu::Job;
use crate::gemm::kernel::{NR, prefetch};
use crate::gemm::x86_finish::first_lanes;

/// Channels of a register.
const LANES: usize = 8;

/// Weights by eight output channels, then row and column of the kernel. Missing channels are zeros.
pub(super) struct Octets {
    weights: Vec<[f32; LANES]>,
    channels: Vec<Channels>,
}

impl Octets {
    /// Packs weights in the order out channel, row, column. The size of the image does not matter.
    pub(super) fn new(shape: &ConvShape, weights: &[f32]) -> Octets {
        let taps = shape.kernel[0] * shape.kernel[1];
        let weight = |tap: usize, channel: usize| {
            let is_there = channel < shape.out_c;
            if is_there { weights[shape.weight_index(tap, channel)] } else { 0.0 }
        };
        let octet =
            |i: usize| std::array::from_fn(|lane| weight(i % taps, i / taps * LANES + lane));
        let octets = shape.out_c.div_ceil(LANES);
        Octets {
            weights: (0..octets * taps).map(octet).collect(),
            channels: (0..octets).map(|octet| Channels::of(shape, octet * LANES)).collect(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.weights.as_slice()) + size_of_val(self.channels.as_slice())
    }
}

/// One row of output pixels, for processors with AVX2 only.
pub(super) struct Sliding<'a> {
    pub(super) line: Line<'a>,
    pub(super) octets: &'a Octets,
}

impl Job for Sliding<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Sliding { line, octets } = &self;
        let shape = line.shape;
        let taps_of = shape.kernel[0] * shape.kernel[1];
        assert_eq!(octets.channels.len(), shape.out_c.div_ceil(LANES), "other channels");
        assert_eq!(octets.weights.len(), octets.channels.len() * taps_of, "another kernel");
        let (image, y) = (line.line / shape.out_h(), line.line % shape.out_h());
        let rows = taps(shape, 0, shape.in_h, y);
        let line_len = shape.in_w * shape.in_c;
        let inputs = rows.clone().map(|ky| {
            let in_y = y * shape.stride[0] + ky * shape.dilation[0] - shape.pads[0];
            line.input[(image * shape.in_h + in_y) * line_len..][..line_len].as_ptr()
        });
        let window = Window {
            line,
            inputs: inputs.collect(),
            weights: octets.weights[rows.start * shape.kernel[1]..].as_ptr(),
            taps: taps_of,
            channels: &octets.channels,
        };
        // SAFETY: the CPU has AVX2; the rows of the window lie in the image, by the slices above.
        unsafe {
            match (shape.kernel[1], shape.stride[1], shape.dilation[1]) {
                (3, 1, 1) => window.slide::<3, 1>(),
                (3, 2, 1) => window.slide::<3, 2>(),
                (5, 1, 1) => window.slide::<5, 1>(),
                (5, 2, 1) => window.slide::<5, 2>(),
                (7, 1, 1) => window.slide::<7, 1>(),
                _ => window.slide::<ANY, ANY>(),
            }
        }
    }
}

/// In place of the width of a kernel and its step: both are known at run time only, and columns
/// between its taps may be left out.
const ANY: usize = 0;

/// The rows of the image that a row of output pixels depends on.
struct Window<'a> {
    line: &'a Line<'a>,
    /// The first pixel of each.
    inputs: Vec<*const f32>,
    /// The weights of the first row, for the first eight channels.
    weights: *const [f32; LANES],
    /// From those of eight channels to the next.
    taps: usize,
    channels: &'a [Channels],
}

/// The most outputs of a tile.
const MOST: usize = 8;

impl Window<'_> {
    /// All pixels and channels.
    ///
    /// # Safety
    /// The CPU has AVX2; the kernel is `KW` wide, of neighbouring columns, and moves by `S`, or both
    /// are [`ANY`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn slide<const KW: usize, const S: usize>(&self) {
        let out_w = self.line.shape.out_w();
        let mut columns = vec![[0.0; LANES]; self.columns(MOST)];
        let mut x = 0;
        while x < out_w {
            let left = out_w - x;
            // SAFETY: the caller's promise.
            unsafe {
                x += match left {
                    7 | 14 | 15 | 21 | 28 => self.tile::<KW, S, 7>(x, &mut columns),
                    MOST.. => self.tile::<KW, S, MOST>(x, &mut columns),
                    4.. => self.tile::<KW, S, 4>(x, &mut columns),
                    2.. => self.tile::<KW, S, 2>(x, &mut columns),
                    _ => self.tile::<KW, S, 1>(x, &mut columns),
                };
            }
        }
    }

    /// From the first column that `pixels` outputs read to the last.
    fn columns(&self, pixels: usize) -> usize {
        let shape = self.line.shape;
        (pixels - 1) * shape.stride[1] + shape.dilation[1] * (shape.kernel[1] - 1) + 1
    }

    /// All channels of the `P` pixels from `x` on; `P`. `columns` is room for those of the window.
    ///
    /// # Safety
    /// As [`Window::slide`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const KW: usize, const S: usize, const P: usize>(
        &self,
        x: usize,
        columns: &mut [[f32; LANES]],
    ) -> usize {
        let shape = self.line.shape;
        let (pad, start, width) = (shape.pads[1], x * shape.stride[1], self.columns(P));
        let columns = &mut columns[..width];
        // Columns of the window that lie in the image. The others stay zeros.
        let first = pad.saturating_sub(start).min(width);
        let end = (shape.in_w + pad).saturating_sub(start).min(width).max(first);
        columns[..first].fill([0.0; LANES]);
        columns[end..].fill([0.0; LANES]);
        let from = (start * shape.in_c).wrapping_sub(pad * shape.in_c);
        let row = self.line.line * shape.out_w() + x;
        let next = self.next::<P>(x);
        for (octet, channels) in self.channels.iter().enumerate() {
            let from = from.wrapping_add(channels.first);
            let mut sums = [_mm256_setzero_ps(); P];
            for &(place, lines) in &next {
                for line in 0..lines {
                    prefetch(place.wrapping_add((octet * lines + line) * NR));
                }
            }
            // SAFETY: the caller's promise; columns out of the image are not read, and of the others
            // as many channels as there are; each pixel belongs to one task, which stores it once.
            unsafe {
                let mut weights = self.weights.add(octet * self.taps).cast();
                for &input in &self.inputs {
                    let input = input.wrapping_add(from);
                    if end - first == width && channels.are_neighbours {
                        self.add::<KW, S, P>(&mut sums, input, shape.in_c, weights);
                    } else {
                        channels.copy(
                            &mut columns[first..end],
                            input.wrapping_add(first * shape.in_c),
                            shape.in_c,
                        );
                        self.add::<KW, S, P>(&mut sums, columns.as_ptr().cast(), LANES, weights);
                    }
                    weights = weights.add(shape.kernel[1] * LANES);
                }
                self.line.finish.eights(row, octet * LANES, channels.width, &sums);
            }
        }
        P
    }

    /// What the `P` pixels behind those at `x` read for the first time, and where they are stored:
    /// where it begins, and how many lines of it are to be asked for with each eight channels.
    fn next<const P: usize>(&self, x: usize) -> [(*const f32, usize); 3] {
        let (shape, step) = (self.line.shape, self.line.shape.stride[1]);
        let input = |row: usize| {
            let place = self.inputs[self.inputs.len().saturating_sub(1 + row)];
            place.wrapping_add((x + P) * step * shape.in_c)
        };
        let out = self.line.finish.at((self.line.line * shape.out_w()) + x + P);
        let rows = if self.inputs.is_empty() { 0 } else { (P * step).div_ceil(2) };
        let more = if step > 1 && self.inputs.len() > 1 { rows } else { 0 };
        if rows == 0 {
            return [(out, P.div_ceil(2)), (out, 0), (out, 0)];
        }
        [(out, P.div_ceil(2)), (input(0), rows), (if more > 0 { input(1) } else { out }, more)]
    }

    /// Adds the products of one row of the kernel, in order, to the sums of `P` pixels.
    ///
    /// # Safety
    /// As [`Window::slide`]; eight channels of each column are readable, `apart` elements from each
    /// other, and eight weights for each column of the kernel.
    #[inline(always)]
    unsafe fn add<const KW: usize, const S: usize, const P: usize>(
        &self,
        sums: &mut [__m256; P],
        input: *const f32,
        apart: usize,
        weights: *const f32,
    ) {
        let shape = self.line.shape;
        let (width, step, gap) = match KW {
            ANY => (shape.kernel[1], shape.stride[1], shape.dilation[1]),
            _ => (KW, S, 1),
        };
        for kx in 0..width {
            // SAFETY: the caller's promise.
            unsafe {
                let weight = _mm256_loadu_ps(weights.add(kx * LANES));
                for (p, sum) in sums.iter_mut().enumerate() {
                    let value = _mm256_loadu_ps(input.add((p * step + kx * gap) * apart));
                    *sum = _mm256_fmadd_ps(value, weight, *sum);
                }
            }
        }
    }
}

/// Up to eight output channels, and the input channels they belong to.
struct Channels {
    /// How many outputs there are.
    width: usize,
    /// The first input.
    first: usize,
    /// Whether they are eight, each with an input of its own.
    are_neighbours: bool,
    /// How many inputs there are.
    inputs: usize,
    /// For each output, which of them is its own.
    index: [i32; LANES],
}

impl Channels {
    /// The output channels from `col` on.
    fn of(shape: &ConvShape, col: usize) -> Channels {
        let (each, width) = (shape.group_out_c(), LANES.min(shape.out_c - col));
        let (first, last) = (col / each, (col + width - 1) / each);
        let index = |lane: usize| ((col + lane) / each).min(last) - first;
        Channels {
            width,
            first,
            are_neighbours: each == 1 && width == LANES,
            inputs: last + 1 - first,
            index: std::array::from_fn(|lane| index(lane) as i32),
        }
    }

    /// Copies the inputs of each channel for columns that lie `apart` elements from each other, the
    /// first at `input`.
    ///
    /// # Safety
    /// The CPU has AVX2; the inputs of all columns are readable.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn copy(&self, columns: &mut [[f32; LANES]], input: *const f32, apart: usize) {
        // SAFETY: there are eight numbers.
        let index = unsafe { _mm256_loadu_si256(self.index.as_ptr().cast()) };
        let mask = first_lanes(self.inputs);
        for (i, column) in columns.iter_mut().enumerate() {
            // SAFETY: the caller's promise; other inputs than those of the mask are not read.
            unsafe {
                let values = _mm256_maskload_ps(input.wrapping_add(i * apart), mask);
                let values = _mm256_permutevar8x32_ps(values, index);
                _mm256_storeu_ps(column.as_mut_ptr(), values);
            }
        }
    }
}
