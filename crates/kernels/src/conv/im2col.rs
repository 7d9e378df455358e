//! Rows of a convolution as a matrix product: one row per output pixel, gathered block by block.

use std::ops::Range;

use super::shape::ConvShape;
use crate::gemm::driver::Rows;
use crate::gemm::rows::Convert;

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
        self.padded_k
    }

    #[inline(always)]
    fn fetch<'s>(
        &'s self,
        range: Range<usize>,
        scratch: &'s mut [C::Dst],
    ) -> (&'s [C::Dst], usize) {
        let (out_h, out_w) = (self.shape.out_h(), self.shape.out_w());
        let mut x = range.start % out_w;
        let mut y = range.start / out_w % out_h;
        let mut image = range.start / out_w / out_h;
        for row in scratch.chunks_exact_mut(self.padded_k) {
            self.patch(image, y, x, row);
            x += 1;
            if x == out_w {
                (x, y) = (0, y + 1);
            }
            if y == out_h {
                (y, image) = (0, image + 1);
            }
        }
        (scratch, self.padded_k)
    }
}

impl<C: Convert> PatchRows<'_, C> {
    /// Gathers what output pixel (`y`, `x`) of an image depends on.
    #[inline(always)]
    fn patch(&self, image: usize, y: usize, x: usize, out: &mut [C::Dst]) {
        let shape = self.shape;
        let (body, tail) = out.split_at_mut(shape.k());
        tail.fill(self.convert.padding());
        let line_len = shape.kernel[1] * shape.group_in_c();
        for (ky, line) in body.chunks_exact_mut(line_len).enumerate() {
            let from_top = y * shape.stride[0] + ky * shape.dilation[0];
            match from_top.checked_sub(shape.pads[0]).filter(|&in_y| in_y < shape.in_h) {
                Some(in_y) => self.line((image * shape.in_h + in_y) * shape.in_w, x, line),
                None => line.fill(self.convert.padding()),
            }
        }
    }

    /// Gathers one row of the kernel from the input row whose first pixel has index `first`.
    #[inline(always)]
    fn line(&self, first: usize, x: usize, out: &mut [C::Dst]) {
        let shape = self.shape;
        let from_left = x * shape.stride[1];
        let inside =
            from_left >= shape.pads[1] && from_left + shape.kernel[1] <= shape.pads[1] + shape.in_w;
        if shape.groups == 1 && shape.dilation[1] == 1 && inside {
            let start = (first + from_left - shape.pads[1]) * shape.in_c;
            self.convert.convert(&self.input[start..][..out.len()], out);
            return;
        }
        for (kx, tap) in out.chunks_exact_mut(shape.group_in_c()).enumerate() {
            let from_left = from_left + kx * shape.dilation[1];
            match from_left.checked_sub(shape.pads[1]).filter(|&in_x| in_x < shape.in_w) {
                Some(in_x) => {
                    let start = (first + in_x) * shape.in_c + self.first_channel;
                    self.convert.convert(&self.input[start..][..tap.len()], tap);
                }
                None => tap.fill(self.convert.padding()),
            }
        }
    }
}
