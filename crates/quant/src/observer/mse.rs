//! MSE: the range that quantizes the seen distribution with the smallest squared error.

use super::Range;
use super::candidates::cheapest;
use super::histogram::{Histogram, Rule};
use crate::affine::Affine;
use fewbit_core::QuantScheme;

/// Weighs the error of clipping against that of coarse steps.
pub(super) struct Mse;

impl Rule for Mse {
    fn range(&self, histogram: &Histogram, scheme: &QuantScheme) -> Range {
        let bins: Vec<(f32, u64)> = histogram.bins().collect();
        cheapest(histogram, scheme, |range| {
            let affine = Affine::from_range(range, scheme);
            let error = |&(value, count): &(f32, u64)| {
                let difference = (value - affine.round_trip(value)) as f64;
                difference * difference * count as f64
            };
            bins.iter().map(error).sum()
        })
    }
}
