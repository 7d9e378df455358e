//! What a matrix microkernel is, and the table of all that there are.

use bytemuck::Pod;

use super::driver::finish_rows;
use super::float::FloatFinish;
use super::panels::Panels;
use crate::cpu::{Job, Level};

/// Columns per panel of the packed right operand, on every instruction set.
pub(crate) const NR: usize = 16;

/// The most rows that any microkernel computes at once.
pub(crate) const MAX_MR: usize = 16;

/// Asks for the line at `place`, wherever that is, before it is read or written.
#[inline(always)]
pub(crate) fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that a program could see.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Rows of sums that are finished together, so that what an epilogue prepares pays off: whole
/// tiles of every microkernel.
pub(crate) const BATCH: usize = 48;

/// Sums of a batch, with room for a tile that begins at the last row.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Sums<T>(pub(crate) [[T; NR]; BATCH + MAX_MR]);

impl<T: Pod> Sums<T> {
    pub(crate) fn new() -> Self {
        Sums([[T::zeroed(); NR]; BATCH + MAX_MR])
    }

    /// The tile that begins at `row`.
    #[inline(always)]
    pub(crate) fn tile(&mut self, row: usize) -> &mut Tile<T> {
        let Some(tile) = self.0[row..].first_chunk_mut() else {
            panic!("a tile begins behind its batch")
        };
        tile
    }
}

/// The accumulators of one tile, row by row.
pub(crate) type Tile<T> = [[T; NR]; MAX_MR];

/// The innermost loop of a matrix product: a few rows of A times one panel of B.
///
/// The k dimension is cut into steps of [`Microkernel::GROUP`] elements. Rows of A hold their
/// groups one after the other; a panel of B holds, per group, [`NR`] columns of `GROUP` elements,
/// unless [`Microkernel::pack`] does it in another way.
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
    /// Bytes of A that one task prepares at a time: they stay in the second-level cache while
    /// panels of B pass over them.
    const A_BYTES: usize = 128 << 10;
    /// Instructions that [`Microkernel::tile`] needs.
    const LEVEL: Level;
    /// How [`Finish::lines`](super::driver::Finish::lines) can multiply the same operands.
    #[cfg(target_arch = "x86_64")]
    const DOT: Option<super::x86_avx512_lines::Dot> = None;
    /// Name by the grammar `gemm_A_B_ACC__ISA_MRxNR`.
    const NAME: &'static str;

    /// Packs a right operand of `k` rows and `n` columns with elements `at(k, n)`.
    fn pack(k: usize, n: usize, at: impl Fn(usize, usize) -> Self::B) -> Panels<Self::B> {
        Panels::pack(k, n, Self::GROUP, at)
    }

    /// Computes the tile of `rows` (1 to `MR`) rows that start at `a` and lie `lda` elements
    /// apart, times the panel at `b`.
    ///
    /// # Safety
    /// The CPU has `LEVEL`. Each row has `groups * GROUP` readable elements in each of the orders
    /// that the panel was packed for, and the panel comes from [`Microkernel::pack`], or is packed
    /// in the same form, with as many groups.
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

/// A microkernel for f32 whose sums can go on where an earlier part of k left them.
pub(crate) trait FloatKernel: Microkernel<A = f32, B = f32, Acc = f32> + Sized {
    /// The most elements of k in a part.
    const PART: usize;
    /// Bytes of B that stay in the second-level cache, too, while tiles go along their rows; 0 for
    /// kernels that go down each panel and lack [`FloatKernel::last`].
    const B_BYTES: usize = 0;

    /// Rows of the tiles of `count` rows; the last tile may have fewer.
    #[inline(always)]
    fn rows(_count: usize) -> usize {
        Self::MR
    }

    /// As [`Microkernel::tile`], but the sums begin with what `tile` holds.
    ///
    /// # Safety
    /// As [`Microkernel::tile`].
    unsafe fn more(
        rows: usize,
        groups: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        tile: &mut Tile<f32>,
    );

    /// A part of a tile: the sums begin with what `tile` holds, or with zeros if it is the `first`.
    ///
    /// # Safety
    /// As [`Microkernel::tile`].
    #[inline(always)]
    unsafe fn part(factors: Factors, first: bool, tile: &mut Tile<f32>) {
        let Factors { rows, groups, a, lda, b, .. } = factors;
        // SAFETY: the caller's promise.
        unsafe {
            match first {
                true => Self::tile(rows, groups, a, lda, b, tile),
                false => Self::more(rows, groups, a, lda, b, tile),
            }
        }
    }

