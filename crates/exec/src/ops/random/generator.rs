//! A counter-based generator: the number at a position follows from the seed and the position
//! alone (SplitMix64; Steele, Lea and Flood, 2014), so it is the same on every machine.

use crate::eval::EvalCtx;
use crate::ops::signal::precise::{ln, turn};
use fewbit_core::Result;

/// The numbers of one node.
pub(super) struct Generator {
    key: u64,
}

impl Generator {
    /// From the attribute `seed`; a node without one draws by its name, so that equal runs give
    /// equal results and different nodes different ones.
    pub fn of(ctx: &EvalCtx) -> Result<Generator> {
        let seed = match ctx.node.float("seed")? {
            Some(seed) => u64::from(seed.to_bits()),
            None => ctx.node.name.bytes().fold(0, |key, byte| mix(key ^ u64::from(byte))),
        };
        Ok(Generator { key: mix(seed) })
    }

    fn bits(&self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Uniform in `0..1`.
    pub fn uniform(&self, index: usize) -> f64 {
        (self.bits(index as u64) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and variance 1 (Box and Muller, 1958).
    pub fn normal(&self, index: usize) -> f64 {
        let pair = (index as u64).wrapping_mul(2);
        // Never 0, of which there is no logarithm.
        let radius = ((self.bits(pair) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let angle = (self.bits(pair.wrapping_add(1)) >> 32) as usize;
        (-2.0 * ln(radius)).sqrt() * turn(angle, 1 << 32).0
    }
}

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let generator = Generator { key: 7 };
        let n = 20_000;
        let mean = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        assert!((mean(&|i| generator.uniform(i)) - 0.5).abs() < 0.01);
        assert!(mean(&|i| generator.normal(i)).abs() < 0.02);
        assert!((mean(&|i| generator.normal(i).powi(2)) - 1.0).abs() < 0.03);
    }

    #[test]
    fn the_first_number_is_fixed() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }
}
