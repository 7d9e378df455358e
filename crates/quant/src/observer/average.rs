//! Moving average of the extremes of each sample: one wild sample counts for little
//! (the training-time observer of Jacob et al. 2018).

use super::{Observer, Range, same_kind};
use fewbit_core::{QuantScheme, Result};
use fewbit_exec::kernels::Ctx;
use fewbit_exec::kernels::quantize::{Extent, extent};

/// Exponential moving averages of minimum and maximum, in the order of the samples.
pub struct MovingAverage {
    momentum: f32,
    samples: u64,
    low: f32,
    high: f32,
    seen: Extent,
}

impl MovingAverage {
    /// `momentum` is the weight of the newest sample, 0..1.
    pub fn new(momentum: f32) -> Self {
        MovingAverage { momentum, samples: 0, low: 0.0, high: 0.0, seen: Extent::EMPTY }
    }
}

impl Observer for MovingAverage {
    fn update(&mut self, values: &[f32], kernels: Ctx<'_>) {
        let now = extent(kernels, values);
        self.seen = self.seen.merge(now);
        if now.is_empty() {
            return;
        }
        let weight = if self.samples == 0 { 1.0 } else { self.momentum };
        self.low += weight * (now.min - self.low);
        self.high += weight * (now.max - self.high);
        self.samples += 1;
    }

    /// An average has no exact merge; both sides count by their number of samples.
    fn merge(&mut self, other: &dyn Observer) -> Result<()> {
        let other = same_kind::<Self>(other)?;
        let total = self.samples + other.samples;
        if total > 0 {
            let share = other.samples as f32 / total as f32;
            self.low += share * (other.low - self.low);
            self.high += share * (other.high - self.high);
        }
        self.samples = total;
        self.seen = self.seen.merge(other.seen);
        Ok(())
    }

    fn finish(&self, _: &QuantScheme) -> Range {
        Range::around(self.low, self.high)
    }

    fn extent(&self) -> Extent {
        self.seen
    }
}