    /// A tile that is complete at once: finishes and stores it, from (`row`, `col`) on, in full
    /// width. `columns` is what [`FloatFinish`] loads for them.
    ///
    /// # Safety
    /// As [`Microkernel::tile`], and nobody else stores to these outputs.
    #[inline(always)]
    unsafe fn whole(
        factors: Factors,
        (finish, columns): (&FloatFinish<'_>, &[f32; NR]),
        (row, col): (usize, usize),
    ) {
        let mut tile = [[0.0; NR]; MAX_MR];
        // SAFETY: the caller's promise.
        unsafe {
            Self::part(factors, true, &mut tile);
            let sums = &tile[..factors.rows];
            finish_rows::<Self, _>(finish, columns, row, col, NR, sums);
        }
    }

    /// The last part of a tile, which begins with `sums`, if there are any, one row for each of
    /// A: finishes it and stores `width` columns, without a detour.
    ///
    /// # Safety
    /// As [`FloatKernel::whole`].
    #[inline(always)]
    unsafe fn last(
        _factors: Factors,
        _sums: Option<&[[f32; NR]]>,
        _finish: (&FloatFinish<'_>, &[f32; NR]),
        _at: (usize, usize),
        _width: usize,
    ) {
        unreachable!("asked for only where panels stay");
    }
}

/// What a float kernel multiplies: `rows` rows of A from `a` on, `lda` elements apart, with the
/// panel at `b`, as [`Microkernel::tile`] says.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "only AVX-512 kernels ask ahead")
)]
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) rows: usize,
    pub(crate) groups: usize,
    pub(crate) a: *const f32,
    pub(crate) lda: usize,
    pub(crate) b: *const f32,
    pub(crate) ahead: Ahead,
}

/// What will be read and written soon. A kernel asks for it bit by bit, each [`Ahead::EVERY`]
/// groups, so that it waits for nothing.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// Of B.
    pub(crate) b: Stream,
    /// Of A.
    pub(crate) a: Stream,
    /// The first row of results, and what is added to them.
    pub(crate) out: [*const f32; 2],
    /// From one row of results to the next, in elements.
    pub(crate) stride: usize,
}

/// Bytes one behind the other, of which `step` at a time are asked for.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "only AVX-512 kernels ask ahead")
)]
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    pub(crate) from: *const u8,
    pub(crate) step: usize,
}

impl Ahead {
    /// Groups of k between two requests.
    pub(crate) const EVERY: usize = 4;

    /// Nothing but what is at `place` anyway.
    pub(crate) fn nothing(place: *const f32) -> Ahead {
        let none = Stream { from: place.cast(), step: 0 };
        Ahead { b: none, a: none, out: [place; 2], stride: 0 }
    }

    /// Asks for what the groups from `group` on are to ask for.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn next(&mut self, group: usize) {
        self.b.next::<4>();
        self.a.next::<2>();
        let row = group / Ahead::EVERY % MAX_MR * self.stride;
        prefetch(self.out[0].wrapping_add(row));
        prefetch(self.out[1].wrapping_add(row));
    }
}

impl Stream {
    /// Such that `len` bytes at `from` are asked for in `times` requests.
    pub(crate) fn new(from: *const u8, len: usize, times: usize) -> Stream {
        Stream { from, step: len.div_ceil(times.max(1)) }
    }

    /// Asks for `LINES` lines of the next step, which are all if it is not longer.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn next<const LINES: usize>(&mut self) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        for line in 0..LINES {
            let place = self.from.wrapping_add(line * (self.step / LINES));
            // SAFETY: a prefetch reads nothing that a program could see.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) }
        }
        self.from = self.from.wrapping_add(self.step);
    }
}

/// Reads `GROUP` elements that start at `p` as one 32-bit word, for a broadcast.
///
/// # Safety
/// Four bytes are readable at `p`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
pub(super) unsafe fn word<T>(p: *const T) -> i32 {
    // SAFETY: the caller's promise; the read is unaligned.
    unsafe { p.cast::<i32>().read_unaligned() }
}
