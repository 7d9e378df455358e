//! Ternary weights: -1, 0, 1, and one scale.

use super::half;

/// Powers of three that move digit `n` of a byte to its top.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Digit `n` (base 3) of a byte that holds five of them as a fraction of 256.
fn digit(byte: u8, n: usize) -> f32 {
    let shifted = u16::from(byte.wrapping_mul(POWERS[n]));
    f32::from((shifted * 3) >> 8) - 1.0
}

/// 32 bytes of 5 planes, 16 bytes of 5 planes, 4 bytes of 4 planes.
pub(super) fn tq1_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 52);
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = d * match i {
            0..160 => digit(block[i % 32], i / 32),
            160..240 => digit(block[32 + i % 16], (i - 160) / 16),
            _ => digit(block[48 + i % 4], (i - 240) / 4),
        };
    }
}

pub(super) fn tq2_0(block: &[u8], out: &mut [f32]) {
    let d = half(block, 64);
    for (i, slot) in out.iter_mut().enumerate() {
        let code = block[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        *slot = d * (f32::from(code) - 1.0);
    }
}
