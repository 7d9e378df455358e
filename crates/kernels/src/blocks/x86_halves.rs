//! A few tokens times panels of 16-bit floats, with AVX2.

use std::arch::x86_64::*;

use super::halves::{Half, Sums};
use super::unit::ROWS;

/// The products of `T` tokens with `P` panels of as many times 16 weights as the tokens have
/// numbers: sums run over k in order with fused multiply-add.
///
/// # Safety
/// The CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn products<const T: usize, const P: usize>(
    half: Half,
    x: [&[f32]; T],
    panels: [&[[u8; 2 * ROWS]]; P],
) -> Sums<T, P> {
    let k = x[0].len();
    let (x, panels) = (x.map(|x| &x[..k]), panels.map(|panel| &panel[..k]));
    match half {
        Half::F16 => run::<T, P, true>(x, panels),
        Half::BF16 => run::<T, P, false>(x, panels),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn run<const T: usize, const P: usize, const F16: bool>(
    x: [&[f32]; T],
    panels: [&[[u8; 2 * ROWS]]; P],
) -> Sums<T, P> {
    let mut sums = [[[_mm256_setzero_ps(); 2]; P]; T];
    for k in 0..x[0].len() {
        let mut tokens = [_mm256_setzero_ps(); T];
        for (token, x) in tokens.iter_mut().zip(x) {
            *token = _mm256_set1_ps(x[k]);
        }
        for (p, panel) in panels.iter().enumerate() {
            for h in 0..2 {
                // SAFETY: two halves of 16 bytes.
                let bits = unsafe { _mm_loadu_si128(panel[k].as_ptr().add(16 * h).cast()) };
                let weights = if F16 {
                    _mm256_cvtph_ps(bits)
                } else {
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
                };
                for (sums, token) in sums.iter_mut().zip(tokens) {
                    sums[p][h] = _mm256_fmadd_ps(token, weights, sums[p][h]);
                }
            }
        }
    }
    let mut out = [[[0.0; ROWS]; P]; T];
    for (out, sums) in out.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        // SAFETY: 16 numbers.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), sums[1]);
        }
    }
    out
}
