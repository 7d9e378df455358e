//! A few tokens times panels of 16-bit floats, with AVX-512: as many panels together as have room
//! for their sums in registers, so that none waits for its last product.

#[cfg(feature = "avx512-model")]
use std::arch::x86_64::_mm256_loadu_si256;
#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::halves::{Half, Sums};
use super::unit::ROWS;
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;

/// The products of `T` tokens with `P` panels of as many times 16 weights as the tokens have
/// numbers: sums run over k in order with fused multiply-add.
///
/// # Safety
/// The CPU has AVX-512.
///
/// # Panics
/// When a token or a panel is shorter than the first token.
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f"))]
#[cfg_attr(feature = "avx512-model", target_feature(enable = "avx2,f16c"))]
pub(super) unsafe fn products<const T: usize, const P: usize>(
    half: Half,
    x: [&[f32]; T],
    panels: [&[[u8; 2 * ROWS]]; P],
) -> Sums<T, P> {
    let k = x[0].len();
    let x = x.map(|x| x[..k].as_ptr());
    let panels = panels.map(|panel| panel[..k].as_ptr());
    // SAFETY: the caller's promise; there are `k` of all.
    unsafe {
        match half {
            Half::F16 => run::<T, P, true>(k, x, panels),
            Half::BF16 => run::<T, P, false>(k, x, panels),
        }
    }
}

/// # Safety
/// The CPU has AVX-512; `k` numbers are readable at each place.
#[inline(always)]
unsafe fn run<const T: usize, const P: usize, const F16: bool>(
    k: usize,
    x: [*const f32; T],
    panels: [*const [u8; 2 * ROWS]; P],
) -> Sums<T, P> {
    // SAFETY: the caller's promise; a row of sums has 16 numbers.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); P]; T];
        for k in 0..k {
            let mut weights = [_mm512_setzero_ps(); P];
            for (weights, panel) in weights.iter_mut().zip(panels) {
                *weights = numbers::<F16>(panel.add(k));
            }
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = _mm512_set1_ps(*x.add(k));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_fmadd_ps(x, weights, *sum);
                }
            }
        }
        let mut out = [[[0.0; ROWS]; P]; T];
        for (out, sums) in out.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            _mm512_storeu_ps(out.as_mut_ptr(), *sums);
        }
        out
    }
}

/// Sixteen weights.
///
/// # Safety
/// The CPU has AVX-512; they are readable.
#[inline(always)]
unsafe fn numbers<const F16: bool>(bytes: *const [u8; 2 * ROWS]) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = _mm256_loadu_si256(bytes.cast());
        match F16 {
            true => _mm512_cvtph_ps(bits),
            false => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))),
        }
    }
}
