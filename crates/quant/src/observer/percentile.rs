//! Percentile: cut the rarest values off both ends.

use super::Range;
use super::histogram::{Histogram, Rule};
use fewbit_core::QuantScheme;

/// Keeps this share of all values, in percent; each tail loses at most half of the rest.
pub(super) struct Percentile(pub f64);

impl Rule for Percentile {
    fn range(&self, histogram: &Histogram, _: &QuantScheme) -> Range {
        let tail = histogram.total() as f64 * (100.0 - self.0) / 200.0;
        let half = histogram.width() / 2.0;
        let bins: Vec<(f32, u64)> = histogram.bins().collect();
        let high = cut(bins.iter().rev(), tail).map_or(0.0, |c| c + half);
        let low = cut(bins.iter(), tail).map_or(0.0, |c| c - half);
        // Bin edges may stick out beyond what was seen.
        let seen = histogram.extent();
        Range::around(low.max(seen.min), high.min(seen.max))
    }
}

/// Centre of the first bin at which more than `tail` values have passed.
fn cut<'a>(bins: impl Iterator<Item = &'a (f32, u64)>, tail: f64) -> Option<f32> {
    let mut passed = 0u64;
    for &(centre, count) in bins {
        passed += count;
        if passed as f64 > tail {
            return Some(centre);
        }
    }
    None
}
