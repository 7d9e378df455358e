//! Search for the range with the lowest cost among shrunken versions of the full one.

use super::Range;
use super::histogram::Histogram;
use fewbit_core::{QuantScheme, ZeroPoint};

/// Shrink factors that are tried for an end of the range: 1.00, 0.98, ... 0.20.
const STEPS: usize = 40;

/// The cheapest range. Symmetric schemes shrink both ends together; asymmetric ones first the
/// upper, then the lower end, then the upper again, since the best of one depends on the other.
pub(super) fn cheapest(
    histogram: &Histogram,
    scheme: &QuantScheme,
    cost: impl Fn(Range) -> f64,
) -> Range {
    let seen = histogram.extent();
    let full = Range::around(seen.min, seen.max);
    if scheme.zero_point == ZeroPoint::Symmetric {
        let magnitude = full.high.max(-full.low);
        return shrink(|f| Range { low: -magnitude * f, high: magnitude * f }, &cost);
    }
    let mut best = shrink(|f| Range { high: full.high * f, ..full }, &cost);
    best = shrink(|f| Range { low: full.low * f, ..best }, &cost);
    shrink(|f| Range { high: full.high * f, ..best }, &cost)
}

/// The range of lowest cost; the widest one among equals.
fn shrink(range: impl Fn(f32) -> Range, cost: &impl Fn(Range) -> f64) -> Range {
    let factor = |step: usize| 1.0 - step as f32 * 0.02;
    let costs = (0..=STEPS).map(|s| (cost(range(factor(s))), s));
    let (_, step) = costs.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, 0));
    range(factor(step))
}
