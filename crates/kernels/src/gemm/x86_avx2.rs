//! Microkernels for AVX2 with FMA: 6 rows by 16 columns in 12 registers.

use std::arch::x86_64::*;

use super::kernel::{Microkernel, NR, Tile, word};
use crate::cpu::{self, Job, Level};

/// f32 products with fused multiply-add.
pub(crate) struct Avx2F32;

impl Microkernel for Avx2F32 {
    type A = f32;
    type B = f32;
    type Acc = f32;
    const MR: usize = 6;
    const GROUP: usize = 1;
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
        // SAFETY: the caller's promise is that of `tile_f32`.
        unsafe {
            match rows {
                6 => tile_f32::<6>(groups, a, lda, b, tile),
                5 => tile_f32::<5>(groups, a, lda, b, tile),
                4 => tile_f32::<4>(groups, a, lda, b, tile),
                3 => tile_f32::<3>(groups, a, lda, b, tile),
                2 => tile_f32::<2>(groups, a, lda, b, tile),
                _ => tile_f32::<1>(groups, a, lda, b, tile),
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
unsafe fn tile_f32<const ROWS: usize>(
    groups: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    tile: &mut Tile<f32>,
) {
    let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
    for p in 0..groups {
        // SAFETY: `p` is a k index; rows and panel reach `groups`.
        unsafe {
            let b0 = _mm256_loadu_ps(b.add(p * NR));
            let b1 = _mm256_loadu_ps(b.add(p * NR + 8));
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*a.add(r * lda + p));
                acc[0] = _mm256_fmadd_ps(x, b0, acc[0]);
                acc[1] = _mm256_fmadd_ps(x, b1, acc[1]);
            }
        }
    }
    for (row, acc) in tile.iter_mut().zip(&acc) {
        // SAFETY: a row of the tile has 16 elements.
        unsafe {
            _mm256_storeu_ps(row.as_mut_ptr(), acc[0]);
            _mm256_storeu_ps(row.as_mut_ptr().add(8), acc[1]);
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
