//! `MelWeightMatrix`: triangles that gather the bins of a spectrogram into mel bands.

use super::precise::{exp, ln};
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::cast::target;
use crate::ops::params::{scalar, scalar_int, size};
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};
use std::f64::consts::LN_10;

/// Hertz to mel, and back: mel = 2595 log10(1 + hertz / 700).
const MEL: f64 = 2595.0 / LN_10;

pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let bands = size(scalar_int(ctx.input(0)?)?, "num_mel_bins")?;
    let length = size(scalar_int(ctx.input(1)?)?, "dft_length")?;
    let rate = scalar_int(ctx.input(2)?)?;
    let (low, high) = (scalar(ctx.input(3)?)?, scalar(ctx.input(4)?)?);
    if rate <= 0 || !(low > -700.0 && high > -700.0 && low.is_finite() && high.is_finite()) {
        return Err(Error::bad_input(format!(
            "bands from {low} to {high} Hz of a signal of {rate} samples per second"
        )));
    }
    let bins = length / 2 + 1;
    let mut weights = ctx.output(vec![bins, bands], |values: &mut [f64]| {
        values.fill(0.0);
        Ok(())
    })?;
    let [from, to] = [low, high].map(|hertz| MEL * ln(1.0 + hertz / 700.0));
    let step = (to - from) / (bands as f64 + 2.0);
    let edge = |index: usize| {
        let hertz = 700.0 * (exp((from + step * index as f64) / MEL) - 1.0);
        ((length as f64 + 1.0) * hertz / rate as f64).floor().clamp(-1e12, 1e12) as i64
    };
    let values = weights.as_mut_slice::<f64>()?;
    for band in 0..bands {
        let edges = [edge(band), edge(band + 1), edge(band + 2)];
        triangle(edges, bins, |bin, weight| values[bin * bands + band] = weight);
    }
    let dtype = target(ctx.int("output_datatype", 1)?)?;
    Ok(vec![weights.cast(dtype)?])
}

/// A weight of 1 at the middle, falling to 0 at both edges; bins outside the matrix are left out.
fn triangle([left, center, right]: [i64; 3], bins: usize, mut set: impl FnMut(usize, f64)) {
    let mut put = |bin: i64, weight: f64| {
        if let Some(bin) = usize::try_from(bin).ok().filter(|&bin| bin < bins) {
            set(bin, weight);
        }
    };
    if left == center {
        put(center, 1.0);
    }
    for bin in left.max(0)..=center.min(bins as i64) {
        if left < center {
            put(bin, (bin - left) as f64 / (center - left) as f64);
        }
    }
    for bin in center.max(0)..right.min(bins as i64) {
        if center < right {
            put(bin, (right - bin) as f64 / (right - center) as f64);
        }
    }
}

pub(super) fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let known = |index: usize| ctx.constant(index).map(scalar_int).transpose();
    let dim = |value: Option<i64>| match value {
        Some(value) => Ok(Dim::Known(size(value, "a size")?)),
        None => Ok(Dim::Unknown),
    };
    let bins = dim(known(1)?.map(|length| length / 2 + 1))?;
    let dtype: DType = target(ctx.node.int("output_datatype")?.unwrap_or(1))?;
    Ok(vec![typed(Some(dtype), Some(vec![bins, dim(known(0)?)?]))])
}
