//! Activations with AVX2: quantized, and laid out for the microkernels, 32 at a time.

use std::arch::x86_64::*;

use super::activations::{ACTIVATION_BLOCK as SPAN, ACTIVATION_BYTES};
use super::inputs::{Fill, Form, Layout, WORDS, tiles};

/// Quantizes blocks, as [`quantize_block`](super::activations) does.
///
/// # Safety
/// The CPU has AVX2 and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn quantize(values: &[[f32; SPAN]], blocks: &mut [[u8; ACTIVATION_BYTES]]) {
    for (values, block) in values.iter().zip(blocks) {
        let x: [__m256; 4] = std::array::from_fn(|i| {
            // SAFETY: four times eight numbers.
            unsafe { _mm256_loadu_ps(values.as_ptr().add(8 * i)) }
        });
        let scale = scale_of(&x);
        let divisor = _mm256_broadcastss_ps(_mm_cvtph_ps(scale));
        let [a, b, c, d] = x.map(|x| code(x, divisor));
        let codes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let codes = _mm256_permutevar8x32_epi32(codes, order);
        let bits = _mm_extract_epi16::<0>(scale) as u16;
        block[..2].copy_from_slice(&bits.to_le_bytes());
        // SAFETY: 32 bytes behind the scale.
        unsafe { _mm256_storeu_si256(block.as_mut_ptr().add(2).cast(), codes) };
    }
}

/// The scale of a block as binary16, in the lowest place. The maximum passes over NaN.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scale_of(x: &[__m256; 4]) -> __m128i {
    let sign = _mm256_set1_ps(-0.0);
    let mut most = _mm256_setzero_ps();
    for x in x {
        most = _mm256_max_ps(_mm256_andnot_ps(sign, *x), most);
    }
    let most = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps::<1>(most));
    let most = _mm_max_ps(most, _mm_movehl_ps(most, most));
    let most = _mm_max_ss(most, _mm_movehdup_ps(most));
    let scale = _mm_div_ss(most, _mm_set_ss(127.0));
    let scale = _mm_min_ss(scale, _mm_set_ss(half::f16::MAX.to_f32()));
    _mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(scale)
}

/// Eight codes; 0 for NaN.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn code(x: __m256, divisor: __m256) -> __m256i {
    let quotient = _mm256_div_ps(x, divisor);
    let number = _mm256_cmp_ps::<_CMP_ORD_Q>(quotient, quotient);
    let limit = _mm256_set1_ps(127.0);
    let lower = _mm256_max_ps(_mm256_and_ps(quotient, number), _mm256_set1_ps(-127.0));
    // Rounds half to even; limits are integers, so they may come first.
    _mm256_cvtps_epi32(_mm256_min_ps(lower, limit))
}

