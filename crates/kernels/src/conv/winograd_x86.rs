//! The transforms of minimal filtering for AVX2; see [`super::winograd`].

use std::arch::x86_64::*;

use crate::gemm::kernel::NR;

/// How bytes become numbers: `(byte ^ flip) - zero`.
#[derive(Clone, Copy)]
pub(super) struct Taps {
    /// Turns a byte into its unsigned form.
    pub(super) flip: u8,
    /// Zero point of the unsigned form.
    pub(super) zero: u8,
}

/// `B^T d B` of the 4 x 4 pixels `d`, for each channel; tap `t` goes to `out[t * step..]`.
///
/// # Safety
/// The CPU has AVX2.
///
/// # Panics
/// When the pixels differ in length, that is no multiple of [`NR`], or `out` is too short.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn transform_input(
    taps: Taps,
    pixels: &[&[u8]; 16],
    step: usize,
    out: &mut [i16],
) {
    let channels = pixels[0].len();
    assert!(channels.is_multiple_of(NR) && pixels.iter().all(|p| p.len() == channels));
    assert!(out.len() >= 15 * step + channels, "no room for the taps");
    let flip = _mm_set1_epi8(taps.flip.cast_signed());
    let zero = _mm256_set1_epi16(i16::from(taps.zero));
    for first in (0..channels).step_by(NR) {
        let mut columns = [[_mm256_setzero_si256(); 4]; 4];
        for (x, column) in columns.iter_mut().enumerate() {
            // Loops, not `map`, which is not inlined and would miss the instruction set.
            let mut d = [_mm256_setzero_si256(); 4];
            for (y, d) in d.iter_mut().enumerate() {
                // SAFETY: each pixel has 16 channels from `first` on.
                let bytes =
                    unsafe { _mm_loadu_si128(pixels[4 * y + x].as_ptr().add(first).cast()) };
                let bytes = _mm256_cvtepu8_epi16(_mm_xor_si128(bytes, flip));
                *d = _mm256_sub_epi16(bytes, zero);
            }
            *column = line(d);
        }
        let [a, b, c, d] = columns;
        for (y, ((a, b), (c, d))) in a.into_iter().zip(b).zip(c.into_iter().zip(d)).enumerate() {
            for (x, value) in line([a, b, c, d]).into_iter().enumerate() {
                // SAFETY: there is room for 16 channels of each tap.
                unsafe {
                    let at = out.as_mut_ptr().add((4 * y + x) * step + first);
                    _mm256_storeu_si256(at.cast(), value);
                }
            }
        }
    }
}

/// `B^T` times four values.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn line(d: [__m256i; 4]) -> [__m256i; 4] {
    [
        _mm256_sub_epi16(d[0], d[2]),
        _mm256_add_epi16(d[1], d[2]),
        _mm256_sub_epi16(d[2], d[1]),
        _mm256_sub_epi16(d[1], d[3]),
    ]
}

/// `A^T M A / 4` of the 4 x 4 sums `M`, of which tap `t` is `sums[t * step]`: two results at the
/// front of each line.
///
/// # Safety
/// The CPU has AVX2.
///
/// # Panics
/// When a slice is too short.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn transform_sums(sums: &[[i32; NR]], step: usize, lines: [&mut [[i32; NR]]; 2]) {
    assert!(sums.len() > 15 * step, "sums of a tap are missing");
    assert!(lines.iter().all(|line| line.len() >= 2), "no room for two results");
    for half in [0, NR / 2] {
        let mut columns = [[_mm256_setzero_si256(); 2]; 4];
        for (x, column) in columns.iter_mut().enumerate() {
            let mut m = [_mm256_setzero_si256(); 4];
            for (y, m) in m.iter_mut().enumerate() {
                // SAFETY: all 16 taps are there.
                *m = unsafe {
                    let sums = sums.as_ptr().add((4 * y + x) * step).cast::<i32>();
                    _mm256_loadu_si256(sums.add(half).cast())
                };
            }
            *column = pair(m);
        }
        let [a, b, c, d] = columns;
        for (y, ((a, b), (c, d))) in a.into_iter().zip(b).zip(c.into_iter().zip(d)).enumerate() {
            for (x, value) in pair([a, b, c, d]).into_iter().enumerate() {
                let value = _mm256_srai_epi32::<2>(value);
                // SAFETY: a half has 8 elements.
                unsafe {
                    _mm256_storeu_si256(lines[y][x].as_mut_ptr().add(half).cast(), value);
                }
            }
        }
    }
}

/// `A^T` times four sums.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn pair(m: [__m256i; 4]) -> [__m256i; 2] {
    let (sum, difference) = (_mm256_add_epi32(m[1], m[2]), _mm256_sub_epi32(m[1], m[2]));
    [_mm256_add_epi32(m[0], sum), _mm256_sub_epi32(difference, m[3])]
}
