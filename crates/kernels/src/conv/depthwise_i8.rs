//! int8 depthwise convolution: exact i32 sums, 16 channels at a time.

use super::depthwise::{Row, Tap, channels, walk, weights};
use super::int8::ConvInput;
use super::shape::ConvShape;
use crate::cpu::{Ctx, Isa, Job};
use crate::gemm::driver::Finish;
use crate::gemm::kernel::NR;
use crate::gemm::{Matrix, Output, Prepared, WeightZero, unsigned_zero};
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
        let zero_point = i16::from(unsigned_zero(input.values, input.zero_point));
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
    zero_point: i16,
    line: usize,
    finish: &'a F,
}

impl<F: Finish<Acc = i32>> Job for Line<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        walk(self.shape, self.line, &self);
    }
}

impl<F: Finish<Acc = i32>> Row for Line<'_, F> {
    #[inline(always)]
    fn pixels<const N: usize, const FULL: bool>(&self, taps: &[Tap], x: usize, col: usize) {
        let shape = self.shape;
        let step = shape.stride[1] * shape.in_c;
        let mut acc = [[0i32; NR]; N];
        for tap in taps {
            let weights = weights::<i16, FULL>(shape, self.weights, tap, col);
            for (i, acc) in acc.iter_mut().enumerate() {
                let pixel = tap.input.wrapping_add((x + i) * step);
                let bytes = channels::<u8, FULL>(shape, self.bytes, pixel, col);
                for lane in 0..NR {
                    // Both factors are of 16 bits, which makes the product one instruction.
                    let value = i16::from(bytes[lane] ^ self.flip) - self.zero_point;
                    acc[lane] += i32::from(value) * i32::from(weights[lane]);
                }
            }
        }
        let width = if FULL { NR } else { NR.min(shape.out_c - col) };
        let columns = self.finish.columns(col, width);
        for (i, acc) in acc.iter().enumerate() {
            // SAFETY: each pixel belongs to one task, which stores it once.
            unsafe { self.finish.row(&columns, self.line * shape.out_w() + x + i, col, width, acc) }
        }
    }
}
