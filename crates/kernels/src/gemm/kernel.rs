//! What a matrix microkernel is, and the table of all that there are.

use bytemuck::Pod;

use crate::cpu::{Job, Level};

/// Columns per panel of the packed right operand, on every instruction set.
pub(crate) const NR: usize = 16;

/// The most rows that any microkernel computes at once.
pub(crate) const MAX_MR: usize = 16;

/// The accumulators of one tile, row by row.
pub(crate) type Tile<T> = [[T; NR]; MAX_MR];

/// The innermost loop of a matrix product: a few rows of A times one panel of B.
///
/// The k dimension is cut into steps of [`Microkernel::GROUP`] elements. Rows of A hold their
/// groups one after the other; a panel of B holds, per group, [`NR`] columns of `GROUP` elements.
/// Each accumulator starts at zero and runs over k in order.
pub(crate) trait Microkernel {
    /// Element of the left operand.
    type A: Pod + Sync + Send;
    /// Element of the packed right operand.
    type B: Pod + Sync + Send;
    /// Accumulator.
    type Acc: Pod + Sync + Send;
    /// Rows per tile.
    const MR: usize;
    /// Elements of k per step.
    const GROUP: usize;
    /// Instructions that [`Microkernel::tile`] needs.
    const LEVEL: Level;
    /// Name by the grammar `gemm_A_B_ACC__ISA_MRxNR`.
    const NAME: &'static str;

    /// Computes the tile of `rows` (1 to `MR`) rows that start at `a` and lie `lda` elements
    /// apart, times the panel at `b`.
    ///
    /// # Safety
    /// The CPU has `LEVEL`. Each row has `groups * GROUP` readable elements, the panel
    /// `groups * NR * GROUP`.
    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const Self::A,
        lda: usize,
        b: *const Self::B,
        tile: &mut Tile<Self::Acc>,
    );

    /// Runs `job` compiled for `LEVEL`, so that [`Microkernel::tile`] can be inlined into it.
    ///
    /// # Safety
    /// The CPU has `LEVEL`.
    unsafe fn featured<J: Job>(job: J) -> J::Output;
}

/// Reads `GROUP` elements that start at `p` as one 32-bit word, for a broadcast.
///
/// # Safety
/// Four bytes are readable at `p`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn word<T>(p: *const T) -> i32 {
    // SAFETY: the caller's promise; the read is unaligned.
    unsafe { p.cast::<i32>().read_unaligned() }
}
