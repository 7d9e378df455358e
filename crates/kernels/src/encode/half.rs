//! Scales as they are stored: half floats.

use super::lanes::{LANES, Lanes, Row};
use half::f16;

/// The bits of the half float nearest to `x`, and its value; never infinite.
#[inline(always)]
pub(super) fn stored(x: f32) -> (u16, f32) {
    let limit = f16::MAX.to_f32();
    let half = f16::from_f32(x.clamp(-limit, limit));
    (half.to_bits(), half.to_f32())
}

/// As [`stored`], for eight numbers.
#[inline(always)]
pub(super) fn stored_row<V: Lanes>(x: V) -> ([u16; LANES], V) {
    let mut values: Row = x.row();
    let bits = std::array::from_fn(|lane| {
        let (bits, value) = stored(values[lane]);
        values[lane] = value;
        bits
    });
    (bits, V::load(&values))
}
