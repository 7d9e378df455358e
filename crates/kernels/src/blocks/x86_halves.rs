//! One token times panels of 16-bit floats, with AVX2.

use std::arch::x86_64::*;

use super::halves::Half;
use super::unit::ROWS;

/// The products of one token with `P` panels, each `x.len()` times 16 weights: sums run over k in
/// order with fused multiply-add.
///
/// # Safety
/// The CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn products<const P: usize>(
    half: Half,
    x: &[f32],
    panels: [&[[u8; 2 * ROWS]]; P],
) -> [[f32; ROWS]; P] {
    let panels = panels.map(|panel| &panel[..x.len()]);
    match half {
        Half::F16 => run::<P, true>(x, panels),
        Half::BF16 => run::<P, false>(x, panels),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn run<const P: usize, const F16: bool>(
    x: &[f32],
    panels: [&[[u8; 2 * ROWS]]; P],
) -> [[f32; ROWS]; P] {
    let mut sums = [[_mm256_setzero_ps(); 2]; P];
    for (k, &x) in x.iter().enumerate() {
        let x = _mm256_set1_ps(x);
        for (sums, panel) in sums.iter_mut().zip(panels) {
            for (h, sum) in sums.iter_mut().enumerate() {
                // SAFETY: two halves of 16 bytes.
                let bits = unsafe { _mm_loadu_si128(panel[k].as_ptr().add(16 * h).cast()) };
                let weights = if F16 {
                    _mm256_cvtph_ps(bits)
                } else {
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
                };
                *sum = _mm256_fmadd_ps(x, weights, *sum);
            }
        }
    }
    let mut out = [[0.0; ROWS]; P];
    for (out, sums) in out.iter_mut().zip(sums) {
        // SAFETY: 16 numbers.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), sums[1]);
        }
    }
    out
}
