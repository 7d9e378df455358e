//! What the sums of a block start from, and what they are multiplied with.

use bytemuck::Zeroable;

use super::{BLOCK, Block, PARTS, byte_of};
use crate::gemm::Requantize;

/// Those of a block, by register and lane.
#[derive(Clone, PartialEq, Zeroable)]
#[repr(C, align(64))]
pub(in crate::conv) struct Factors {
    pub(super) add: [[i32; LANES]; PARTS],
    pub(super) multiplier: [[f32; LANES]; PARTS],
}

/// Lanes of a register.
const LANES: usize = BLOCK / PARTS;

impl Factors {
    /// For sums of inputs with the zero point `zero`, in unsigned form, that become `to`. Each
    /// channel has the sum of its weights in `sums`.
    pub(super) fn new(block: Block, zero: u8, sums: &[i32], to: &Requantize<'_>) -> Factors {
        let mut factors = Factors::zeroed();
        for (part, lane) in (0..PARTS).flat_map(|part| (0..LANES).map(move |lane| (part, lane))) {
            let Some(channel) = block.channel(byte_of(part, lane)) else { continue };
            let bias = to.bias.map_or(0, |bias| bias[channel]);
            let shift = sums[channel].wrapping_mul(-i32::from(zero));
            factors.add[part][lane] = bias.wrapping_add(shift);
            factors.multiplier[part][lane] = to.multiplier[channel];
        }
        factors
    }
}
