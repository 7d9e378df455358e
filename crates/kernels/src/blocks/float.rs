//! Products of float activations with packed weights: what the model means, without a copy of its
//! weights as numbers.

use std::ops::Range;

use bytemuck::Zeroable;

use super::format::Visit;
use super::packed::PackedBlocks;
use super::tile::Unit;
use super::unit::{Convert, Plain, ROWS, SPAN};
use super::weights::Weights;
use crate::cpu::{Ctx, Job, Level};
#[cfg(target_arch = "x86_64")]
use crate::gemm::Avx2F32;
use crate::gemm::ScalarF32;
use crate::gemm::kernel::{MAX_MR, Microkernel, NR, Tile};
use crate::scratch::with_scratch;
use crate::threads::SharedMut;

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

    /// Fills the panel, all k of it.
    fn fill<C: Convert>(&self, panel: usize, out: &mut [[f32; ROWS]]);
}

struct Decoded<'a, W> {
    weights: &'a PackedBlocks,
    format: std::marker::PhantomData<fn() -> W>,
}

impl<W: Weights> Source for Decoded<'_, W> {
    fn size(&self) -> (usize, usize) {
        (self.weights.n(), self.weights.k())
    }

    #[inline(always)]
    fn fill<C: Convert>(&self, panel: usize, out: &mut [[f32; ROWS]]) {
        let mut units = [W::Unit::zeroed(); 8];
        let units = &mut units[..W::UNITS];
        let spans = out.as_chunks_mut::<SPAN>().0.chunks_exact_mut(W::UNITS);
        for (spans, packed) in spans.zip(self.weights.panel(panel).chunks_exact(W::PACKED)) {
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
    let out = SharedMut::new(out);
    let panels = n.div_ceil(ROWS);
    ctx.pool.for_each_range(panels, ctx.pool.grain(panels, 1), |panels| {
        let task = Task { x, source, panels, out, tokens };
        with_scratch(k, |numbers| task.dispatch(ctx, numbers));
    });
}

struct Task<'a, S> {
    x: &'a [f32],
    source: &'a S,
    panels: Range<usize>,
    out: SharedMut<'a, f32>,
    tokens: usize,
}

impl<S: Source> Task<'_, S> {
    fn dispatch(self, ctx: Ctx<'_>, numbers: &mut [[f32; ROWS]]) {
        match ctx.isa.level() {
            // SAFETY: plain Rust runs everywhere.
            Level::Scalar => unsafe { self.run::<ScalarF32, Plain>(numbers) },
            // SAFETY: the CPU has the level, and every wider one includes AVX2.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe { crate::cpu::run_avx2(InAvx2(self, numbers)) },
            // SAFETY: plain Rust runs everywhere.
            #[cfg(not(target_arch = "x86_64"))]
            _ => unsafe { self.run::<ScalarF32, Plain>(numbers) },
        }
    }

    /// # Safety
    /// The CPU has the instructions of the microkernel.
    #[inline(always)]
    unsafe fn run<K: Microkernel<A = f32, B = f32, Acc = f32>, C: Convert>(
        self,
        numbers: &mut [[f32; ROWS]],
    ) {
        let (n, k) = self.source.size();
        for panel in self.panels.clone() {
            self.source.fill::<C>(panel, numbers);
            let width = ROWS.min(n - panel * ROWS);
            for first in (0..self.tokens).step_by(K::MR) {
                let rows = K::MR.min(self.tokens - first);
                let mut tile: Tile<f32> = [[0.0; NR]; MAX_MR];
                let (x, panel_at) = (self.x[first * k..].as_ptr(), numbers.as_ptr().cast());
                // SAFETY: the caller's promise; `rows` rows of k elements, and k rows of 16.
                unsafe { K::tile(rows, k, x, k, panel_at, &mut tile) };
                for (t, sums) in tile.iter().enumerate().take(rows) {
                    let start = (first + t) * n + panel * ROWS;
                    // SAFETY: each panel is computed by one task, which alone writes its columns.
                    let out = unsafe { self.out.range(start..start + width) };
                    out.copy_from_slice(&sums[..width]);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct InAvx2<'a, 's, S>(Task<'a, S>, &'s mut [[f32; ROWS]]);

#[cfg(target_arch = "x86_64")]
impl<S: Source> Job for InAvx2<'_, '_, S> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // SAFETY: made only where the CPU has AVX2.
        unsafe { self.0.run::<Avx2F32, super::x86_avx2::Avx2>(self.1) }
    }
}
