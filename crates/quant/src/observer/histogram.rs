//! A streaming histogram whose result does not depend on the order of the samples.

use super::{Observer, Range, same_kind};
use fewbit_core::{QuantScheme, Result};
use fewbit_exec::kernels::Ctx;
use fewbit_exec::kernels::quantize::{Extent, extent, histogram};

/// Bins of a histogram; half of them lie below zero.
const BINS: usize = 4096;

/// Counts of values in equal bins over `-limit..limit`.
///
/// `limit` is a power of two. When a value does not fit, the limit doubles and bins join in
/// pairs, so bins always nest: whatever the order of samples and merges, the counts are those
/// of one pass with the final limit.
#[derive(Clone, Debug)]
pub struct Histogram {
    limit: f32,
    counts: Vec<u64>,
    extent: Extent,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { limit: 0.0, counts: Vec::new(), extent: Extent::EMPTY }
    }
}

impl Histogram {
    /// Adds values; NaN and infinities are only counted in the extent.
    pub fn add(&mut self, values: &[f32], kernels: Ctx<'_>) {
        let now = extent(kernels, values);
        self.extent = self.extent.merge(now);
        if now.is_empty() {
            return;
        }
        self.grow(limit_for(now.min.abs().max(now.max.abs())));
        let range = (-self.limit, self.limit);
        if now.infinite == 0 {
            histogram(kernels, values, range, false, &mut self.counts);
        } else {
            let finite: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
            histogram(kernels, &finite, range, false, &mut self.counts);
        }
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        self.extent = self.extent.merge(other.extent);
        if other.counts.is_empty() {
            return;
        }
        self.grow(other.limit);
        let mut other = other.clone();
        other.grow(self.limit);
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }

    fn grow(&mut self, limit: f32) {
        if self.counts.is_empty() {
            self.limit = limit;
            self.counts = vec![0; BINS];
        }
        while self.limit < limit {
            self.join_pairs();
            self.limit *= 2.0;
        }
    }

    /// Halves the resolution around the centre.
    fn join_pairs(&mut self) {
        let mut joined = vec![0; BINS];
        for (i, pair) in self.counts.chunks_exact(2).enumerate() {
            joined[BINS / 4 + i] = pair[0] + pair[1];
        }
        self.counts = joined;
    }

    /// Extremes of everything added.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Width of a bin.
    pub fn width(&self) -> f32 {
        2.0 * self.limit / BINS as f32
    }

    /// Number of finite values.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Centres and counts of the bins that are not empty, rising.
    pub fn bins(&self) -> impl Iterator<Item = (f32, u64)> + '_ {
        let (limit, width) = (self.limit, self.width());
        let filled = self.counts.iter().enumerate().filter(|(_, c)| **c > 0);
        filled.map(move |(i, &c)| (-limit + (i as f32 + 0.5) * width, c))
    }
}

/// The smallest power of two not below `magnitude` (at least 2^-100, so that bins stay normal).
fn limit_for(magnitude: f32) -> f32 {
    let floor = 2f32.powi(-100);
    let mut limit = 2f32.powi(magnitude.max(floor).log2().ceil() as i32 - 1);
    while limit < magnitude.max(floor) && limit < f32::MAX / 2.0 {
        limit *= 2.0;
    }
    limit
}

/// How a calibration method reads a range off a histogram.
pub(super) trait Rule: Send + 'static {
    /// The range to quantize.
    fn range(&self, histogram: &Histogram, scheme: &QuantScheme) -> Range;
}

struct Observed<R> {
    rule: R,
    histogram: Histogram,
}

/// An observer that keeps a histogram and reads it with `rule`.
pub(super) fn observer(rule: impl Rule) -> Box<dyn Observer> {
    Box::new(Observed { rule, histogram: Histogram::default() })
}

impl<R: Rule> Observer for Observed<R> {
    fn update(&mut self, values: &[f32], kernels: Ctx<'_>) {
        self.histogram.add(values, kernels);
    }

    fn merge(&mut self, other: &dyn Observer) -> Result<()> {
        self.histogram.merge(&same_kind::<Self>(other)?.histogram);
        Ok(())
    }

    fn finish(&self, scheme: &QuantScheme) -> Range {
        if self.histogram.total() == 0 {
            return Range::around(0.0, 0.0);
        }
        self.rule.range(&self.histogram, scheme)
    }

    fn extent(&self) -> Extent {
        self.histogram.extent()
    }

    fn histogram(&self) -> Option<&Histogram> {
        Some(&self.histogram)
    }
}
