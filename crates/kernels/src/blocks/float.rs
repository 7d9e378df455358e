//! Products of float activations with packed weights: what the model means, without a copy of its
//! weights as numbers.

use std::ops::Range;

use bytemuck::Zeroable;

use super::format::Visit;
use super::packed::PackedBlocks;
use super::tile::Unit;
use super::unit::{Convert, Plain, ROWS, SPAN};
use super::weights::Weights;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Job;
use crate::cpu::{Ctx, Isa, Level};
use crate::gemm::kernel::NR;
use crate::gemm::parts::RightParts;
use crate::gemm::rows::{MatrixRows, Same};
use crate::gemm::{Epilogue, FloatFinish, Matrix, drive_f32};

const _: () = assert!(NR == ROWS);

/// `out[t][n] = sum over k of x[t][k] * w[n][k]`, where `w` are the numbers that the blocks stand
/// for. Each sum starts at 0 and runs over k in order with fused multiply-add, as
/// [`gemm_f32`](crate::gemm::gemm_f32) does: the bits are those of a product with decoded weights.
///
/// # Panics
/// When `x` is no whole rows of `k`, or `out` is not of as many rows of `n`.
pub fn matmul_blocks_f32(ctx: Ctx<'_>, x: &[f32], weights: &PackedBlocks, out: &mut [f32]) {
    weights.format.visit(Blocks { ctx, x, weights, out });
}

struct Blocks<'a> {
    ctx: Ctx<'a>,
    x: &'a [f32],
    weights: &'a PackedBlocks,
    out: &'a mut [f32],
}

impl Visit for Blocks<'_> {
    type Output = ();

    fn with<W: Weights>(self) {
        let Blocks { ctx, x, weights, out } = self;
        multiply(ctx, x, &Decoded::<W> { weights, format: std::marker::PhantomData }, out);
    }
}

/// Weights that yield panels of numbers: for each k, those of 16 rows.
pub(super) trait Source: Sync {
    /// Rows and elements of a row.
    fn size(&self) -> (usize, usize);

    /// Elements of k that are decoded together.
    fn step(&self) -> usize;

    /// The numbers of the panel for some k, which begin at a multiple of the step.
    fn fill<C: Convert>(&self, panel: usize, k: Range<usize>, out: &mut [[f32; ROWS]]);

    /// The bytes of these numbers, where it pays to ask for them in advance.
    fn bytes(&self, _panel: usize, _k: Range<usize>) -> &[u8] {
        &[]
    }
}

struct Decoded<'a, W> {
    weights: &'a PackedBlocks,
    format: std::marker::PhantomData<fn() -> W>,
}

impl<W: Weights> Source for Decoded<'_, W> {
    fn size(&self) -> (usize, usize) {
        (self.weights.n(), self.weights.k())
    }

    fn step(&self) -> usize {
        W::UNITS * SPAN
    }

    #[inline(always)]
    fn fill<C: Convert>(&self, panel: usize, k: Range<usize>, out: &mut [[f32; ROWS]]) {
        let mut units = [W::Unit::zeroed(); 8];
        let units = &mut units[..W::UNITS];
        let spans = out.as_chunks_mut::<SPAN>().0.chunks_exact_mut(W::UNITS);
        let blocks = &self.weights.panel(panel)[k.start / self.step() * W::PACKED..];
        for (spans, packed) in spans.zip(blocks.chunks_exact(W::PACKED)) {
            W::unpack::<C>(packed, units);
            for (unit, span) in units.iter().zip(spans) {
                unit.expand::<W>(span);
            }
        }
    }
}

/// Multiplies rows of floats with all panels of a source.
pub(super) fn multiply<S: Source>(ctx: Ctx<'_>, x: &[f32], source: &S, out: &mut [f32]) {
    let (n, k) = source.size();
    let tokens = x.len().checked_div(k).unwrap_or(0);
    assert_eq!(tokens * k, x.len(), "rows of {k}");
    assert_eq!(tokens * n, out.len(), "{tokens} rows of {n}");
    let rows = MatrixRows { data: x, stride: k, k, padded_k: k, convert: Same };
    let out = Matrix { data: out, stride: n };
    let finish = FloatFinish::new(Epilogue::default(), tokens, n, 0, out);
    drive_f32(ctx, tokens, &Numbers { source, isa: ctx.isa }, &rows, &finish);
}

/// The numbers of a source, part by part.
struct Numbers<'a, S> {
    source: &'a S,
    isa: Isa,
}

impl<S: Source> RightParts for Numbers<'_, S> {
    fn size(&self) -> (usize, usize) {
        let (n, k) = self.source.size();
        (k, n)
    }

    fn step(&self) -> usize {
        self.source.step()
    }

    fn part<'s>(
        &'s self,
        index: usize,
        k: Range<usize>,
        scratch: &'s mut [[f32; NR]],
    ) -> &'s [[f32; NR]] {
        let out = &mut scratch[..k.len()];
        match self.isa.level() {
            Level::Scalar => self.source.fill::<Plain>(index, k, out),
            // SAFETY: the CPU has the level, and every wider one includes AVX2.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe { crate::cpu::run_avx2(FillAvx2 { source: self.source, index, k, out }) },
            #[cfg(target_arch = "aarch64")]
            _ => self.source.fill::<super::arm_neon::Neon>(index, k, out),
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            _ => self.source.fill::<Plain>(index, k, out),
        }
        &scratch[..]
    }

    fn bytes(&self, index: usize, k: Range<usize>) -> &[u8] {
        self.source.bytes(index, k)
    }
}

#[cfg(target_arch = "x86_64")]
struct FillAvx2<'a, 's, S> {
    source: &'a S,
    index: usize,
    k: Range<usize>,
    out: &'s mut [[f32; NR]],
}

#[cfg(target_arch = "x86_64")]
impl<S: Source> Job for FillAvx2<'_, '_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.source.fill::<super::x86_avx2::Avx2>(self.index, self.k, self.out);
    }
}
