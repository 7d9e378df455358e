//! Lanes of f32 for convolutions in groups, with AVX2 and AVX-512.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
#[cfg(feature = "avx512-model")]
use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_permutevar8x32_ps, _mm256_setzero_ps,
};

use super::grouped_lanes::{Lanes, OCTET};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::gemm::FloatFinish;

/// One register of AVX2, for lanes of one group, or of several if `SHARED`; so many that `MOST`
/// hold sums.
pub(super) struct Avx2<const SHARED: bool, const MOST: usize>;

/// Two registers of AVX2, for lanes of one group.
pub(super) struct Avx2Wide;

/// One register of AVX-512, for lanes of one group.
pub(super) struct Avx512Wide;

impl<const SHARED: bool, const MOST: usize> Lanes for Avx2<SHARED, MOST> {
    type Register = __m256;
    const LANES: usize = OCTET;
    const MOST: usize = MOST;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn value(from: *const f32, channel: usize, pick: *const [i32; OCTET]) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            if SHARED {
                let pick = _mm256_loadu_si256(pick.cast());
                _mm256_permutevar8x32_ps(_mm256_loadu_ps(from), pick)
            } else {
                _mm256_broadcast_ss(&*from.add(channel))
            }
        }
    }

    #[inline(always)]
    unsafe fn add_product(sums: __m256, values: __m256, weights: __m256) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_fmadd_ps(values, weights, sums) }
    }

    #[inline(always)]
    unsafe fn finish<const P: usize>(
        to: &FloatFinish<'_>,
        row: usize,
        col: usize,
        width: usize,
        sums: [__m256; P],
    ) {
        // SAFETY: the caller's promise.
        unsafe { to.eights(row, col, width, &sums) }
    }
}

impl Lanes for Avx2Wide {
    type Register = [__m256; 2];
    const LANES: usize = 2 * OCTET;
    const MOST: usize = 6;

    #[inline(always)]
    unsafe fn zero() -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_setzero_ps(); 2] }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(OCTET))] }
    }

    #[inline(always)]
    unsafe fn value(from: *const f32, channel: usize, _: *const [i32; OCTET]) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_broadcast_ss(&*from.add(channel)); 2] }
    }

    #[inline(always)]
    unsafe fn add_product(
        sums: [__m256; 2],
        values: [__m256; 2],
        weights: [__m256; 2],
    ) -> [__m256; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            [
                _mm256_fmadd_ps(values[0], weights[0], sums[0]),
                _mm256_fmadd_ps(values[1], weights[1], sums[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn finish<const P: usize>(
        to: &FloatFinish<'_>,
        row: usize,
        col: usize,
        width: usize,
        sums: [[__m256; 2]; P],
    ) {
        // SAFETY: the caller's promise.
        let mut halves = [unsafe { [_mm256_setzero_ps(); P] }; 2];
        for (p, [low, high]) in sums.into_iter().enumerate() {
            (halves[0][p], halves[1][p]) = (low, high);
        }
        // SAFETY: the caller's promise.
        unsafe {
            to.eights(row, col, OCTET, &halves[0]);
            to.eights(row, col + OCTET, width - OCTET, &halves[1]);
        }
    }
}

impl Lanes for Avx512Wide {
    type Register = __m512;
    const LANES: usize = 2 * OCTET;
    const MOST: usize = 14;

    #[inline(always)]
    #[allow(unused_unsafe, reason = "the models of AVX-512 are safe")]
    unsafe fn zero() -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    #[allow(unused_unsafe, reason = "the models of AVX-512 are safe")]
    unsafe fn value(from: *const f32, channel: usize, _: *const [i32; OCTET]) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_ps(*from.add(channel)) }
    }

    #[inline(always)]
    #[allow(unused_unsafe, reason = "the models of AVX-512 are safe")]
    unsafe fn add_product(sums: __m512, values: __m512, weights: __m512) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_fmadd_ps(values, weights, sums) }
    }

    #[inline(always)]
    unsafe fn finish<const P: usize>(
        to: &FloatFinish<'_>,
        row: usize,
        col: usize,
        width: usize,
        sums: [__m512; P],
    ) {
        let mut halves = [[0.0; 2 * OCTET]; P];
        for (half, sums) in halves.iter_mut().zip(sums) {
            // SAFETY: the caller's promise; there is room for sixteen.
            unsafe { _mm512_storeu_ps(half.as_mut_ptr(), sums) }
        }
        for half in [0, 1] {
            // SAFETY: the caller's promise.
            let mut sums = unsafe { [_mm256_setzero_ps(); P] };
            for (sums, halves) in sums.iter_mut().zip(&halves) {
                // SAFETY: the caller's promise; there are sixteen.
                *sums = unsafe { _mm256_loadu_ps(halves[half * OCTET..].as_ptr()) };
            }
            let width = OCTET.min(width - half * OCTET);
            // SAFETY: the caller's promise.
            unsafe { to.eights(row, col + half * OCTET, width, &sums) }
        }
    }
}
