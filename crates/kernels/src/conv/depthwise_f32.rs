//! f32 depthwise convolution: one output pixel, or four neighbours, times 16 channels at a time.

use std::ops::Range;

use super::depthwise::{interior, taps};
use super::shape::ConvShape;
use crate::cpu::{Ctx, Job};
use crate::gemm::driver::Finish;
use crate::gemm::kernel::NR;
use crate::gemm::{Epilogue, FloatFinish, Matrix, load};

/// Weights by tap and channel.
pub(super) struct DepthwiseF32 {
    kernel: [usize; 2],
    out_c: usize,
    weights: Vec<f32>,
}

/// Neighbouring output pixels that share the loads of the weights.
const PIXELS: usize = 4;

impl DepthwiseF32 {
    pub(super) fn new(shape: &ConvShape, weights: &[f32]) -> DepthwiseF32 {
        let (kernel, out_c) = (shape.kernel, shape.out_c);
        let by_tap = |i: usize| weights[shape.weight_index(i / out_c, i % out_c)];
        DepthwiseF32 { kernel, out_c, weights: (0..weights.len()).map(by_tap).collect() }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.weights.as_slice())
    }

    pub(super) fn run(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        input: &[f32],
        epilogue: Epilogue<'_>,
        output: &mut [f32],
    ) {
        assert!(self.kernel == shape.kernel && self.out_c == shape.out_c, "other weights");
        let output = Matrix { data: output, stride: shape.out_c };
        let finish = FloatFinish::new(epilogue, shape.out_pixels(), shape.out_c, 0, output);
        let lines = shape.batch * shape.out_h();
        ctx.pool.for_each_range(lines, ctx.pool.grain(lines, 1), |lines| {
            for line in lines {
                ctx.isa.run(Line { weights: &self.weights, shape, input, line, finish: &finish });
            }
        });
    }
}

/// One row of output pixels.
struct Line<'a> {
    weights: &'a [f32],
    shape: &'a ConvShape,
    input: &'a [f32],
    line: usize,
    finish: &'a FloatFinish<'a>,
}

impl Job for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let interior = interior(self.shape);
        let width = self.shape.out_w();
        for col in (0..self.shape.out_c).step_by(NR) {
            let columns = self.finish.columns(col, NR.min(self.shape.out_c - col));
            let mut x = 0;
            while x < width {
                if interior.contains(&x) && interior.contains(&(x + PIXELS - 1)) {
                    self.pixels::<PIXELS>(x, col, &columns);
                    x += PIXELS;
                } else {
                    self.pixels::<1>(x, col, &columns);
                    x += 1;
                }
            }
        }
    }
}

impl Line<'_> {
    /// Computes `N` pixels from `x` on, all of which have the same horizontal taps.
    #[inline(always)]
    fn pixels<const N: usize>(&self, x: usize, col: usize, columns: &[f32; NR]) {
        let shape = self.shape;
        let width = NR.min(shape.out_c - col);
        let (image, y) = (self.line / shape.out_h(), self.line % shape.out_h());
        let across = taps(shape, 1, shape.in_w, x);
        let mut acc = [[0.0; NR]; N];
        for ky in taps(shape, 0, shape.in_h, y) {
            let in_y = y * shape.stride[0] + ky * shape.dilation[0] - shape.pads[0];
            let first = (image * shape.in_h + in_y) * shape.in_w;
            self.taps::<N>(ky, across.clone(), first, x, col, &mut acc);
        }
        for (i, acc) in acc.iter().enumerate() {
            // SAFETY: each pixel belongs to one task, which stores it once.
            unsafe { self.finish.row(columns, self.line * shape.out_w() + x + i, col, width, acc) }
        }
    }

    /// Adds the taps of one kernel row.
    #[inline(always)]
    fn taps<const N: usize>(
        &self,
        ky: usize,
        across: Range<usize>,
        first: usize,
        x: usize,
        col: usize,
        acc: &mut [[f32; NR]; N],
    ) {
        let shape = self.shape;
        let width = NR.min(shape.out_c - col);
        for kx in across {
            let tap = (ky * shape.kernel[1] + kx) * shape.out_c + col;
            let weights = load(&self.weights[tap..], width);
            for (i, acc) in acc.iter_mut().enumerate() {
                let in_x = (x + i) * shape.stride[1] + kx * shape.dilation[1] - shape.pads[1];
                let values = self.values((first + in_x) * shape.in_c, col, width);
                for lane in 0..NR {
                    acc[lane] = values[lane].mul_add(weights[lane], acc[lane]);
                }
            }
        }
    }

    /// The inputs of `width` output channels from `col` on, for the pixel that starts at `pixel`.
    #[inline(always)]
    fn values(&self, pixel: usize, col: usize, width: usize) -> [f32; NR] {
        let per_channel = self.shape.group_out_c();
        if per_channel == 1 {
            return load(&self.input[pixel + col..], width);
        }
        let mut lanes = [0.0; NR];
        for (i, lane) in lanes.iter_mut().take(width).enumerate() {
            *lane = self.input[pixel + (col + i) / per_channel];
        }
        lanes
    }
}
