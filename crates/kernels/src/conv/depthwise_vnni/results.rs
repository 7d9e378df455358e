//! From the sums of a block to its 64 results.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::factors::Factors;
use super::{PARTS, mask};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::gemm::Limits;

/// The results of one output row.
#[derive(Clone, Copy)]
pub(super) struct Results<'a> {
    pub(super) factors: &'a Factors,
    /// The first channel of the first pixel.
    pub(super) out: *mut u8,
    /// Channels of the block.
    pub(super) width: usize,
    /// From one pixel to the next.
    pub(super) stride: usize,
}

impl Results<'_> {
    /// Finishes and stores the sums of the next pixel, of 64 channels if the block is `FULL`.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW, no scaled sum leaves 32 bits, the pixel is writable.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn push<const FULL: bool>(&mut self, sums: [__m512i; PARTS], limits: Limits) {
        // SAFETY: the caller's promise.
        unsafe {
            let results = self.finish(sums, limits);
            match FULL {
                true => _mm512_storeu_si512(self.out.cast(), results),
                false => _mm512_mask_storeu_epi8(self.out.cast(), mask(self.width), results),
            }
        }
        self.out = self.out.wrapping_add(self.stride);
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
