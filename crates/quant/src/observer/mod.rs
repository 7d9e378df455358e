//! Observers: from a stream of values to the range a quantizer should cover.
//!
//! An observer keeps a fixed amount of memory however many samples it sees, and merges with
//! another of its kind, so that calibration splits over threads and machines.

mod average;
mod candidates;
mod entropy;
mod histogram;
mod minmax;
mod mse;
mod percentile;

pub use histogram::Histogram;

use crate::recipe::Calibration;
use fewbit_core::{Error, QuantScheme, Result};
use fewbit_exec::kernels::Ctx;
use fewbit_exec::kernels::quantize::Extent;
use std::any::Any;

/// Real values a quantizer covers; always contains 0, so that zero is exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Smallest value, at most 0.
    pub low: f32,
    /// Largest value, at least 0.
    pub high: f32,
}

impl Range {
    /// The range widened to contain 0; of nothing, the range is 0..0.
    pub fn around(low: f32, high: f32) -> Self {
        Range { low: low.min(0.0), high: high.max(0.0) }
    }

    /// The smallest range that contains both.
    #[must_use]
    pub fn union(self, other: Range) -> Range {
        Range { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

/// Collects what a calibration method needs to know of one tensor.
pub trait Observer: Any + Send {
    /// Takes in the values of one sample.
    fn update(&mut self, values: &[f32], kernels: Ctx<'_>);

    /// Takes in what another observer of the same method has seen of the same tensor.
    ///
    /// # Errors
    /// When the other observer is of another kind.
    fn merge(&mut self, other: &dyn Observer) -> Result<()>;

    /// The range to quantize, for codes of the given scheme.
    fn finish(&self, scheme: &QuantScheme) -> Range;

    /// The extremes and the number of NaN and infinite values.
    fn extent(&self) -> Extent;

    /// The distribution, where the method keeps one.
    fn histogram(&self) -> Option<&Histogram> {
        None
    }
}

/// A fresh observer for a calibration method. A new method is its file and a line here.
pub fn observer_for(method: &Calibration) -> Box<dyn Observer> {
    match *method {
        Calibration::Minmax => Box::new(minmax::MinMax::default()),
        Calibration::MovingAverage { momentum } => Box::new(average::MovingAverage::new(momentum)),
        Calibration::Percentile { percentile } => {
            histogram::observer(percentile::Percentile(percentile))
        }
        Calibration::Entropy => histogram::observer(entropy::Entropy),
        Calibration::Mse => histogram::observer(mse::Mse),
    }
}

/// The other observer as the same type.
fn same_kind<T: Observer>(other: &dyn Observer) -> Result<&T> {
    let any: &dyn Any = other;
    any.downcast_ref()
        .ok_or_else(|| Error::internal("observers of different methods cannot be merged"))
}

#[cfg(test)]
mod tests;
