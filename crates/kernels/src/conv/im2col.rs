//! Rows of a convolution as a matrix product: one row per output pixel, gathered block by block.

use std::ops::Range;

use super::depthwise::interior;
use super::shape::ConvShape;
use crate::gemm::driver::Rows;
use crate::gemm::kernel::NR;
use crate::gemm::rows::{Convert, pitch};

/// The left operand of a convolution: output pixels by (row, column, channel) of the kernel.
pub(crate) struct PatchRows<'a, C: Convert> {
    /// Input images of all groups.
    pub(crate) input: &'a [C::Src],
    /// The convolution.
    pub(crate) shape: &'a ConvShape,
    /// First input channel of the group.
    pub(crate) first_channel: usize,
    /// Length of a row, rounded up to whole groups of k.
    pub(crate) padded_k: usize,
    /// What to do with each element.
    pub(crate) convert: C,
}

impl<C: Convert> Rows<C::Dst> for PatchRows<'_, C> {
    fn scratch_per_row(&self) -> usize {
        pitch::<C::Dst>(self.padded_k)
    }

    #[inline(always)]
    fn fetch<'s>(
        &'s self,
        range: Range<usize>,
        scratch: &'s mut [C::Dst],
    ) -> (&'s [C::Dst], usize) {
        let pitch = pitch::<C::Dst>(self.padded_k);
        // Copies of its own, which stores to `scratch` cannot change: so they stay in registers.
        let shape = *self.shape;
        let own = PatchRows { shape: &shape, ..*self };
        let (out_h, out_w) = (self.shape.out_h(), self.shape.out_w());
        let (mut i, mut x, mut line) = (0, range.start % out_w, range.start / out_w);
        while i < range.len() {
            let end = out_w.min(x + range.len() - i);
            own.patches((line / out_h, line % out_h), x..end, &mut scratch[i * pitch..], pitch);
            i += end - x;
            (x, line) = (0, line + 1);
        }
        (scratch, pitch)
    }
}

/// A row of output pixels of a convolution whose kernel has short rows, as those of images with
/// three channels: they go by whole vectors, without checks for each.
struct ShortLine {
    /// The pixels all of whose inputs lie inside the image, and so do whole vectors of them.
    xs: Range<usize>,
    /// Where the inputs of pixel 0 begin; wraps below 0 where that lies in the padding.
    first: usize,
    /// From one row of the image to the next.
    step: usize,
}

