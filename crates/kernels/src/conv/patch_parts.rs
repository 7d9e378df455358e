//! Parts of the rows of [`PatchRows`]: some k of each output pixel, for float products.

use std::ops::Range;

use super::im2col::PatchRows;
use crate::gemm::driver::Rows;
use crate::gemm::parts::LeftParts;
use crate::gemm::rows::{Same, pitch};

/// Neighbouring k within one row of the kernel.
struct Segment {
    ky: usize,
    /// The first one, counted within the row of the kernel.
    from: usize,
    len: usize,
}

impl LeftParts for PatchRows<'_, Same> {
    fn scratch_per_row(&self, len: usize, _: usize) -> usize {
        pitch::<f32>(len)
    }

    #[inline(always)]
    fn fetch_part<'s>(
        &'s self,
        rows: Range<usize>,
        k: Range<usize>,
        per_row: usize,
        scratch: &'s mut [f32],
    ) -> (&'s [f32], usize) {
        if k.len() == self.padded_k {
            return self.fetch(rows, scratch);
        }
        let segments = self.segments(k);
        let (out_h, out_w) = (self.shape.out_h(), self.shape.out_w());
        let (mut x, mut line) = (rows.start % out_w, rows.start / out_w);
        for out in scratch.chunks_exact_mut(per_row).take(rows.len()) {
            self.patch_part(line / out_h, line % out_h, x, &segments, out);
            x += 1;
            if x == out_w {
                (x, line) = (0, line + 1);
            }
        }
        (scratch, per_row)
    }
}

impl PatchRows<'_, Same> {
    fn segments(&self, k: Range<usize>) -> Vec<Segment> {
        let line_len = self.shape.kernel[1] * self.shape.group_in_c();
        let mut segments = Vec::new();
        let mut next = k.start;
        while next < k.end {
            let (ky, from) = (next / line_len, next % line_len);
            let len = (line_len - from).min(k.end - next);
            segments.push(Segment { ky, from, len });
            next += len;
        }
        segments
    }

    /// Gathers the segments of what output pixel (`y`, `x`) of an image depends on.
    #[inline(always)]
    fn patch_part(
        &self,
        image: usize,
        y: usize,
        x: usize,
        segments: &[Segment],
        mut out: &mut [f32],
    ) {
        let shape = self.shape;
        for segment in segments {
            let (now, rest) = out.split_at_mut(segment.len);
            let from_top = y * shape.stride[0] + segment.ky * shape.dilation[0];
            match from_top.checked_sub(shape.pads[0]).filter(|&in_y| in_y < shape.in_h) {
                Some(in_y) => {
                    let first = (image * shape.in_h + in_y) * shape.in_w;
                    self.segment(first, x, segment.from, now);
                }
                None => now.fill(0.0),
            }
            out = rest;
        }
    }

    /// Gathers neighbouring k of one row of the kernel, from `from` on, out of the input row whose
    /// first pixel has index `first`.
    #[inline(always)]
    fn segment(&self, first: usize, x: usize, from: usize, mut out: &mut [f32]) {
        let (shape, channels) = (self.shape, self.shape.group_in_c());
        let from_left = x * shape.stride[1];
        let inside =
            from_left >= shape.pads[1] && from_left + shape.kernel[1] <= shape.pads[1] + shape.in_w;
        if shape.groups == 1 && shape.dilation[1] == 1 && inside {
            let start = (first + from_left - shape.pads[1]) * shape.in_c + from;
            out.copy_from_slice(&self.input[start..][..out.len()]);
            return;
        }
        let (mut kx, mut channel) = (from / channels, from % channels);
        while !out.is_empty() {
            let (tap, rest) = out.split_at_mut(out.len().min(channels - channel));
            let from_left = from_left + kx * shape.dilation[1];
            match from_left.checked_sub(shape.pads[1]).filter(|&in_x| in_x < shape.in_w) {
                Some(in_x) => {
                    let start = (first + in_x) * shape.in_c + self.first_channel + channel;
                    tap.copy_from_slice(&self.input[start..][..tap.len()]);
                }
                None => tap.fill(0.0),
            }
            (kx, channel, out) = (kx + 1, 0, rest);
        }
    }
}
