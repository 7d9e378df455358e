//! Formats of 1 to 3 bits: entries of a codebook, signs beside them, scales of 16 or 32 elements.

use super::codebook::{IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use super::{dword, half, word};

/// What is added to the entries of `IQ1_S` and `IQ1_M`.
const DELTA: f32 = 0.125;

/// `scale * value`, negative where the bit of the element is set.
fn signed(out: &mut [f32], scale: f32, entry: impl Iterator<Item = i8>, signs: u8) {
    for (j, (slot, value)) in out.iter_mut().zip(entry).enumerate() {
        let magnitude = scale * f32::from(value);
        *slot = if signs >> j & 1 == 1 { -magnitude } else { magnitude };
    }
}

/// Eight signs from seven bits: their number is even.
fn even_signs(bits: u32) -> u8 {
    let low = (bits & 127) as u8;
    low | ((low.count_ones() as u8 & 1) << 7)
}

pub(super) fn iq2_xxs(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let entries = &block[2 + 8 * j..][..4];
        let rest = dword(block, 6 + 8 * j);
        let scale = d * (0.5 + (rest >> 28) as f32) * 0.25;
        for (l, out) in out.chunks_exact_mut(8).enumerate() {
            signed(out, scale, IQ2_XXS.at(entries[l].into()), even_signs(rest >> (7 * l)));
        }
    }
}

/// The scale of 16 elements from four bits; two to a byte.
fn nibble_scale(d: f32, scales: &[u8], sixteen: usize) -> f32 {
    let code = scales[sixteen / 2] >> (sixteen % 2 * 4) & 15;
    d * (0.5 + f32::from(code)) * 0.25
}

pub(super) fn iq2_xs(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (l, out) in out.chunks_exact_mut(8).enumerate() {
        let code = word(block, 2 + 2 * l);
        let scale = nibble_scale(d, &block[66..], l / 2);
        signed(out, scale, IQ2_XS.at(code & 511), even_signs(u32::from(code >> 9)));
    }
}

pub(super) fn iq2_s(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (l, out) in out.chunks_exact_mut(8).enumerate() {
        let high = u16::from(block[66 + l / 4] >> (l % 4 * 2) & 3);
        let entry = IQ2_S.at(u16::from(block[2 + l]) | high << 8);
        signed(out, nibble_scale(d, &block[74..], l / 2), entry, block[34 + l]);
    }
}

pub(super) fn iq3_xxs(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (l, out) in out.chunks_exact_mut(8).enumerate() {
        let rest = dword(block, 66 + l / 4 * 4);
        let scale = d * (0.5 + (rest >> 28) as f32) * 0.5;
        let signs = even_signs(rest >> (7 * (l % 4)));
        let (first, second) = out.split_at_mut(4);
        signed(first, scale, IQ3_XXS.at(block[2 + 2 * l].into()), signs);
        signed(second, scale, IQ3_XXS.at(block[3 + 2 * l].into()), signs >> 4);
    }
}

pub(super) fn iq3_s(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (q, out) in out.chunks_exact_mut(4).enumerate() {
        let code = block[106 + q / 16] >> (q / 8 % 2 * 4) & 15;
        let scale = d * f32::from(1 + 2 * code);
        let high = u16::from(block[66 + q / 8] >> (q % 8) & 1);
        let entry = IQ3_S.at(u16::from(block[2 + q]) | high << 8);
        signed(out, scale, entry, block[74 + q / 2] >> (q % 2 * 4));
    }
}

/// An entry of -1, 0, 1, moved by [`DELTA`] up or down.
fn shifted(out: &mut [f32], scale: f32, index: u16, down: bool) {
    let delta = if down { -DELTA } else { DELTA };
    for (slot, value) in out.iter_mut().zip(IQ1.at(index)) {
        *slot = scale * (f32::from(value) + delta);
    }
}

pub(super) fn iq1_s(block: &[u8], out: &mut [f32]) {
    let d = half(block, 0);
    for (l, out) in out.chunks_exact_mut(8).enumerate() {
        let high = word(block, 34 + l / 4 * 2);
        let scale = d * f32::from(2 * (high >> 12 & 7) + 1);
        let index = u16::from(block[2 + l]) | (high >> (l % 4 * 3) & 7) << 8;
        shifted(out, scale, index, high >> 15 == 1);
    }
}

pub(super) fn iq1_m(block: &[u8], out: &mut [f32]) {
    let scales: [u16; 4] = std::array::from_fn(|i| word(block, 48 + 2 * i));
    // The upper nibbles of the four words are the float scale.
    let bits = scales.iter().enumerate().fold(0, |bits, (i, s)| bits | s >> 12 << (4 * i));
    let d = half::f16::from_bits(bits).to_f32();
    for (l, out) in out.chunks_exact_mut(8).enumerate() {
        let code = scales[l / 8] >> (l / 2 % 4 * 3) & 7;
        let high = u16::from(block[32 + l / 2] >> (l % 2 * 4) & 15);
        let index = u16::from(block[l]) | (high & 7) << 8;
        shifted(out, d * f32::from(2 * code + 1), index, high & 8 != 0);
    }
}
