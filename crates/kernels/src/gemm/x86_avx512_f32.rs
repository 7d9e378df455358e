//! The f32 microkernel for AVX-512: up to 16 rows by 16 columns, one register per row; the left
//! operand comes in by broadcasts from memory that ride on the multiplication.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
#[cfg(feature = "avx512-model")]
use std::arch::x86_64::{
    __m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps,
};

use super::float::{FloatFinish, Place};
use super::kernel::{Ahead, Factors, FloatKernel, Microkernel, NR, Tile};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::cpu::{self, Job, Level};

/// f32 products with fused multiply-add.
pub(crate) struct Avx512F32;

/// Columns of half a panel.
const HALF: usize = NR / 2;

/// Calls `$f::<ROWS>` for the rows that `$rows` says.
macro_rules! by_rows {
    ($f:ident, $rows:expr, $($args:expr),*) => {
        match $rows {
            16 => $f::<16>($($args),*),
            15 => $f::<15>($($args),*),
            14 => $f::<14>($($args),*),
            13 => $f::<13>($($args),*),
            12 => $f::<12>($($args),*),
            11 => $f::<11>($($args),*),
            10 => $f::<10>($($args),*),
            9 => $f::<9>($($args),*),
            8 => $f::<8>($($args),*),
            7 => $f::<7>($($args),*),
            6 => $f::<6>($($args),*),
            5 => $f::<5>($($args),*),
            4 => $f::<4>($($args),*),
            3 => $f::<3>($($args),*),
            2 => $f::<2>($($args),*),
            _ => $f::<1>($($args),*),
        }
    };
}

impl Microkernel for Avx512F32 {
    type A = f32;
    type B = f32;
    type Acc = f32;
    const MR: usize = 16;
    const GROUP: usize = 1;
    const A_BYTES: usize = 512 << 10;
    const LEVEL: Level = Level::Avx512;
    const NAME: &'static str = "gemm_f32_f32_f32__avx512_16x16";

    #[inline(always)]
    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        tile: &mut Tile<f32>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { Self::part(factors(rows, groups, a, lda, b), true, tile) }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's promise.
        unsafe { cpu::run_avx512(job) }
    }
}

impl FloatKernel for Avx512F32 {
    const PART: usize = 1024;
    const B_BYTES: usize = 256 << 10;

    /// Tiles of equal height: a last one of few rows would wait for each of its sums.
    #[inline(always)]
    fn rows(count: usize) -> usize {
        count.div_ceil(count.div_ceil(Self::MR).max(1)).max(1)
    }

    #[inline(always)]
    unsafe fn more(
        rows: usize,
        groups: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        tile: &mut Tile<f32>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { Self::part(factors(rows, groups, a, lda, b), false, tile) }
    }

    #[inline(always)]
    unsafe fn part(factors: Factors, first: bool, tile: &mut Tile<f32>) {
        // SAFETY: the caller's promise.
        unsafe { by_rows!(part, factors.rows, &factors, first, tile) }
    }

    #[inline(always)]
    unsafe fn last(
        factors: Factors,
        sums: Option<&[[f32; NR]]>,
        (finish, columns): (&FloatFinish<'_>, &[f32; NR]),
        (row, col): (usize, usize),
        width: usize,
    ) {
        let place = finish.place(row, col, width, factors.rows);
        // SAFETY: the caller's promise; `place` checked the output.
        unsafe {
            match width {
                ..=HALF => by_rows!(narrow, factors.rows, &factors, sums, columns, place, width),
                _ => by_rows!(last, factors.rows, &factors, sums, columns, place, width),
            }
        }
    }
}

/// Factors without anything to ask for.
fn factors(rows: usize, groups: usize, a: *const f32, lda: usize, b: *const f32) -> Factors {
    Factors { rows, groups, a, lda, b, ahead: Ahead::nothing(b) }
}

/// # Safety
/// As [`FloatKernel::part`], with `ROWS` rows.
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f"))]
unsafe fn part<const ROWS: usize>(factors: &Factors, first: bool, tile: &mut Tile<f32>) {
    let sums = if first { None } else { Some(tile.as_slice()) };
    // SAFETY: the caller's promise.
    let acc = unsafe { products::<ROWS>(factors, sums) };
    for (row, acc) in tile.iter_mut().zip(acc) {
        // SAFETY: a row of the tile has 16 elements.
        unsafe { _mm512_storeu_ps(row.as_mut_ptr(), acc) }
    }
}

/// # Safety
/// As [`FloatKernel::last`], with `ROWS` rows. Results are writable at the place, and residuals
/// readable.
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f"))]
unsafe fn last<const ROWS: usize>(
    factors: &Factors,
    sums: Option<&[[f32; NR]]>,
    bias: &[f32; NR],
    place: Place,
    width: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let acc = products::<ROWS>(factors, sums);
        match width {
            NR => store::<ROWS, true>(&acc, bias, place, NR),
            _ => store::<ROWS, false>(&acc, bias, place, width),
        }
    }
}

/// As [`last`], for at most [`HALF`] columns: in half a register, products take half the time.
///
/// # Safety
/// As [`last`].
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vl,fma"))]
#[cfg_attr(feature = "avx512-model", target_feature(enable = "avx2,fma"))]
unsafe fn narrow<const ROWS: usize>(
    factors: &Factors,
    sums: Option<&[[f32; NR]]>,
    bias: &[f32; NR],
    place: Place,
    width: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); ROWS];
        for (acc, half) in acc.iter_mut().zip(halves::<ROWS>(factors, sums)) {
            *acc = _mm512_castps256_ps512(half);
        }
        store::<ROWS, false>(&acc, bias, place, width);
    }
}

