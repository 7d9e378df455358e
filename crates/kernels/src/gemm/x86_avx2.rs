//! Microkernels for AVX2 with FMA: 6 rows by 16 columns in 12 registers.

use std::arch::x86_64::*;

use super::driver::Finish;
use super::float::FloatFinish;
use super::kernel::{Factors, FloatKernel, MAX_MR, Microkernel, NR, Tile, word};
use crate::cpu::{self, Job, Level};

/// f32 products with fused multiply-add.
pub(crate) struct Avx2F32;

impl Microkernel for Avx2F32 {
    type A = f32;
    type B = f32;
    type Acc = f32;
    const MR: usize = 6;
    const GROUP: usize = 1;
    const A_BYTES: usize = 256 << 10;
    const LEVEL: Level = Level::Avx2;
    const NAME: &'static str = "gemm_f32_f32_f32__avx2_6x16";

    #[inline(always)]
    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        tile: &mut Tile<f32>,
    ) {
        // SAFETY: the caller's promise is that of `rows_f32`.
        unsafe { rows_f32::<true>(rows, groups, a, lda, b, tile) }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's promise.
        unsafe { cpu::run_avx2(job) }
    }
}

impl FloatKernel for Avx2F32 {
    const PART: usize = 320;

    #[inline(always)]
    unsafe fn more(
        rows: usize,
        groups: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        tile: &mut Tile<f32>,
    ) {
        // SAFETY: the caller's promise is that of `rows_f32`.
        unsafe { rows_f32::<false>(rows, groups, a, lda, b, tile) }
    }

