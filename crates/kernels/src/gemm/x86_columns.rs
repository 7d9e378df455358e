//! Columns of f32 weights into panels, with AVX2: squares of eight are transposed in registers.

use std::arch::x86_64::*;

use super::kernel::NR;
use super::pack_f32::{BLOCK, Columns, Raw};

/// Elements of a register.
const LANES: usize = 8;

impl Columns<'_> {
    /// Writes whole blocks of channels of the [`NR`] columns from `first` on to their panel;
    /// returns the channel after them.
    ///
    /// # Panics
    /// When there are fewer columns.
    #[target_feature(enable = "avx2")]
    pub(super) fn blocks(&self, first: usize, panel: &mut [[f32; NR]]) -> usize {
        let (channels, taps) = (self.channels(), self.taps);
        let mut columns: [&[Raw]; NR] = [&[]; NR];
        for (lane, column) in columns.iter_mut().enumerate() {
            *column = self.column(first + lane);
        }
        let scale = self.scale.map(|scale| scales(&scale[first..]));
        let whole = channels / BLOCK * BLOCK;
        for block in (0..whole * taps).step_by(BLOCK) {
            let (mut channel, mut tap) = (block / taps, block % taps);
            for from in [block, block + LANES] {
                for [left, right] in rows(&columns, from, scale) {
                    let row = &mut panel[tap * channels + channel];
                    // SAFETY: the row has 16 elements.
                    unsafe {
                        _mm256_storeu_ps(row.as_mut_ptr(), left);
                        _mm256_storeu_ps(row.as_mut_ptr().add(LANES), right);
                    }
                    tap += 1;
                    if tap == taps {
                        (channel, tap) = (channel + 1, 0);
                    }
                }
            }
        }
        whole
    }
}

/// Writes the elements of columns row by row, as many as make whole squares; returns how many.
///
/// # Panics
/// When a column has fewer elements than there are rows.
#[target_feature(enable = "avx2")]
pub(crate) fn interleave(columns: &[&[f32]; NR], out: &mut [[f32; NR]]) -> usize {
    let columns = columns.map(bytemuck::cast_slice::<f32, Raw>);
    let whole = out.len() / LANES * LANES;
    for from in (0..whole).step_by(LANES) {
        for (row, [left, right]) in out[from..].iter_mut().zip(rows(&columns, from, None)) {
            // SAFETY: the row has 16 elements.
            unsafe {
                _mm256_storeu_ps(row.as_mut_ptr(), left);
                _mm256_storeu_ps(row.as_mut_ptr().add(LANES), right);
            }
        }
    }
    whole
}

/// The elements from `from` on of 16 columns, as eight rows.
#[inline]
#[target_feature(enable = "avx2")]
fn rows(columns: &[&[Raw]; NR], from: usize, scale: Option<[__m256; 2]>) -> [[__m256; 2]; LANES] {
    let mut rows = [[_mm256_setzero_ps(); 2]; LANES];
    for (half, columns) in columns.as_chunks::<LANES>().0.iter().enumerate() {
        let mut square = [_mm256_setzero_ps(); LANES];
        for (line, column) in square.iter_mut().zip(columns) {
            *line = load(&column[from..]);
        }
        for (row, mut values) in rows.iter_mut().zip(turn(square)) {
            if let Some(scale) = scale {
                values = _mm256_mul_ps(values, scale[half]);
            }
            row[half] = values;
        }
    }
    rows
}

/// The first 16 of `values`.
#[inline]
#[target_feature(enable = "avx2")]
fn scales(values: &[f32]) -> [__m256; 2] {
    let values: &[f32; NR] = values.first_chunk().expect("a whole panel");
    // SAFETY: the array has 16 elements.
    unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(LANES))] }
}

/// The first eight of `values`.
#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[Raw]) -> __m256 {
    let values: &[Raw; LANES] = values.first_chunk().expect("a whole block");
    // SAFETY: these are 32 bytes, which may lie at any address.
    unsafe { _mm256_loadu_ps(values.as_ptr().cast()) }
}

/// Transposes a square.
#[inline]
#[target_feature(enable = "avx2")]
fn turn(rows: [__m256; LANES]) -> [__m256; LANES] {
    let [a, b, c, d, e, f, g, h] = rows;
    let [a, b, c, d] = quarter([a, b, c, d]);
    let [e, f, g, h] = quarter([e, f, g, h]);
    [
        _mm256_permute2f128_ps::<0x20>(a, e),
        _mm256_permute2f128_ps::<0x20>(b, f),
        _mm256_permute2f128_ps::<0x20>(c, g),
        _mm256_permute2f128_ps::<0x20>(d, h),
        _mm256_permute2f128_ps::<0x31>(a, e),
        _mm256_permute2f128_ps::<0x31>(b, f),
        _mm256_permute2f128_ps::<0x31>(c, g),
        _mm256_permute2f128_ps::<0x31>(d, h),
    ]
}

/// Transposes the squares of four in both halves of the registers.
#[inline]
#[target_feature(enable = "avx2")]
fn quarter([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
    [
        _mm256_shuffle_ps::<0x44>(ab, cd),
        _mm256_shuffle_ps::<0xee>(ab, cd),
        _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
        _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
    ]
}
