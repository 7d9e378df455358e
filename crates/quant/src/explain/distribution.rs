//! Distributions for the report: where values lie, and which range was chosen.

use crate::calibrate::ValueStatistics;
use crate::observer::Range;
use fewbit_core::{Result, Tensor};
use serde::Serialize;

/// Bars of a histogram for people.
const BARS: usize = 64;

/// Equal bins over `low..high`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bars {
    /// Left edge of the first bar.
    pub low: f32,
    /// Right edge of the last bar.
    pub high: f32,
    /// Values in each bar.
    pub counts: Vec<u64>,
    /// The range that quantization covers, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<(f32, f32)>,
}

impl Bars {
    fn new(low: f32, high: f32) -> Self {
        Bars { low, high, counts: vec![0; BARS], chosen: None }
    }

    fn add(&mut self, value: f32, count: u64) {
        let position = (value - self.low) / (self.high - self.low) * BARS as f32;
        let bar = (position.max(0.0) as usize).min(BARS - 1);
        self.counts[bar] += count;
    }
}

/// The distribution of a weight; `None` when it is empty or constant.
///
/// # Errors
/// When the weight is not numeric.
pub fn weight_bars(weight: &Tensor) -> Result<Option<Bars>> {
    let values = weight.to_f32()?;
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let (low, high) =
        (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
    let width = high - low;
    if !width.is_finite() || width <= 0.0 {
        return Ok(None);
    }
    let mut bars = Bars::new(low, high);
    finite().for_each(|v| bars.add(v, 1));
    Ok(Some(bars))
}

/// The distribution of an activation, where calibration kept one, with the chosen range.
pub fn activation_bars(statistics: &ValueStatistics, chosen: Range) -> Option<Bars> {
    let histogram = statistics.observer.histogram()?;
    let seen = histogram.extent();
    if seen.is_empty() || seen.max <= seen.min {
        return None;
    }
    let mut bars = Bars::new(seen.min, seen.max);
    histogram.bins().for_each(|(value, count)| bars.add(value, count));
    bars.chosen = Some((chosen.low, chosen.high));
    Some(bars)
}
