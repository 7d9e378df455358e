//! Four bits that choose from 16 fixed values.

use super::legacy::nibble;
use super::{half, word};

/// The values of `IQ4_NL` and `IQ4_XS`.
pub const IQ4_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The values of FP4 E2M1, doubled.
pub const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of an E8M0 scale, `2^(code - 128)`: [`MXFP4_VALUES`] are doubled.
pub fn half_e8m0(code: u8) -> f32 {
    f32::from_bits(match code {
        0 | 1 => 0x0020_0000 << code,
        _ => u32::from(code - 1) << 23,
    })
}

/// Half of an E4M3 scale without sign; the NaN code counts as 0.
pub fn half_ue4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    match (code, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa * 2f32.powi(-10),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 8),
    }
}

fn lookup(values: &[i8; 16], codes: &[u8], element: usize) -> f32 {
    f32::from(values[usize::from(nibble(codes, element))])
}

pub(super) fn iq4_nl(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = d * lookup(&IQ4_VALUES, &block[2..], i);
    }
}

/// The scale of sub-block `j` of 8: four bits, two more in a word, offset by 32.
fn xs_scale(block: &[u8], j: usize) -> f32 {
    let low = block[4 + j / 2] >> (j % 2 * 4) & 15;
    let high = (word(block, 2) >> (2 * j) & 3) as u8;
    f32::from(low | high << 4) - 32.0
}

pub(super) fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (j, (slots, codes)) in out.chunks_exact_mut(32).zip(block[8..].chunks(16)).enumerate() {
        let scale = d * xs_scale(block, j);
        for (i, slot) in slots.iter_mut().enumerate() {
            *slot = scale * lookup(&IQ4_VALUES, codes, i);
        }
    }
}

pub(super) fn mxfp4(block: &[u8], out: &mut [f32]) {
    let d = half_e8m0(block[0]);
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = d * lookup(&MXFP4_VALUES, &block[1..], i);
    }
}

/// Four sub-blocks of 16; byte `j` of a sub-block holds its elements `j` and `j + 8`.
pub(super) fn nvfp4(block: &[u8], out: &mut [f32]) {
    for (i, slot) in out.iter_mut().enumerate() {
        let code = block[4 + i / 16 * 8 + i % 8] >> (i % 16 / 8 * 4) & 15;
        *slot = half_ue4m3(block[i / 16]) * f32::from(MXFP4_VALUES[usize::from(code)]);
    }
}
