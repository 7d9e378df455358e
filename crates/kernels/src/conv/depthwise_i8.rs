//! int8 depthwise convolution: exact i32 sums, 16 channels at a time.

use std::ops::Range;

use super::depthwise::taps;
use super::int8::ConvInput;
use super::shape::ConvShape;
use crate::cpu::{Ctx, Isa, Job};
use crate::gemm::driver::Finish;
use crate::gemm::kernel::NR;
use crate::gemm::{Matrix, Output, Prepared, WeightZero, load, unsigned_zero};
use crate::int8::Int8;

/// Weights less their zero points, by tap and channel.
pub(super) struct DepthwiseI8 {
    kernel: [usize; 2],
    out_c: usize,
    weights: Vec<i16>,
}

impl DepthwiseI8 {
    pub(super) fn new(
        _isa: Isa,
        shape: &ConvShape,
        weights: Int8<'_>,
        zero: WeightZero<'_>,
    ) -> DepthwiseI8 {
        let (kernel, out_c) = (shape.kernel, shape.out_c);
        let by_tap = |i: usize| {
            let weight = weights.get(shape.weight_index(i / out_c, i % out_c));
            i16::try_from(weight - zero.get(i % out_c))
                .expect("zero points are of the weights' type")
        };
        DepthwiseI8 { kernel, out_c, weights: (0..weights.len()).map(by_tap).collect() }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.weights.as_slice())
    }

    pub(super) fn run(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        input: ConvInput<'_>,
        output: Output<'_>,
    ) {
        assert!(self.kernel == shape.kernel && self.out_c == shape.out_c, "other weights");
        let output = Matrix { data: output, stride: shape.out_c };
        match Prepared::new(output, shape.out_pixels(), shape.out_c, 0) {
            Prepared::Int8(finish) => self.finish(ctx, shape, input, &finish),
            Prepared::I32(finish) => self.finish(ctx, shape, input, &finish),
            Prepared::F32(finish) => self.finish(ctx, shape, input, &finish),
        }
    }

    fn finish<F: Finish<Acc = i32>>(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        input: ConvInput<'_>,
        finish: &F,
    ) {
        let zero_point = i32::from(unsigned_zero(input.values, input.zero_point));
        let (bytes, flip) = (input.values.bytes(), input.values.flip());
        let lines = shape.batch * shape.out_h();
        ctx.pool.for_each_range(lines, ctx.pool.grain(lines, 1), |lines| {
            for line in lines {
                let weights = &self.weights;
                ctx.isa.run(Line { weights, shape, bytes, flip, zero_point, line, finish });
            }
        });
    }
}

/// One row of output pixels.
struct Line<'a, F> {
    weights: &'a [i16],
    shape: &'a ConvShape,
    bytes: &'a [u8],
    flip: u8,
    zero_point: i32,
    line: usize,
    finish: &'a F,
}

impl<F: Finish<Acc = i32>> Job for Line<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for col in (0..self.shape.out_c).step_by(NR) {
            let columns = self.finish.columns(col, NR.min(self.shape.out_c - col));
            for x in 0..self.shape.out_w() {
                self.pixel(x, col, &columns);
            }
        }
    }
}

impl<F: Finish<Acc = i32>> Line<'_, F> {
    #[inline(always)]
    fn pixel(&self, x: usize, col: usize, columns: &F::Columns) {
        let shape = self.shape;
        let width = NR.min(shape.out_c - col);
        let (image, y) = (self.line / shape.out_h(), self.line % shape.out_h());
        let across = taps(shape, 1, shape.in_w, x);
        let mut acc = [0; NR];
        for ky in taps(shape, 0, shape.in_h, y) {
            let in_y = y * shape.stride[0] + ky * shape.dilation[0] - shape.pads[0];
            let first = (image * shape.in_h + in_y) * shape.in_w;
            self.taps(ky, across.clone(), first, x, col, &mut acc);
        }
        // SAFETY: each pixel belongs to one task, which stores it once.
        unsafe { self.finish.row(columns, self.line * shape.out_w() + x, col, width, &acc) }
    }

    /// Adds the taps of one kernel row.
    #[inline(always)]
    fn taps(
        &self,
        ky: usize,
        across: Range<usize>,
        first: usize,
        x: usize,
        col: usize,
        acc: &mut [i32; NR],
    ) {
        let shape = self.shape;
        let width = NR.min(shape.out_c - col);
        for kx in across {
            let tap = (ky * shape.kernel[1] + kx) * shape.out_c + col;
            let weights = load(&self.weights[tap..], width);
            let in_x = x * shape.stride[1] + kx * shape.dilation[1] - shape.pads[1];
            let values = self.values((first + in_x) * shape.in_c, col, width);
            for lane in 0..NR {
                acc[lane] += values[lane] * i32::from(weights[lane]);
            }
        }
    }

    /// The inputs of `width` output channels from `col` on, for the pixel that starts at `pixel`.
    #[inline(always)]
    fn values(&self, pixel: usize, col: usize, width: usize) -> [i32; NR] {
        let per_channel = self.shape.group_out_c();
        let lanes = if per_channel == 1 {
            load(&self.bytes[pixel + col..], width)
        } else {
            let mut lanes = [0; NR];
            for (i, lane) in lanes.iter_mut().take(width).enumerate() {
                *lane = self.bytes[pixel + (col + i) / per_channel];
            }
            lanes
        };
        lanes.map(|byte| i32::from(byte ^ self.flip) - self.zero_point)
    }
}
