//! From the sums of a block to its 64 results.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::factors::Factors;
use super::{BLOCK, PARTS};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::gemm::Limits;

/// The results of one output row.
#[derive(Clone, Copy)]
pub(super) struct Results<'a> {
    pub(super) factors: &'a Factors,
    /// The first channel of the first pixel.
    pub(super) out: *mut u8,
    /// From one pixel to the next.
    pub(super) stride: usize,
    /// How many pixels are left.
    pub(super) pixels: usize,
}

impl Results<'_> {
    /// Finishes and stores the sums of the next block, of `PIXELS` pixels.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW, no scaled sum leaves 32 bits, the pixels are writable.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn push<const PIXELS: usize>(
        &mut self,
        sums: [__m512i; PARTS],
        limits: Limits,
    ) {
        // SAFETY: the caller's promise; `bytes` has 64 of them.
        unsafe {
            let results = self.finish(sums, limits);
            if PIXELS == 1 {
                _mm512_storeu_si512(self.out.cast(), results);
            } else {
                let mut bytes = [0u8; BLOCK];
                _mm512_storeu_si512(bytes.as_mut_ptr().cast(), results);
                for i in 0..PIXELS.min(self.pixels) {
                    let (from, width) = (bytes.as_ptr(), BLOCK / PIXELS);
                    let out = self.out.add(i * self.stride);
                    out.copy_from_nonoverlapping(from.add(i * width), width);
                }
            }
        }
        self.out = self.out.wrapping_add(PIXELS * self.stride);
        self.pixels = self.pixels.saturating_sub(PIXELS);
    }

    /// The results of the sums of a block, byte by byte.
    ///
    /// # Safety
    /// As [`Results::push`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn finish(&self, sums: [__m512i; PARTS], limits: Limits) -> __m512i {
        let mut values = sums;
        for (value, multiplier) in values.iter_mut().zip(&self.factors.multiplier) {
            // SAFETY: there are 16 of them.
            let multiplier = unsafe { _mm512_loadu_ps(multiplier.as_ptr()) };
            *value = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(*value), multiplier));
        }
        // SAFETY: the caller's promise.
        unsafe { limits.pack::<false>(values) }
    }
}