/// Lays tiles out, as [`Fill::plain`] does.
///
/// # Safety
/// The CPU has AVX2 and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn fill(mut fill: Fill<'_>) {
    let row = fill.blocks * ACTIVATION_BYTES;
    for tile in tiles(0..fill.bytes.len() / row, fill.layout.most) {
        let bytes = &fill.bytes[tile.start * row..tile.end * row];
        match tile.len() {
            8 => fill_tile::<8>(&mut fill, tile.start, bytes),
            4 => fill_tile::<4>(&mut fill, tile.start, bytes),
            2 => fill_tile::<2>(&mut fill, tile.start, bytes),
            _ => fill_tile::<1>(&mut fill, tile.start, bytes),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fill_tile<const T: usize>(fill: &mut Fill<'_>, token: usize, bytes: &[u8]) {
    let Layout { form, .. } = fill.layout;
    let (blocks, n) = (fill.blocks, form.sums());
    let first = token * blocks;
    let codes = &mut fill.codes[first * WORDS..][..T * blocks * WORDS];
    let scales = &mut fill.scales[first..][..T * blocks];
    let sums = &mut fill.sums[first * n..][..T * blocks * n];
    let (of_blocks, _) = bytes.as_chunks::<ACTIVATION_BYTES>();
    assert_eq!(of_blocks.len(), T * blocks);
    for b in 0..blocks {
        let mut x = [_mm256_setzero_si256(); T];
        for t in 0..T {
            let block = &of_blocks[t * blocks + b];
            // SAFETY: 32 bytes behind the scale.
            x[t] = unsafe { _mm256_loadu_si256(block.as_ptr().add(2).cast()) };
            let bits = i32::from(u16::from_le_bytes([block[0], block[1]]));
            let scale = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
            scales[b * T + t] = scale;
            match form {
                Form::Quads => {
                    let [low, high] = half_sums(x[t]);
                    sums[b * T + t] = (scale * (low + high) as f32).to_bits();
                }
                Form::Offset { times, chain: WORDS } => {
                    let [low, high] = lane_sums(x[t], times);
                    let both = _mm_cvtsi128_si32(_mm_add_epi16(low, high));
                    sums[b * T + t] = both.cast_unsigned();
                }
                Form::Offset { times, .. } => {
                    for (i, sum) in lane_sums(x[t], times).into_iter().enumerate() {
                        sums[(2 * b + i) * T + t] = _mm_cvtsi128_si32(sum).cast_unsigned();
                    }
                }
                Form::Halves => {
                    let [low, high] = half_sums(x[t]);
                    sums[b * T + t] = (low as u32 & 0xffff) | (high as u32) << 16;
                }
                Form::Starts { times, halves: false } => {
                    let [low, high] = half_sums(x[t]);
                    sums[b * T + t] = (times * (low + high)).cast_unsigned();
                }
                Form::Starts { times, .. } => {
                    for (i, sum) in half_sums(x[t]).into_iter().enumerate() {
                        sums[(2 * b + i) * T + t] = (times * sum).cast_unsigned();
                    }
                }
                Form::Signed => {}
            }
        }
        store(interleaved(x), &mut codes[b * WORDS * T..][..WORDS * T]);
    }
}

/// So many times the sums over four fours, of the first two codes of each and of the last two, in
/// the lowest places; for the first 16 codes and for the last.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn lane_sums(x: __m256i, times: i16) -> [__m128i; 2] {
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), x);
    let pairs = _mm256_mullo_epi16(pairs, _mm256_set1_epi16(times));
    let twos = _mm256_add_epi16(pairs, _mm256_shuffle_epi32::<0b1110>(pairs));
    let sums = _mm256_add_epi16(twos, _mm256_shuffle_epi32::<1>(twos));
    [_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums)]
}

/// The sums of the first and of the last 16 codes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn half_sums(x: __m256i) -> [i32; 2] {
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), x);
    let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let sums = _mm256_hadd_epi32(fours, fours);
    let sums = _mm256_hadd_epi32(sums, sums);
    let high = _mm256_extracti128_si256::<1>(sums);
    [_mm_cvtsi128_si32(_mm256_castsi256_si128(sums)), _mm_cvtsi128_si32(high)]
}

/// Words of `T` tokens, word by word.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn interleaved<const T: usize>(x: [__m256i; T]) -> [__m256i; T] {
    let mut out = x;
    match T {
        2 => {
            let (low, high) =
                (_mm256_unpacklo_epi32(x[0], x[1]), _mm256_unpackhi_epi32(x[0], x[1]));
            out[0] = _mm256_permute2x128_si256::<0x20>(low, high);
            out[1] = _mm256_permute2x128_si256::<0x31>(low, high);
        }
        4 => {
            let words = fours(&x);
            for i in 0..2 {
                let (a, b) = (words[2 * i], words[2 * i + 1]);
                out[i] = _mm256_permute2x128_si256::<0x20>(a, b);
                out[i + 2] = _mm256_permute2x128_si256::<0x31>(a, b);
            }
        }
        8 => {
            let (low, high) = (fours(&x[..4]), fours(&x[4..]));
            for i in 0..4 {
                out[i] = _mm256_permute2x128_si256::<0x20>(low[i], high[i]);
                out[i + 4] = _mm256_permute2x128_si256::<0x31>(low[i], high[i]);
            }
        }
        _ => {}
    }
    out
}

/// Words of four tokens: word `i` in the lower half of vector `i`, word `i + 4` in the upper one.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fours(x: &[__m256i]) -> [__m256i; 4] {
    let (ab, ab_high) = (_mm256_unpacklo_epi32(x[0], x[1]), _mm256_unpackhi_epi32(x[0], x[1]));
    let (cd, cd_high) = (_mm256_unpacklo_epi32(x[2], x[3]), _mm256_unpackhi_epi32(x[2], x[3]));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store<const T: usize>(x: [__m256i; T], codes: &mut [u32]) {
    for (x, codes) in x.iter().zip(codes.as_chunks_mut::<8>().0) {
        // SAFETY: eight words.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), *x) };
    }
}
