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
    octets: Option<Octets>,
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
        let weights = weights + self.octets.as_ref().map_or(0, Octets::bytes);
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
        #[cfg(target_arch = "x86_64")]
        let octets = self.octets.as_ref().filter(|_| Octets::fit(shape));
        let lines = shape.batch * shape.out_h();
        ctx.pool.for_each_range(lines, ctx.pool.grain(lines, 1), |lines| {
            for line in lines {
                let line = Line { weights: &self.weights, shape, input, line, finish: &finish };
                match ctx.isa.level() {
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 | Level::Avx512 => match octets {
                        Some(octets) => ctx.isa.run(Sliding { line, octets }),
                        None => ctx.isa.run(wide::WideLine::new(line)),
                    },
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

#[cfg(target_arch = "x86_64")]
mod wide {
    //! The same with AVX2: sums in registers, no checks within the loops.

    use std::arch::x86_64::*;

    use super::*;

    /// One row of output pixels.
    pub(super) struct WideLine<'a>(Line<'a>);

    impl<'a> WideLine<'a> {
        /// To be run on processors with AVX2 only.
        pub(super) fn new(line: Line<'a>) -> Self {
            WideLine(line)
        }

        /// Checks that `len` inputs can be read from the channel `col` of pixel `x` on, and `wide`
        /// weights, for each tap.
        #[inline(always)]
        fn check(&self, taps: &[Tap], at: usize, len: usize, col: usize, wide: usize) {
            let line = &self.0;
            for tap in taps {
                let start = tap.input.wrapping_add(at);
                let inputs = start <= line.input.len() && len <= line.input.len() - start;
                assert!(inputs && tap.weight + col + wide <= line.weights.len(), "too short");
            }
        }
    }

    impl Job for WideLine<'_> {
        type Output = ();

        #[inline(always)]
        fn run(self) {
            walk(self.0.shape, self.0.line, &self);
        }
    }

    impl Row for WideLine<'_> {
        #[inline(always)]
        fn pixels<const N: usize, const FULL: bool>(&self, taps: &[Tap], x: usize, col: usize) {
            if !FULL {
                return self.0.pixels::<N, FULL>(taps, x, col);
            }
            let Line { weights, shape, input, line, finish } = &self.0;
            let step = shape.stride[1] * shape.in_c;
            let at = x * step + col;
            self.check(taps, at, (N - 1) * step + NR, col, NR);
            let columns = finish.columns(col, NR);
            // SAFETY: inputs and weights were checked; the CPU has AVX2, as `new` demands; each
            // pixel belongs to one task, which stores it once.
            unsafe {
                let mut acc = [[0.0; NR]; N];
                tile::<N>(taps, input.as_ptr(), at, step, weights.as_ptr().add(col), 0, &mut acc);
                finish.rows_avx2(&columns, line * shape.out_w() + x, col, NR, &acc);
            }
        }

        #[inline(always)]
        fn chunks(&self, taps: &[Tap], x: usize, col: usize) {
            let Line { weights, shape, input, line, finish } = &self.0;
            let at = x * shape.stride[1] * shape.in_c + col;
            self.check(taps, at, CHUNKS * NR, col, CHUNKS * NR);
            let mut acc = [[0.0; NR]; CHUNKS];
            // SAFETY: as in `pixels`.
            unsafe {
                tile::<CHUNKS>(
                    taps,
                    input.as_ptr(),
                    at,
                    NR,
                    weights.as_ptr().add(col),
                    NR,
                    &mut acc,
                );
                for (i, acc) in acc.chunks_exact(1).enumerate() {
                    let col = col + i * NR;
                    let columns = finish.columns(col, NR);
                    finish.rows_avx2(&columns, line * shape.out_w() + x, col, NR, acc);
                }
            }
        }
    }

    /// `N` times 16 sums over the taps, whose inputs lie `step` and whose weights lie `turn`
    /// elements apart.
    ///
    /// # Safety
    /// The CPU has AVX2. For each tap there are 16 inputs and weights at each of those places.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const N: usize>(
        taps: &[Tap],
        input: *const f32,
        at: usize,
        step: usize,
        weights: *const f32,
        turn: usize,
        out: &mut [[f32; NR]; N],
    ) {
        let mut acc = [[_mm256_setzero_ps(); 2]; N];
        for tap in taps {
            // SAFETY: the caller's promise.
            unsafe {
                let (values, weights) =
                    (input.add(tap.input.wrapping_add(at)), weights.add(tap.weight));
                for (n, acc) in acc.iter_mut().enumerate() {
                    let (x, w) = (values.add(n * step), weights.add(n * turn));
                    acc[0] = _mm256_fmadd_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(w), acc[0]);
                    let (x, w) = (x.add(NR / 2), w.add(NR / 2));
                    acc[1] = _mm256_fmadd_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(w), acc[1]);
                }
            }
        }
        for (out, acc) in out.iter_mut().zip(acc) {
            // SAFETY: a row has 16 elements.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), acc[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(NR / 2), acc[1]);
            }
        }
    }
}