impl<C: Convert> PatchRows<'_, C> {
    /// How to gather row `y` of an image by short rows of the kernel, where that is possible.
    #[inline(always)]
    fn short_line(&self, image: usize, y: usize) -> Option<ShortLine> {
        let shape = self.shape;
        let line_len = shape.kernel[1] * shape.in_c;
        let top = (y * shape.stride[0]).checked_sub(shape.pads[0])?;
        let plain = shape.groups == 1 && shape.dilation == [1, 1];
        // Vectors may run over the end of a patch, but not over that of a row of A.
        let fits = (1..=2 * NR).contains(&line_len) && self.vectors() <= self.padded_k + NR;
        if !plain || !fits || top + shape.kernel[0] > shape.in_h {
            return None;
        }
        let (pixel, step) = (shape.stride[1] * shape.in_c, shape.in_w * shape.in_c);
        let row = (image * shape.in_h + top) * shape.in_w;
        let first = (row * shape.in_c).wrapping_sub(shape.pads[1] * shape.in_c);
        let mut xs = interior(shape);
        let reach = (shape.kernel[0] - 1) * step + line_len.next_multiple_of(NR);
        while !xs.is_empty() && first.wrapping_add((xs.end - 1) * pixel) + reach > self.input.len()
        {
            xs.end -= 1;
        }
        Some(ShortLine { xs, first, step })
    }

    /// Elements that a short patch writes.
    fn vectors(&self) -> usize {
        let line_len = self.shape.kernel[1] * self.shape.in_c;
        (self.shape.kernel[0] - 1) * line_len + line_len.next_multiple_of(NR)
    }

    /// Gathers what the output pixels `xs` of line `y` of an image depend on, `pitch` apart. Each
    /// patch may run over its end: into the next one, which follows.
    #[inline(always)]
    fn patches(
        &self,
        (image, y): (usize, usize),
        xs: Range<usize>,
        out: &mut [C::Dst],
        pitch: usize,
    ) {
        let short = self.short_line(image, y);
        let short_xs = short.as_ref().map_or(0..0, |short| short.xs.clone());
        let first = short_xs.start.clamp(xs.start, xs.end);
        let end = short_xs.end.clamp(first, xs.end);
        for x in xs.start..first {
            self.patch(image, y, x, &mut out[(x - xs.start) * pitch..]);
        }
        if let Some(short) = short.filter(|_| first < end) {
            self.short_patches(&short, first..end, &mut out[(first - xs.start) * pitch..], pitch);
        }
        for x in end..xs.end {
            self.patch(image, y, x, &mut out[(x - xs.start) * pitch..]);
        }
    }

    /// As [`PatchRows::patches`], for pixels of a short line.
    #[inline(always)]
    fn short_patches(&self, line: &ShortLine, xs: Range<usize>, out: &mut [C::Dst], pitch: usize) {
        let shape = self.shape;
        let (rows, line_len) = (shape.kernel[0], shape.kernel[1] * shape.in_c);
        let (pixel, vectors) = (shape.stride[1] * shape.in_c, line_len.next_multiple_of(NR));
        let last = (xs.len() - 1) * pixel + (rows - 1) * line.step + vectors;
        let from = &self.input[line.first.wrapping_add(xs.start * pixel)..][..last];
        assert!(out.len() >= (xs.len() - 1) * pitch + self.vectors(), "room for all patches");
        for i in 0..xs.len() {
            // SAFETY: the checks above are for the last patch.
            unsafe {
                let (from, out) = (from.as_ptr().add(i * pixel), out.as_mut_ptr().add(i * pitch));
                match (rows, vectors) {
                    // As most networks have it: no loop over rows.
                    (3, NR) => self.short_patch::<NR>(from, out, [3, line.step, line_len]),
                    (_, NR) => self.short_patch::<NR>(from, out, [rows, line.step, line_len]),
                    _ => self.short_patch::<{ 2 * NR }>(from, out, [rows, line.step, line_len]),
                }
            }
        }
    }

    /// Gathers `rows` rows of the kernel, `step` apart, as `line_len` elements each.
    ///
    /// # Safety
    /// `VECTORS` elements of each row are readable, and as many from the beginning of the last one
    /// on writable.
    #[inline(always)]
    unsafe fn short_patch<const VECTORS: usize>(
        &self,
        from: *const C::Src,
        out: *mut C::Dst,
        [rows, step, line_len]: [usize; 3],
    ) {
        for row in 0..rows {
            // What one row of the kernel writes too many, the next one overwrites; behind the last
            // one, weights are 0.
            for vector in (0..VECTORS).step_by(NR) {
                // SAFETY: the caller's promise.
                unsafe {
                    self.vector(from.add(row * step + vector), out.add(row * line_len + vector))
                }
            }
        }
    }

    /// Converts [`NR`] elements.
    ///
    /// # Safety
    /// They are readable, and writable, and do not overlap.
    #[inline(always)]
    unsafe fn vector(&self, from: *const C::Src, out: *mut C::Dst) {
        // SAFETY: the caller's promise; the types have no more alignment than their elements.
        let (from, out) = unsafe { (&*from.cast::<[_; NR]>(), &mut *out.cast::<[_; NR]>()) };
        self.convert.convert(from, out);
    }

    /// Gathers what output pixel (`y`, `x`) of an image depends on to the front of `out`. Up to
    /// [`NR`] elements behind are overwritten with anything.
    #[inline(always)]
    fn patch(&self, image: usize, y: usize, x: usize, out: &mut [C::Dst]) {
        let shape = self.shape;
        let line_len = shape.kernel[1] * shape.group_in_c();
        for ky in 0..shape.kernel[0] {
            let line = &mut out[ky * line_len..];
            let from_top = y * shape.stride[0] + ky * shape.dilation[0];
            match from_top.checked_sub(shape.pads[0]).filter(|&in_y| in_y < shape.in_h) {
                Some(in_y) => {
                    self.line((image * shape.in_h + in_y) * shape.in_w, x, line, line_len);
                }
                None => line[..line_len].fill(self.convert.padding()),
            }
        }
        for element in &mut out[shape.k()..self.padded_k] {
            *element = self.convert.padding();
        }
    }

    /// Gathers one row of the kernel, `len` elements, from the input row whose first pixel has
    /// index `first`.
    #[inline(always)]
    fn line(&self, first: usize, x: usize, out: &mut [C::Dst], len: usize) {
        let shape = self.shape;
        let from_left = x * shape.stride[1];
        let inside =
            from_left >= shape.pads[1] && from_left + shape.kernel[1] <= shape.pads[1] + shape.in_w;
        if shape.groups == 1 && shape.dilation[1] == 1 && inside {
            let start = (first + from_left - shape.pads[1]) * shape.in_c;
            self.run(&self.input[start..], out, len);
            return;
        }
        let channels = shape.group_in_c();
        for kx in 0..shape.kernel[1] {
            let tap = &mut out[kx * channels..];
            let from_left = from_left + kx * shape.dilation[1];
            match from_left.checked_sub(shape.pads[1]).filter(|&in_x| in_x < shape.in_w) {
                Some(in_x) => {
                    let start = (first + in_x) * shape.in_c + self.first_channel;
                    self.run(&self.input[start..], tap, channels);
                }
                None => tap[..channels].fill(self.convert.padding()),
            }
        }
    }

    /// Converts `len` neighbouring elements. Short runs, as of images with three channels or of
    /// groups, go by whole vectors, which is faster than the exact length; what they write too many,
    /// the next run overwrites.
    #[inline(always)]
    fn run(&self, input: &[C::Src], out: &mut [C::Dst], len: usize) {
        if len <= NR && input.len() >= NR && out.len() >= NR {
            self.convert.convert(&input[..NR], &mut out[..NR]);
        } else if len <= 2 * NR && input.len() >= 2 * NR && out.len() >= 2 * NR {
            self.convert.convert(&input[..2 * NR], &mut out[..2 * NR]);
        } else {
            self.convert.convert(&input[..len], &mut out[..len]);
        }
    }
}
