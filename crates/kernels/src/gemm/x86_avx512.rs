//! Microkernels for AVX-512 with VNNI: 16 rows by 16 columns, one register per row; the left
//! operand comes in by broadcasts from memory that ride on the multiplication.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::kernel::{Microkernel, NR, Tile, prefetch, word};
use super::x86_avx512_lines::Dot;
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::cpu::{self, Job, Level};

/// Calls `$f::<ROWS>` for the largest compiled `ROWS` that fit, until all `$rows` are done.
macro_rules! by_rows {
    ($f:ident; $rows:expr, $groups:expr, $a:expr, $lda:expr, $b:expr, $tile:expr) => {{
        let mut done = 0;
        while done < $rows {
            let (a, tile) = ($a.add(done * $lda), &mut $tile[done..]);
            done += match $rows - done {
                16.. => $f::<16>($groups, a, $lda, $b, tile),
                8.. => $f::<8>($groups, a, $lda, $b, tile),
                4.. => $f::<4>($groups, a, $lda, $b, tile),
                2.. => $f::<2>($groups, a, $lda, $b, tile),
                _ => $f::<1>($groups, a, $lda, $b, tile),
            };
        }
    }};
}

/// How far ahead weights are asked for, in bytes: also those of the next panel, which comes right
/// behind. The processor's own prefetching ends at each page.
const AHEAD: usize = 4096;

/// u8 by i8 products by `vpdpbusd`, exact in i32.
pub(crate) struct Avx512U8;

impl Microkernel for Avx512U8 {
    type A = u8;
    type B = i8;
    type Acc = i32;
    const MR: usize = 16;
    const GROUP: usize = 4;
    const A_BYTES: usize = 256 << 10;
    const LEVEL: Level = Level::Avx512;
    const DOT: Option<Dot> = Some(Dot::Bytes);
    const NAME: &'static str = "gemm_u8_i8_i32__avx512vnni_16x16";

    #[inline(always)]
    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const u8,
        lda: usize,
        b: *const i8,
        tile: &mut Tile<i32>,
    ) {
        macro_rules! by_number {
            ($($n:literal)*) => {
                // SAFETY: the caller's promise is that of `tile_u8` and `few_u8`.
                unsafe {
                    match rows {
                        1 => few_u8::<1>(groups, a, lda, b, tile),
                        2 => few_u8::<2>(groups, a, lda, b, tile),
                        $($n => _ = tile_u8::<$n>(groups, a, lda, b, tile),)*
                        _ => (),
                    }
                }
            };
        }
        by_number!(3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's promise.
        unsafe { cpu::run_avx512(job) }
    }
}

/// Returns `ROWS`.
///
/// # Safety
/// As [`Microkernel::tile`], with `ROWS` rows; `tile` has at least as many.
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
unsafe fn tile_u8<const ROWS: usize>(
    groups: usize,
    a: *const u8,
    lda: usize,
    b: *const i8,
    tile: &mut [[i32; NR]],
) -> usize {
    let mut acc = [_mm512_setzero_si512(); ROWS];
    for g in 0..groups {
        // SAFETY: `g` is a group; rows and panel reach `groups`.
        unsafe {
            let b = b.add(g * 4 * NR);
            prefetch(b.wrapping_add(AHEAD));
            let b = _mm512_loadu_si512(b.cast());
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc =
                    _mm512_dpbusd_epi32(*acc, _mm512_set1_epi32(word(a.add(r * lda + 4 * g))), b);
            }
        }
    }
    for (row, acc) in tile.iter_mut().zip(acc) {
        // SAFETY: a row of the tile has 16 elements.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), acc) }
    }
    ROWS
}

/// As [`tile_u8`], for rows so few that they would wait for each sum: those of every fourth group are
/// added up by themselves.
///
/// # Safety
/// As [`tile_u8`].
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
unsafe fn few_u8<const ROWS: usize>(
    groups: usize,
    a: *const u8,
    lda: usize,
    b: *const i8,
    tile: &mut [[i32; NR]],
) {
    const WAYS: usize = 4;
    let mut acc = [[_mm512_setzero_si512(); ROWS]; WAYS];
    let whole = groups / WAYS * WAYS;
    for first in (0..whole).step_by(WAYS) {
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: rows and panel reach `groups`.
            unsafe { add_u8(first + i, a, lda, b, acc) }
        }
    }
    for g in whole..groups {
        // SAFETY: as above.
        unsafe { add_u8(g, a, lda, b, &mut acc[0]) }
    }
    for (r, row) in tile.iter_mut().enumerate().take(ROWS) {
        let pair = |i: usize| _mm512_add_epi32(acc[i][r], acc[i + 1][r]);
        // SAFETY: a row of the tile has 16 elements.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), _mm512_add_epi32(pair(0), pair(2))) }
    }
}

/// Adds the products of group `g` to those of [`few_u8`], which waits for nothing but panels: asking
/// for them would take as long as reading them.
///
/// # Safety
/// As [`tile_u8`], and rows and panel have the group.
#[inline]
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
unsafe fn add_u8<const ROWS: usize>(
    g: usize,
    a: *const u8,
    lda: usize,
    b: *const i8,
    acc: &mut [__m512i; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let b = _mm512_loadu_si512(b.add(g * 4 * NR).cast());
        for (r, acc) in acc.iter_mut().enumerate() {
            let a = _mm512_set1_epi32(word(a.add(r * lda + 4 * g)));
            *acc = _mm512_dpbusd_epi32(*acc, a, b);
        }
    }
}

/// i16 products (8-bit values, widened) by `vpdpwssd`, exact in i32: for weights with zero points.
pub(crate) struct Avx512I16;

impl Microkernel for Avx512I16 {
    type A = i16;
    type B = i16;
    type Acc = i32;
    const MR: usize = 16;
    const GROUP: usize = 2;
    const LEVEL: Level = Level::Avx512;
    const DOT: Option<Dot> = Some(Dot::Pairs);
    const NAME: &'static str = "gemm_i16_i16_i32__avx512vnni_16x16";

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
        unsafe { by_rows!(tile_i16; rows, groups, a, lda, b, tile) }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's promise.
        unsafe { cpu::run_avx512(job) }
    }
}

/// Returns `ROWS`.
///
/// # Safety
/// As [`Microkernel::tile`], with `ROWS` rows; `tile` has at least as many.
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
unsafe fn tile_i16<const ROWS: usize>(
    groups: usize,
    a: *const i16,
    lda: usize,
    b: *const i16,
    tile: &mut [[i32; NR]],
) -> usize {
    let mut acc = [_mm512_setzero_si512(); ROWS];
    for g in 0..groups {
        // SAFETY: `g` is a group; rows and panel reach `groups`.
        unsafe {
            let b = _mm512_loadu_si512(b.add(g * 2 * NR).cast());
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc =
                    _mm512_dpwssd_epi32(*acc, _mm512_set1_epi32(word(a.add(r * lda + 2 * g))), b);
            }
        }
    }
    for (row, acc) in tile.iter_mut().zip(acc) {
        // SAFETY: a row of the tile has 16 elements.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), acc) }
    }
    ROWS
}
