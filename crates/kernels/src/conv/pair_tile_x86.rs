//! The innermost loop of the int8 depthwise convolution for AVX2 (`vpmaddwd`) and AVX-512
//! (`vpdpwssd`).

use std::arch::x86_64::*;

use super::pair_tile::{PairTile, Step};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::{
    _mm512_dpwssd_epi32, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_storeu_si512,
};
use crate::cpu::{self, Job};
use crate::gemm::kernel::NR;

/// Eight channels per register.
pub(super) struct Avx2Pairs;

impl PairTile for Avx2Pairs {
    const AVX2: bool = true;

    #[inline(always)]
    unsafe fn tile<const N: usize>(
        ring: *const i16,
        rows: &[usize],
        step: Step,
        weights: *const i16,
        sums: &mut [[i32; NR]; N],
    ) {
        // SAFETY: the caller's promise.
        unsafe { tile_avx2::<N>(ring, rows, step, weights, sums) }
    }

    #[inline(always)]
    unsafe fn widen(even: &[u8; NR], odd: &[u8; NR], flip: u8, zero: u8, out: *mut i16) {
        // SAFETY: the caller's promise.
        unsafe { widen_avx2(even, odd, flip, zero, out) }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's promise.
        unsafe { cpu::run_avx2(job) }
    }
}

/// # Safety
/// As [`PairTile::tile`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2<const N: usize>(
    ring: *const i16,
    rows: &[usize],
    step: Step,
    weights: *const i16,
    sums: &mut [[i32; NR]; N],
) {
    let mut acc = [[_mm256_setzero_si256(); 2]; N];
    let mut group = weights;
    for row in rows {
        for tap in 0..step.taps {
            // SAFETY: the caller's promise: a group of weights per row and tap, and 32 elements
            // of the ring for each pixel.
            unsafe {
                let weights_low = _mm256_loadu_si256(group.cast());
                let weights_high = _mm256_loadu_si256(group.add(16).cast());
                group = group.add(2 * NR);
                let first = ring.add(row + tap * step.tap);
                for (n, acc) in acc.iter_mut().enumerate() {
                    let values = first.add(n * step.pixel);
                    let low = _mm256_loadu_si256(values.cast());
                    let high = _mm256_loadu_si256(values.add(16).cast());
                    acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(low, weights_low));
                    acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(high, weights_high));
                }
            }
        }
    }
    for (sums, acc) in sums.iter_mut().zip(&acc) {
        // SAFETY: `sums` has 16 elements.
        unsafe {
            _mm256_storeu_si256(sums.as_mut_ptr().cast(), acc[0]);
            _mm256_storeu_si256(sums.as_mut_ptr().add(8).cast(), acc[1]);
        }
    }
}

/// # Safety
/// As [`PairTile::widen`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn widen_avx2(even: &[u8; NR], odd: &[u8; NR], flip: u8, zero: u8, out: *mut i16) {
    // SAFETY: 16 elements are readable in each row, and 32 writable by the caller's promise.
    unsafe {
        let flip = _mm_set1_epi8(flip.cast_signed());
        let zero = _mm256_set1_epi16(i16::from(zero));
        let even = _mm_xor_si128(_mm_loadu_si128(even.as_ptr().cast()), flip);
        let odd = _mm_xor_si128(_mm_loadu_si128(odd.as_ptr().cast()), flip);
        let low = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(even, odd));
        let high = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(even, odd));
        _mm256_storeu_si256(out.cast(), _mm256_sub_epi16(low, zero));
        _mm256_storeu_si256(out.add(16).cast(), _mm256_sub_epi16(high, zero));
    }
}

/// Sixteen channels per register.
pub(super) struct Avx512Pairs;

impl PairTile for Avx512Pairs {
    const AVX2: bool = true;

    #[inline(always)]
    unsafe fn tile<const N: usize>(
        ring: *const i16,
        rows: &[usize],
        step: Step,
        weights: *const i16,
        sums: &mut [[i32; NR]; N],
    ) {
        // SAFETY: the caller's promise.
        unsafe { tile_avx512::<N>(ring, rows, step, weights, sums) }
    }

    #[inline(always)]
    unsafe fn widen(even: &[u8; NR], odd: &[u8; NR], flip: u8, zero: u8, out: *mut i16) {
        // SAFETY: the caller's promise; AVX-512 implies AVX2.
        unsafe { widen_avx2(even, odd, flip, zero, out) }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's promise.
        unsafe { cpu::run_avx512(job) }
    }
}

/// # Safety
/// As [`PairTile::tile`].
#[inline]
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
unsafe fn tile_avx512<const N: usize>(
    ring: *const i16,
    rows: &[usize],
    step: Step,
    weights: *const i16,
    sums: &mut [[i32; NR]; N],
) {
    let mut acc = [_mm512_setzero_si512(); N];
    let mut group = weights;
    for row in rows {
        for tap in 0..step.taps {
            // SAFETY: the caller's promise: a group of weights per row and tap, and 32 elements
            // of the ring for each pixel.
            unsafe {
                let weights = _mm512_loadu_si512(group.cast());
                group = group.add(2 * NR);
                let first = ring.add(row + tap * step.tap);
                for (n, acc) in acc.iter_mut().enumerate() {
                    let values = _mm512_loadu_si512(first.add(n * step.pixel).cast());
                    *acc = _mm512_dpwssd_epi32(*acc, values, weights);
                }
            }
        }
    }
    for (sums, acc) in sums.iter_mut().zip(acc) {
        // SAFETY: `sums` has 16 elements.
        unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), acc) }
    }
}
