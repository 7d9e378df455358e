//! The k-quants: 256 elements, sub-blocks with small integer scales, one or two float scales.

use super::half;

/// Two bits of element `i` from 64 bytes: each 32 bytes hold four planes of 32 elements.
fn crumb(codes: &[u8], i: usize) -> u8 {
    codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

/// Four bits of element `i` from 128 bytes: each 32 bytes hold two planes of 32 elements.
fn plane_nibble(codes: &[u8], i: usize) -> u8 {
    codes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

pub(super) fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = block.split_at(16);
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (i, slot) in out.iter_mut().enumerate() {
        let scale = scales[i / 16];
        let step = d * f32::from(scale & 15);
        let min = dmin * f32::from(scale >> 4);
        *slot = step * f32::from(crumb(codes, i)) - min;
    }
}

/// Scale `j` of 16: four bits in the first 8 bytes, two in the last 4, offset by 32.
fn q3_scale(scales: &[u8], j: usize) -> f32 {
    let low = scales[j % 8] >> (j / 8 * 4) & 15;
    let high = scales[8 + j % 4] >> (j / 4 * 2) & 3;
    f32::from(low | high << 4) - 32.0
}

pub(super) fn q3_k(block: &[u8], out: &mut [f32]) {
    let (mask, rest) = block.split_at(32);
    let (codes, scales) = rest.split_at(64);
    let d = half(block, 108);
    for (i, slot) in out.iter_mut().enumerate() {
        let high = mask[i % 32] >> (i / 32) & 1;
        let code = f32::from(crumb(codes, i) | high << 2) - 4.0;
        *slot = d * q3_scale(scales, i / 16) * code;
    }
}

/// Scale and minimum `j` of 8, six bits each, packed into 12 bytes.
fn scale_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => {
            (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
        }
    };
    (f32::from(scale), f32::from(min))
}

/// Elements with scales and minima of 32 each: `d`, `dmin`, 12 bytes of scales.
fn with_minima(block: &[u8], out: &mut [f32], code: impl Fn(usize) -> u8) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (i, slot) in out.iter_mut().enumerate() {
        let (scale, min) = scale_min(&block[4..16], i / 32);
        *slot = d * scale * f32::from(code(i)) - dmin * min;
    }
}

pub(super) fn q4_k(block: &[u8], out: &mut [f32]) {
    with_minima(block, out, |i| plane_nibble(&block[16..], i));
}

pub(super) fn q5_k(block: &[u8], out: &mut [f32]) {
    let (high, low) = block[16..].split_at(32);
    with_minima(block, out, |i| plane_nibble(low, i) | (high[i % 32] >> (i / 32) & 1) << 4);
}

pub(super) fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, scales) = rest.split_at(64);
    let d = half(block, 208);
    for (i, slot) in out.iter_mut().enumerate() {
        // Per 128 elements: 64 bytes whose lower nibbles come first, 32 bytes of upper bits.
        let nibble = low[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
        let code = f32::from(nibble | crumb(high, i) << 4) - 32.0;
        *slot = d * f32::from(scales[i / 16].cast_signed()) * code;
    }
}
