//! Normalization, softmax included.

mod batch;
mod group;
mod layer;
mod local;
mod softmax;

use crate::def::OpDef;
use fewbit_core::{Error, Result, Tensor};

pub(super) const DEFS: &[OpDef] = &[
    batch::DEF,
    group::GROUP,
    group::INSTANCE,
    layer::LAYER,
    layer::RMS,
    layer::MEAN_VARIANCE,
    local::LRN,
    local::LP,
    softmax::HARDMAX,
    softmax::LOG_SOFTMAX,
    softmax::SOFTMAX,
];

/// A parameter vector that must have `count` elements.
fn parameter(tensor: &Tensor, count: usize, what: &str) -> Result<Vec<f32>> {
    if tensor.len() != count {
        return Err(Error::bad_input(format!(
            "{what} has {} elements, expected {count}",
            tensor.len()
        ))
        .code("FB-3206"));
    }
    tensor.to_f32()
}

/// Mean and (biased) variance, in `f64`: the same for every order of work.
fn mean_and_variance(values: impl Iterator<Item = f32> + Clone, count: usize) -> (f64, f64) {
    let n = count.max(1) as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / n;
    let variance = values.map(|v| (v as f64 - mean).powi(2)).sum::<f64>() / n;
    (mean, variance)
}

/// Channels and elements behind each of a `[N, C, ...]` tensor.
fn channels(shape: &[usize]) -> Result<(usize, usize)> {
    match shape {
        [_, channels, rest @ ..] => Ok((*channels, rest.iter().product())),
        _ => {
            Err(Error::bad_input(format!("expected [N, C, ...], found {shape:?}")).code("FB-3207"))
        }
    }
}
