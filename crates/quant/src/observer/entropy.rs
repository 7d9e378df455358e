//! Entropy: the range after which the distribution has lost the least information
//! (Migacz, "8-bit inference with TensorRT", 2017).

use super::Range;
use super::candidates::cheapest;
use super::histogram::{Histogram, Rule};
use crate::affine::Affine;
use fewbit_core::QuantScheme;

/// Smallest Kullback-Leibler divergence of the quantized from the seen distribution.
pub(super) struct Entropy;

impl Rule for Entropy {
    fn range(&self, histogram: &Histogram, scheme: &QuantScheme) -> Range {
        // Zero is exact in every candidate; after a ReLU its share would drown everything else.
        let width = histogram.width();
        let bins: Vec<(f32, u64)> = histogram.bins().filter(|(v, _)| v.abs() > width).collect();
        cheapest(histogram, scheme, |range| divergence(&bins, &Affine::from_range(range, scheme)))
    }
}

/// One code's share of the distribution.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Values that fall on the code without clipping.
    inside: u64,
    /// Bins they come from.
    bins: u64,
}

/// KL divergence of `seen` (with clipped values counted at the ends) from the same distribution
/// after quantization (each code's values spread evenly over its bins).
fn divergence(bins: &[(f32, u64)], affine: &Affine) -> f64 {
    let mut levels = vec![Level::default(); affine.levels()];
    for &(value, count) in bins.iter().filter(|(v, _)| !affine.clips(*v)) {
        let level = &mut levels[affine.level(value)];
        level.inside += count;
        level.bins += 1;
    }
    let total: u64 = bins.iter().map(|b| b.1).sum();
    let kept: u64 = levels.iter().map(|l| l.inside).sum();
    if kept == 0 {
        return f64::INFINITY;
    }
    let mut clipped = [0u64; 2];
    let mut sum = 0.0;
    for &(value, count) in bins {
        if affine.clips(value) {
            clipped[(value > 0.0) as usize] += count;
            continue;
        }
        let level = levels[affine.level(value)];
        let p = count as f64 / total as f64;
        let q = level.inside as f64 / level.bins as f64 / kept as f64;
        sum += p * (p / q).ln();
    }
    // What was clipped now sits on the outermost codes, where the quantized model expects far less.
    for (side, count) in clipped.into_iter().enumerate().filter(|(_, c)| *c > 0) {
        let level = if side == 0 { levels[0] } else { levels[levels.len() - 1] };
        let p = count as f64 / total as f64;
        let q = (level.inside.max(1) as f64 / level.bins.max(1) as f64) / kept as f64;
        sum += p * (p / q).ln();
    }
    sum
}
