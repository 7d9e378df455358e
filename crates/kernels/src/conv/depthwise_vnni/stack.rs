//! Blocks of 64, 32 or 16 channels below each other: 1, 2 or 4 of them fill a register. All of them
//! reach the edges of the image in the same columns.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
#[cfg(feature = "avx512-model")]
use std::arch::x86_64::{
    _mm_loadu_si128, _mm_storeu_si128, _mm256_loadu_si256, _mm256_storeu_si256,
};

#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;

/// A row of the image for each block, or of what lies above or below the image.
#[derive(Clone, Copy)]
pub(super) struct Inputs<const STACK: usize> {
    /// The blocks in the first column of the image.
    pub(super) first: [*const u8; STACK],
}

impl<const STACK: usize> Inputs<STACK> {
    /// The blocks `at` bytes behind the first column.
    ///
    /// # Safety
    /// The CPU has AVX-512, and the blocks are readable.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn load(&self, at: usize) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { load::<STACK>(|i| self.first[i].wrapping_add(at)) }
    }

    /// The same, where all blocks but the last are those of `above` without its first.
    ///
    /// # Safety
    /// As [`Inputs::load`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn load_below(&self, above: __m512i, at: usize) -> __m512i {
        let last = self.first[STACK - 1].wrapping_add(at);
        // SAFETY: the caller's promise.
        unsafe {
            match STACK {
                1 => _mm512_loadu_si512(last.cast()),
                2 => {
                    let last = _mm512_castsi256_si512(_mm256_loadu_si256(last.cast()));
                    _mm512_alignr_epi64::<4>(last, above)
                }
                _ => {
                    let last = _mm512_castsi128_si512(_mm_loadu_si128(last.cast()));
                    _mm512_alignr_epi64::<2>(last, above)
                }
            }
        }
    }
}

/// A register of 1, 2 or 4 blocks that begin at `at(0)`, `at(1)` and so on.
///
/// # Safety
/// The CPU has AVX-512, and the blocks are readable.
#[inline]
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
pub(super) unsafe fn load<const BLOCKS: usize>(at: impl Fn(usize) -> *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        match BLOCKS {
            1 => _mm512_loadu_si512(at(0).cast()),
            2 => {
                let first = _mm512_castsi256_si512(_mm256_loadu_si256(at(0).cast()));
                _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(at(1).cast()))
            }
            _ => {
                let all = _mm512_castsi128_si512(_mm_loadu_si128(at(0).cast()));
                let all = _mm512_inserti32x4::<1>(all, _mm_loadu_si128(at(1).cast()));
                let all = _mm512_inserti32x4::<2>(all, _mm_loadu_si128(at(2).cast()));
                _mm512_inserti32x4::<3>(all, _mm_loadu_si128(at(3).cast()))
            }
        }
    }
}

/// A row of results for each block.
#[derive(Clone, Copy)]
pub(super) struct Outputs<const STACK: usize> {
    /// The results of the first column.
    pub(super) first: [*mut u8; STACK],
}

impl<const STACK: usize> Outputs<STACK> {
    /// Stores results `at` bytes behind the first column.
    ///
    /// # Safety
    /// The CPU has AVX-512, and the blocks are writable.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn store(&self, at: usize, bytes: __m512i) {
        let at = |i: usize| self.first[i].wrapping_add(at);
        // SAFETY: the caller's promise.
        unsafe {
            match STACK {
                1 => _mm512_storeu_si512(at(0).cast(), bytes),
                2 => {
                    _mm256_storeu_si256(at(0).cast(), _mm512_castsi512_si256(bytes));
                    _mm256_storeu_si256(at(1).cast(), _mm512_extracti64x4_epi64::<1>(bytes));
                }
                _ => {
                    _mm_storeu_si128(at(0).cast(), _mm512_castsi512_si128(bytes));
                    _mm_storeu_si128(at(1).cast(), _mm512_extracti32x4_epi32::<1>(bytes));
                    _mm_storeu_si128(at(2).cast(), _mm512_extracti32x4_epi32::<2>(bytes));
                    _mm_storeu_si128(at(3).cast(), _mm512_extracti32x4_epi32::<3>(bytes));
                }
            }
        }
    }
}
