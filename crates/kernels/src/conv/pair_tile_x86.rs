//! Registers for the int8 depthwise convolution: AVX2 (`vpmaddwd`) and AVX-512 (`vpdpwssd`).

use std::arch::x86_64::*;

use super::pair_tile::Lanes;
#[cfg(feature = "avx512-model")]
use crate::avx512_model::{
    __m512i, _mm512_dpwssd_epi32, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_storeu_si512,
};
use crate::cpu::{self, Job};
use crate::gemm::kernel::NR;

/// A row of instructions for [`Lanes`].
macro_rules! lanes {
    ($(#[$doc:meta])* $name:ident: $register:ty, $channels:literal, $zero:ident, $load:ident,
     |$sums:ident, $pairs:ident, $weights:ident| $add:expr, $store:ident, $featured:path) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Lanes for $name {
            type Register = $register;
            const CHANNELS: usize = $channels;
            const AVX2: bool = true;

            #[inline(always)]
            #[allow(unused_unsafe, reason = "the models of AVX-512 are safe")]
            unsafe fn zero() -> $register {
                // SAFETY: the caller's promise.
                unsafe { $zero() }
            }

            #[inline(always)]
            unsafe fn load(pairs: *const i16) -> $register {
                // SAFETY: the caller's promise.
                unsafe { $load(pairs.cast()) }
            }

            #[inline(always)]
            #[allow(unused_unsafe, reason = "the models of AVX-512 are safe")]
            unsafe fn add_products(
                $sums: $register,
                $pairs: $register,
                $weights: $register,
            ) -> $register {
                // SAFETY: the caller's promise.
                unsafe { $add }
            }

            #[inline(always)]
            unsafe fn store(sums: $register, out: *mut i32) {
                // SAFETY: the caller's promise.
                unsafe { $store(out.cast(), sums) }
            }

            #[inline(always)]
            unsafe fn widen(even: &[u8; NR], odd: &[u8; NR], flip: u8, zero: u8, out: *mut i16) {
                // SAFETY: the caller's promise; AVX-512 implies AVX2.
                unsafe { widen(even, odd, flip, zero, out) }
            }

            #[inline(always)]
            unsafe fn featured<J: Job>(job: J) -> J::Output {
                // SAFETY: the caller's promise.
                unsafe { $featured(job) }
            }
        }
    };
}

lanes! {
    /// Eight channels per register.
    Avx2Lanes: __m256i, 8, _mm256_setzero_si256, _mm256_loadu_si256,
    |sums, pairs, weights| _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, weights)),
    _mm256_storeu_si256, cpu::run_avx2
}

lanes! {
    /// Sixteen channels per register.
    Avx512Lanes: __m512i, 16, _mm512_setzero_si512, _mm512_loadu_si512,
    |sums, pairs, weights| _mm512_dpwssd_epi32(sums, pairs, weights),
    _mm512_storeu_si512, cpu::run_avx512
}

/// # Safety
/// As [`Lanes::widen`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn widen(even: &[u8; NR], odd: &[u8; NR], flip: u8, zero: u8, out: *mut i16) {
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