/// The left halves of the sums of a tile, on from those that there are.
///
/// # Safety
/// The CPU has AVX2, and AVX-512 unless that is modelled; else as [`FloatKernel::part`], with
/// `ROWS` rows.
#[inline(always)]
unsafe fn halves<const ROWS: usize>(
    factors: &Factors,
    sums: Option<&[[f32; NR]]>,
) -> [__m256; ROWS] {
    let &Factors { groups, mut a, lda, mut b, mut ahead, .. } = factors;
    // SAFETY: rows of sums have 16 elements; rows and panel reach `groups`.
    unsafe {
        let mut acc = [_mm256_setzero_ps(); ROWS];
        if let Some(sums) = sums {
            for (acc, row) in acc.iter_mut().zip(&sums[..ROWS]) {
                *acc = _mm256_loadu_ps(row.as_ptr());
            }
        }
        for group in (0..groups / Ahead::EVERY * Ahead::EVERY).step_by(Ahead::EVERY) {
            ahead.next(group);
            for p in 0..Ahead::EVERY {
                half_step(a.add(p), lda, b.add(p * NR), &mut acc);
            }
            (a, b) = (a.wrapping_add(Ahead::EVERY), b.wrapping_add(Ahead::EVERY * NR));
        }
        for p in 0..groups % Ahead::EVERY {
            half_step(a.add(p), lda, b.add(p * NR), &mut acc);
        }
        acc
    }
}

/// One k: a column of A times the left half of a row of the panel.
///
/// # Safety
/// As [`halves`]; `ROWS` elements are readable at `a`, `lda` apart, and eight at `b`.
#[inline(always)]
unsafe fn half_step<const ROWS: usize>(
    a: *const f32,
    lda: usize,
    b: *const f32,
    acc: &mut [__m256; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let b = _mm256_loadu_ps(b);
        for (r, acc) in acc.iter_mut().enumerate() {
            *acc = _mm256_fmadd_ps(_mm256_set1_ps(*a.add(r * lda)), b, *acc);
        }
    }
}

/// The sums of a tile, on from those that there are.
///
/// # Safety
/// The CPU has AVX-512; else as [`FloatKernel::part`], with `ROWS` rows.
#[inline(always)]
unsafe fn products<const ROWS: usize>(
    factors: &Factors,
    sums: Option<&[[f32; NR]]>,
) -> [__m512; ROWS] {
    let &Factors { groups, mut a, lda, mut b, mut ahead, .. } = factors;
    // SAFETY: rows of sums have 16 elements; rows and panel reach `groups`.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); ROWS];
        if let Some(sums) = sums {
            for (acc, row) in acc.iter_mut().zip(&sums[..ROWS]) {
                *acc = _mm512_loadu_ps(row.as_ptr());
            }
        }
        // Several k at a time, so that the addresses of the rows are worked out once for them.
        for group in (0..groups / Ahead::EVERY * Ahead::EVERY).step_by(Ahead::EVERY) {
            ahead.next(group);
            for p in 0..Ahead::EVERY {
                step(a.add(p), lda, b.add(p * NR), &mut acc);
            }
            (a, b) = (a.wrapping_add(Ahead::EVERY), b.wrapping_add(Ahead::EVERY * NR));
        }
        for p in 0..groups % Ahead::EVERY {
            step(a.add(p), lda, b.add(p * NR), &mut acc);
        }
        acc
    }
}

/// One k: a column of A times a row of the panel.
///
/// # Safety
/// The CPU has AVX-512; `ROWS` elements are readable at `a`, `lda` apart, and 16 at `b`.
#[inline(always)]
unsafe fn step<const ROWS: usize>(
    a: *const f32,
    lda: usize,
    b: *const f32,
    acc: &mut [__m512; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let b = _mm512_loadu_ps(b);
        for (r, acc) in acc.iter_mut().enumerate() {
            *acc = _mm512_fmadd_ps(_mm512_set1_ps(*a.add(r * lda)), b, *acc);
        }
    }
}

/// Finishes a tile in registers and stores `width` columns, [`NR`] if `FULL`.
///
/// # Safety
/// As [`last`].
#[inline(always)]
unsafe fn store<const ROWS: usize, const FULL: bool>(
    acc: &[__m512; ROWS],
    bias: &[f32; NR],
    place: Place,
    width: usize,
) {
    let mask = if FULL { u16::MAX } else { !(u16::MAX << width) };
    // SAFETY: the caller's promise; a bias has 16 elements.
    unsafe {
        let bias = _mm512_loadu_ps(bias.as_ptr());
        for (r, &acc) in acc.iter().enumerate() {
            let mut value = _mm512_add_ps(acc, bias);
            if let Some(residual) = place.residual {
                let residual = residual.add(r * place.stride);
                value = _mm512_add_ps(
                    value,
                    match FULL {
                        true => _mm512_loadu_ps(residual),
                        false => _mm512_maskz_loadu_ps(mask, residual),
                    },
                );
            }
            if let Some(clamp) = place.clamp {
                // The second operand is the result where one is NaN or both are zero.
                value = _mm512_max_ps(_mm512_set1_ps(clamp.lo), value);
                value = _mm512_min_ps(_mm512_set1_ps(clamp.hi), value);
            }
            let out = place.out.add(r * place.stride);
            match FULL {
                true => _mm512_storeu_ps(out, value),
                false => _mm512_mask_storeu_ps(out, mask, value),
            }
        }
    }
}
