//! f32 products of few rows. A tile of few rows and one panel would wait for each of its sums, so
//! these take several panels at a time. Each sum runs over all of k in order, as everywhere.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
#[cfg(feature = "avx512-model")]
use std::arch::x86_64::{
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};
use std::ops::Range;

use super::driver::Finish;
use super::float::{FloatFinish, Matrix, PackedF32};
use super::kernel::NR;
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::cpu::{Ctx, Job, Level};

/// The most rows that are few.
const ROWS: usize = 4;

/// Multiply-accumulates that are worth a thread of their own.
const LEAST: usize = 32_768;

/// Panels of which tasks are made.
const UNIT: usize = 4;

/// The sums of a tile: for each panel, rows of [`NR`].
type Sums<const ROWS: usize, const PANELS: usize> = [[[f32; NR]; ROWS]; PANELS];

/// Multiplies `m` rows, as [`gemm_f32`](super::gemm_f32) does, if they are few and the processor has
/// registers for several panels. Whether they were.
pub(super) fn multiply(
    ctx: Ctx<'_>,
    m: usize,
    a: Matrix<&[f32]>,
    b: &PackedF32,
    finish: &FloatFinish<'_>,
) -> bool {
    if m == 0 || m > ROWS || !matches!(ctx.isa.level(), Level::Avx2 | Level::Avx512) {
        return false;
    }
    let (panels, work) = (b.count(), m * b.k() * NR);
    let grain = ctx.pool.grain(panels, (LEAST / work.max(1)).max(1)).next_multiple_of(UNIT);
    ctx.pool.for_each_range(panels, grain, |panels| {
        let task = Task { a, b, finish, panels };
        match m {
            1 => ctx.isa.run(Few::<1>(task, ctx.isa.level())),
            2 => ctx.isa.run(Few::<2>(task, ctx.isa.level())),
            3 => ctx.isa.run(Few::<3>(task, ctx.isa.level())),
            _ => ctx.isa.run(Few::<ROWS>(task, ctx.isa.level())),
        }
    });
    true
}

/// Some panels times all rows.
struct Task<'a> {
    a: Matrix<&'a [f32]>,
    b: &'a PackedF32,
    finish: &'a FloatFinish<'a>,
    panels: Range<usize>,
}

/// A task of `ROWS` rows, on a processor that has the level: AVX2 or AVX-512.
struct Few<'a, const ROWS: usize>(Task<'a>, Level);

impl<const ROWS: usize> Job for Few<'_, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Few(task, level) = self;
        let mut next = task.panels.start;
        // SAFETY: `multiply` demands the level, and gives tasks that are disjoint.
        unsafe {
            match level {
                Level::Avx512 => {
                    task.tiles::<ROWS, 4, true>(&mut next);
                    task.tiles::<ROWS, 1, true>(&mut next);
                }
                // Sixteen registers hold no more.
                _ => {
                    if ROWS == 1 {
                        task.tiles::<ROWS, 4, false>(&mut next);
                    }
                    if ROWS <= 3 {
                        task.tiles::<ROWS, 2, false>(&mut next);
                    }
                    task.tiles::<ROWS, 1, false>(&mut next);
                }
            }
        }
    }
}

impl Task<'_> {
    /// Multiplies and finishes `PANELS` panels at a time from `next` on, while there are as many.
    ///
    /// # Safety
    /// The CPU has AVX2, and AVX-512 if `WIDE`; the left operand has `ROWS` rows; nobody else stores
    /// to these outputs.
    #[inline(always)]
    unsafe fn tiles<const ROWS: usize, const PANELS: usize, const WIDE: bool>(
        &self,
        next: &mut usize,
    ) {
        let (k, n, stride) = (self.b.k(), self.b.n(), self.a.stride);
        assert!(self.a.data.len() >= (ROWS - 1) * stride + k, "rows of A are too short");
        while *next + PANELS <= self.panels.end {
            let mut b = [std::ptr::null(); PANELS];
            for (i, b) in b.iter_mut().enumerate() {
                let panel = self.b.panel(*next + i);
                assert!(panel.len() >= k * NR, "a panel of B is too short");
                *b = panel.as_ptr();
            }
            let a = self.a.data.as_ptr();
            // SAFETY: the caller's promise; rows and panels have `k` elements.
            unsafe {
                let mut sums = [[[0.0; NR]; ROWS]; PANELS];
                match WIDE {
                    true => wide::<ROWS, PANELS>(k, (a, stride), b, &mut sums),
                    false => narrow::<ROWS, PANELS>(k, (a, stride), b, &mut sums),
                }
                for (i, sums) in sums.iter().enumerate() {
                    let col = (*next + i) * NR;
                    let width = NR.min(n - col);
                    let columns = self.finish.columns(col, width);
                    self.finish.rows_avx2(&columns, 0, col, width, sums);
                }
            }
            *next += PANELS;
        }
    }
}

/// Adds the products of rows, `stride` apart, and panels to no sums, in a register for each row and
/// panel.
///
/// # Safety
/// The CPU has AVX-512; rows and panels have `k` elements.
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f"))]
unsafe fn wide<const ROWS: usize, const PANELS: usize>(
    k: usize,
    (a, stride): (*const f32, usize),
    b: [*const f32; PANELS],
    sums: &mut Sums<ROWS, PANELS>,
) {
    let mut acc = [[_mm512_setzero_ps(); ROWS]; PANELS];
    for i in 0..k {
        let mut left = [_mm512_setzero_ps(); ROWS];
        for (r, left) in left.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *left = _mm512_set1_ps(unsafe { *a.add(r * stride + i) });
        }
        for (acc, b) in acc.iter_mut().zip(b) {
            // SAFETY: the caller's promise.
            let b = unsafe { _mm512_loadu_ps(b.add(i * NR)) };
            for (acc, left) in acc.iter_mut().zip(left) {
                *acc = _mm512_fmadd_ps(left, b, *acc);
            }
        }
    }
    for (sums, acc) in sums.as_flattened_mut().iter_mut().zip(acc.as_flattened()) {
        // SAFETY: a row of sums has 16 elements.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *acc) }
    }
}

/// As [`wide`], in two registers.
///
/// # Safety
/// The CPU has AVX2; rows and panels have `k` elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn narrow<const ROWS: usize, const PANELS: usize>(
    k: usize,
    (a, stride): (*const f32, usize),
    b: [*const f32; PANELS],
    sums: &mut Sums<ROWS, PANELS>,
) {
    let mut acc = [[[_mm256_setzero_ps(); 2]; ROWS]; PANELS];
    for i in 0..k {
        for (acc, b) in acc.iter_mut().zip(b) {
            // SAFETY: the caller's promise.
            let b = unsafe { [_mm256_loadu_ps(b.add(i * NR)), _mm256_loadu_ps(b.add(i * NR + 8))] };
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let left = _mm256_set1_ps(unsafe { *a.add(r * stride + i) });
                for (acc, b) in acc.iter_mut().zip(b) {
                    *acc = _mm256_fmadd_ps(left, b, *acc);
                }
            }
        }
    }
    for (sums, acc) in sums.as_flattened_mut().iter_mut().zip(acc.as_flattened()) {
        // SAFETY: a row of sums has 16 elements.
        unsafe {
            _mm256_storeu_ps(sums.as_mut_ptr(), acc[0]);
            _mm256_storeu_ps(sums.as_mut_ptr().add(8), acc[1]);
        }
    }
}