    #[inline(always)]
    unsafe fn whole(
        factors: Factors,
        (finish, columns): (&FloatFinish<'_>, &[f32; NR]),
        (row, col): (usize, usize),
    ) {
        let Factors { rows, groups, a, lda, b, .. } = factors;
        // SAFETY: the caller's promise.
        unsafe {
            match rows {
                6 => {
                    let sums = products_f32::<6>(groups, a, lda, b);
                    finish.registers(columns, row, col, &sums);
                }
                rows => {
                    let mut tile = [[0.0; NR]; MAX_MR];
                    Self::tile(rows, groups, a, lda, b, &mut tile);
                    finish.rows_avx2(columns, row, col, NR, &tile[..rows]);
                }
            }
        }
    }
}

/// # Safety
/// As [`Microkernel::tile`], or as [`FloatKernel::more`] unless `FRESH`.
#[inline(always)]
unsafe fn rows_f32<const FRESH: bool>(
    rows: usize,
    groups: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    tile: &mut Tile<f32>,
) {
    // SAFETY: the caller's promise is that of `tile_f32`.
    unsafe {
        match rows {
            6 => tile_f32::<6, FRESH>(groups, a, lda, b, tile),
            5 => tile_f32::<5, FRESH>(groups, a, lda, b, tile),
            4 => tile_f32::<4, FRESH>(groups, a, lda, b, tile),
            3 => tile_f32::<3, FRESH>(groups, a, lda, b, tile),
            2 => tile_f32::<2, FRESH>(groups, a, lda, b, tile),
            _ => tile_f32::<1, FRESH>(groups, a, lda, b, tile),
        }
    }
}

/// # Safety
/// As [`rows_f32`], with `ROWS` rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_f32<const ROWS: usize, const FRESH: bool>(
    groups: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    tile: &mut Tile<f32>,
) {
    let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
    if !FRESH {
        for (row, acc) in tile.iter().zip(&mut acc) {
            // SAFETY: a row of the tile has 16 elements.
            unsafe {
                acc[0] = _mm256_loadu_ps(row.as_ptr());
                acc[1] = _mm256_loadu_ps(row.as_ptr().add(8));
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { add_f32(groups, a, lda, b, &mut acc) }
    for (row, acc) in tile.iter_mut().zip(&acc) {
        // SAFETY: a row of the tile has 16 elements.
        unsafe {
            _mm256_storeu_ps(row.as_mut_ptr(), acc[0]);
            _mm256_storeu_ps(row.as_mut_ptr().add(8), acc[1]);
        }
    }
}

/// The sums of a whole tile.
///
/// # Safety
/// The CPU has AVX2; else as [`rows_f32`], with `ROWS` rows.
#[inline(always)]
unsafe fn products_f32<const ROWS: usize>(
    groups: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
) -> [[__m256; 2]; ROWS] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
        add_f32(groups, a, lda, b, &mut acc);
        acc
    }
}

/// Adds products to the sums of a tile.
///
/// # Safety
/// The CPU has AVX2; else as [`rows_f32`], with `ROWS` rows.
#[inline(always)]
unsafe fn add_f32<const ROWS: usize>(
    groups: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    sums: &mut [[__m256; 2]; ROWS],
) {
    let (mut acc, mut a, mut b) = (*sums, a, b);
    // Four k at a time, so that the addresses of the rows are worked out once for them.
    for _ in 0..groups / 4 {
        // SAFETY: rows and panel reach `groups`.
        unsafe {
            for p in 0..4 {
                step_f32(a.add(p), lda, b.add(p * NR), &mut acc);
            }
        }
        (a, b) = (a.wrapping_add(4), b.wrapping_add(4 * NR));
    }
    for p in 0..groups % 4 {
        // SAFETY: as above.
        unsafe { step_f32(a.add(p), lda, b.add(p * NR), &mut acc) }
    }
    *sums = acc;
}

/// One k: a column of A times a row of the panel.
///
/// # Safety
/// The CPU has AVX2; `ROWS` elements are readable at `a`, `lda` apart, and 16 at `b`.
#[inline(always)]
unsafe fn step_f32<const ROWS: usize>(
    a: *const f32,
    lda: usize,
    b: *const f32,
    acc: &mut [[__m256; 2]; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
        for (r, acc) in acc.iter_mut().enumerate() {
            let x = _mm256_set1_ps(*a.add(r * lda));
            acc[0] = _mm256_fmadd_ps(x, b0, acc[0]);
            acc[1] = _mm256_fmadd_ps(x, b1, acc[1]);
        }
    }
}

/// i16 products (8-bit values, widened) by `vpmaddwd`, exact in i32.
pub(crate) struct Avx2I16;

impl Microkernel for Avx2I16 {
    type A = i16;
    type B = i16;
    type Acc = i32;
    const MR: usize = 6;
    const GROUP: usize = 2;
    const LEVEL: Level = Level::Avx2;
    const NAME: &'static str = "gemm_i16_i16_i32__avx2_6x16";

    #[inline(always)]
    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const i16,
        lda: usize,
        b: *const i16,
        tile: &mut Tile<i32>,
    ) {
        // SAFETY: the caller's promise is that of `tile_i16`.
        unsafe {
            match rows {
                6 => tile_i16::<6>(groups, a, lda, b, tile),
                5 => tile_i16::<5>(groups, a, lda, b, tile),
                4 => tile_i16::<4>(groups, a, lda, b, tile),
                3 => tile_i16::<3>(groups, a, lda, b, tile),
                2 => tile_i16::<2>(groups, a, lda, b, tile),
                _ => tile_i16::<1>(groups, a, lda, b, tile),
            }
        }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's promise.
        unsafe { cpu::run_avx2(job) }
    }
}

/// # Safety
/// As [`Microkernel::tile`], with `ROWS` rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_i16<const ROWS: usize>(
    groups: usize,
    a: *const i16,
    lda: usize,
    b: *const i16,
    tile: &mut Tile<i32>,
) {
    let mut acc = [[_mm256_setzero_si256(); 2]; ROWS];
    for g in 0..groups {
        // SAFETY: `g` is a group; rows and panel reach `groups`.
        unsafe {
            let b0 = _mm256_loadu_si256(b.add(g * 2 * NR).cast());
            let b1 = _mm256_loadu_si256(b.add(g * 2 * NR + 16).cast());
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_epi32(word(a.add(r * lda + 2 * g)));
                acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(x, b0));
                acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(x, b1));
            }
        }
    }
    for (row, acc) in tile.iter_mut().zip(&acc) {
        // SAFETY: a row of the tile has 16 elements.
        unsafe {
            _mm256_storeu_si256(row.as_mut_ptr().cast(), acc[0]);
            _mm256_storeu_si256(row.as_mut_ptr().add(8).cast(), acc[1]);
        }
    }
}
