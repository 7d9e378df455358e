//! Weights and biases as integers in float whose sums `f32` holds exactly.

use crate::plan::integer::codes::{CodedWeight, limits};
use crate::plan::integer::finish::Finish;
use crate::plan::integer::product::Product;
use fewbit_core::{Result, Tensor};

/// The first integer whose neighbour `f32` does not have.
const EXACT: i64 = 1 << 24;
/// Weights that could pass it are split in `RADIX * high + low`.
const RADIX: i64 = 16;
/// Biases that could pass it are split in a multiple of this and the rest.
const BIAS_RADIX: i64 = 256;

/// Exact sums: those of `low`, or `low + high`, whose addition is the first rounding.
pub(super) struct ExactSums {
    pub low: Part,
    pub high: Option<Part>,
}

/// `unit * product + bias`; without a weight only the bias.
pub(super) struct Part {
    pub weight: Option<Tensor>,
    pub unit: f32,
    /// One for each output channel.
    pub bias: Vec<f32>,
}

/// The sums of a product with its bias; `None` where `f32` could not hold them.
///
/// # Errors
/// When the weight's bytes do not fit its shape.
pub(super) fn exact_sums(found: &Product) -> Result<Option<ExactSums>> {
    let sums = Sums::of(found)?;
    let Sums { weight, bias, .. } = &sums;
    let low_bias: Vec<i64> = bias.iter().map(|b| b.rem_euclid(BIAS_RADIX)).collect();
    let high_bias: Vec<i64> = bias.iter().zip(&low_bias).map(|(b, low)| b - low).collect();
    if sums.fits(weight, bias, 1) {
        return Ok(Some(ExactSums { low: sums.part(weight, 1, bias)?, high: None }));
    }
    if sums.fits(weight, &low_bias, 1) {
        // A multiple of 2^8 below 2^31 is exact.
        let high = Part { weight: None, unit: 1.0, bias: floats(&high_bias) };
        return Ok(Some(ExactSums { low: sums.part(weight, 1, &low_bias)?, high: Some(high) }));
    }
    let low: Vec<i64> = weight.iter().map(|w| w.rem_euclid(RADIX)).collect();
    let high: Vec<i64> = weight.iter().map(|w| w.div_euclid(RADIX)).collect();
    if !sums.fits(&low, &low_bias, 1) || !sums.fits(&high, &high_bias, RADIX) {
        return Ok(None);
    }
    Ok(Some(ExactSums {
        low: sums.part(&low, 1, &low_bias)?,
        high: Some(sums.part(&high, RADIX, &high_bias)?),
    }))
}

/// A product in integers.
struct Sums<'a> {
    found: &'a CodedWeight,
    /// Codes less their zero points, in order.
    weight: Vec<i64>,
    bias: Vec<i64>,
    /// The largest difference of an input code and its zero point.
    reach: i64,
}

impl<'a> Sums<'a> {
    fn of(found: &'a Product) -> Result<Self> {
        let codes = found.weight.codes.to_i64()?;
        let zeros = &found.weight.zeros;
        let channel = channel_of(&found.weight);
        let weight = codes.iter().enumerate().map(|(i, q)| q - i64::from(zeros[channel(i)]));
        let bias = match &found.finish {
            Finish::Codes(codes) => codes.bias.as_deref(),
            Finish::Float { .. } => None,
        };
        let (lo, hi) = limits(found.input.dtype);
        let zero = found.input.affine.zero_point;
        Ok(Sums {
            weight: weight.collect(),
            bias: match bias {
                Some(bias) => bias.iter().map(|&b| i64::from(b)).collect(),
                None => vec![0; zeros.len()],
            },
            reach: i64::from((hi - zero).max(zero - lo)),
            found: &found.weight,
        })
    }

    /// Whether no partial sum, in units of `unit`, can reach [`EXACT`].
    fn fits(&self, weight: &[i64], bias: &[i64], unit: i64) -> bool {
        let channel = channel_of(self.found);
        let mut sums: Vec<i64> = bias.iter().map(|b| b.abs() / unit).collect();
        for (i, weight) in weight.iter().enumerate() {
            sums[channel(i)] += weight.abs() * self.reach;
        }
        sums.iter().all(|&sum| sum < EXACT)
    }

    fn part(&self, weight: &[i64], unit: i64, bias: &[i64]) -> Result<Part> {
        let shape = self.found.codes.shape().to_vec();
        let weight = Some(Tensor::from_slice(shape, &floats(weight))?);
        Ok(Part { weight, unit: unit as f32, bias: floats(bias) })
    }
}

fn floats(integers: &[i64]) -> Vec<f32> {
    integers.iter().map(|&i| i as f32).collect()
}

/// The output channel of an element of the weight.
fn channel_of(weight: &CodedWeight) -> impl Fn(usize) -> usize {
    let inner: usize = weight.codes.shape()[weight.axis + 1..].iter().product();
    let (inner, channels) = (inner.max(1), weight.codes.shape()[weight.axis].max(1));
    move |i| i / inner % channels
}
