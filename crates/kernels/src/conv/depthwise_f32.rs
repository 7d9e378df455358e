//! f32 depthwise convolution: one output pixel, or four neighbours, times 16 channels at a time.

use super::depthwise::{CHUNKS, Row, Tap, channels, walk, weights};
#[cfg(target_arch = "x86_64")]
use super::depthwise_x86::{Octets, Sliding};
use super::shape::ConvShape;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Level;
use crate::cpu::{Ctx, Job};
use crate::gemm::driver::Finish;
use crate::gemm::kernel::NR;
use crate::gemm::{Epilogue, FloatFinish, Matrix};

/// Weights by tap and channel.
pub(super) struct DepthwiseF32 {
    kernel: [usize; 2],
    out_c: usize,
    weights: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    octets: Octets,
}

impl DepthwiseF32 {
    pub(super) fn new(shape: &ConvShape, weights: &[f32]) -> DepthwiseF32 {
        let (kernel, out_c) = (shape.kernel, shape.out_c);
        let taps = kernel[0] * kernel[1];
        let of_tap = |tap: usize| weights[tap..].iter().step_by(taps);
        DepthwiseF32 {
            kernel,
            out_c,
            #[cfg(target_arch = "x86_64")]
            octets: Octets::new(shape, weights),
            weights: (0..taps).flat_map(of_tap).copied().collect(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let weights = size_of_val(self.weights.as_slice());
        #[cfg(target_arch = "x86_64")]
        let weights = weights + self.octets.bytes();
        weights
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
                let line = Line { weights: &self.weights, shape, input, line, finish: &finish };
                match ctx.isa.level() {
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 | Level::Avx512 => {
                        ctx.isa.run(Sliding { line, octets: &self.octets });
                    }
                    _ => ctx.isa.run(line),
                }
            }
        });
    }
}

/// One row of output pixels.
pub(super) struct Line<'a> {
    pub(super) weights: &'a [f32],
    pub(super) shape: &'a ConvShape,
    pub(super) input: &'a [f32],
    pub(super) line: usize,
    pub(super) finish: &'a FloatFinish<'a>,
}

impl Job for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        walk(self.shape, self.line, &self);
    }
}

impl Row for Line<'_> {
    #[inline(always)]
    fn pixels<const N: usize, const FULL: bool>(&self, taps: &[Tap], x: usize, col: usize) {
        let shape = self.shape;
        let step = shape.stride[1] * shape.in_c;
        let mut acc = [[0.0; NR]; N];
        for tap in taps {
            let weights = weights::<f32, FULL>(shape, self.weights, tap, col);
            for (i, acc) in acc.iter_mut().enumerate() {
                let pixel = tap.input.wrapping_add((x + i) * step);
                let values = channels::<f32, FULL>(shape, self.input, pixel, col);
                for lane in 0..NR {
                    acc[lane] = values[lane].mul_add(weights[lane], acc[lane]);
                }
            }
        }
        let width = if FULL { NR } else { NR.min(shape.out_c - col) };
        let columns = self.finish.columns(col, width);
        for (i, acc) in acc.iter().enumerate() {
            let row = self.line * shape.out_w() + x + i;
            // SAFETY: each pixel belongs to one task, which stores it once.
            unsafe { self.finish.row::<FULL>(&columns, row, col, width, acc) }
        }
    }

    #[inline(always)]
    fn chunks(&self, taps: &[Tap], x: usize, col: usize) {
        for chunk in 0..CHUNKS {
            self.pixels::<1, true>(taps, x, col + chunk * NR);
        }
    }
}
