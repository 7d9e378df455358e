//! The plain formats: one scale, perhaps a minimum, and codes of equal steps.

use super::{dword, half};

/// The two elements of byte `j` of 16 bytes of nibbles are elements `j` and `j + 16`.
pub(super) fn nibble(codes: &[u8], element: usize) -> u8 {
    (codes[element % 16] >> (element / 16 * 4)) & 15
}

pub(super) fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = d * (f32::from(nibble(&block[2..], i)) - 8.0);
    }
}

pub(super) fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = d * f32::from(nibble(&block[4..], i)) + m;
    }
}

/// Five bits: a nibble below, bit `element` of a word above.
fn five(high: u32, codes: &[u8], element: usize) -> f32 {
    let high = (high >> element & 1) as u8;
    f32::from(nibble(codes, element) | high << 4)
}

pub(super) fn q5_0(block: &[u8], out: &mut [f32]) {
    let (d, high) = (half(block, 0), dword(block, 2));
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = d * (five(high, &block[6..], i) - 16.0);
    }
}

pub(super) fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m, high) = (half(block, 0), half(block, 2), dword(block, 4));
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = d * five(high, &block[8..], i) + m;
    }
}

pub(super) fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (slot, &code) in out.iter_mut().zip(&block[2..]) {
        *slot = d * f32::from(code.cast_signed());
    }
}

pub(super) fn q1_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (i, slot) in out.iter_mut().enumerate() {
        let positive = block[2 + i / 8] >> (i % 8) & 1 == 1;
        *slot = if positive { d } else { -d };
    }
}

pub(super) fn q2_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (i, slot) in out.iter_mut().enumerate() {
        let code = block[2 + i / 4] >> (i % 4 * 2) & 3;
        *slot = d * (f32::from(code) - 1.0);
    }
}
