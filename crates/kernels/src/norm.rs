//! Layer, RMS, group and instance normalization.
//!
//! Means and variances run in the fixed 16-lane order (see [`crate::reduce`]); the variance is
//! the mean square of the differences to the mean (two passes). With `inverse = 1 / sqrt(variance
//! + epsilon)` the result is `fma((x - mean) inverse, gamma, beta)`.

use crate::reduce::{Fold, MeanFold, SumSquareFold, lanes};
use crate::{Ctx, Job};

/// Elements that are worth a task of their own.
const LEAST: usize = 16_384;

/// Layer normalization of each row of `gamma.len()` numbers.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn layer_norm_f32(
    ctx: Ctx<'_>,
    input: &[f32],
    gamma: &[f32],
    beta: Option<&[f32]>,
    epsilon: f32,
    output: &mut [f32],
) {
    assert!(beta.is_none_or(|beta| beta.len() == gamma.len()), "gamma and beta differ in length");
    each_row(ctx, input, gamma.len(), output, |_, x, y| {
        ctx.isa.run(LayerRow { x, y, gamma, beta, epsilon });
    });
}

/// RMS normalization of each row of `gamma.len()` numbers: `x / sqrt(mean of x^2 + epsilon)
/// gamma`.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn rms_norm_f32(ctx: Ctx<'_>, input: &[f32], gamma: &[f32], epsilon: f32, output: &mut [f32]) {
    each_row(ctx, input, gamma.len(), output, |_, x, y| {
        ctx.isa.run(RmsRow { x, y, gamma, epsilon });
    });
}

/// Group normalization of `[batch, channels, pixels]`: statistics over each group of
/// `channels / groups` channels, gamma and beta per channel. Instance normalization has as many
/// groups as channels.
///
/// # Panics
/// When the lengths do not fit each other, or `groups` does not divide the channels.
pub fn group_norm_f32(
    ctx: Ctx<'_>,
    input: &[f32],
    pixels: usize,
    groups: usize,
    (gamma, beta): (&[f32], &[f32]),
    epsilon: f32,
    output: &mut [f32],
) {
    let channels = gamma.len();
    assert_eq!(beta.len(), channels, "gamma and beta differ in length");
    assert!(
        groups > 0 && channels.is_multiple_of(groups),
        "{channels} channels do not form {groups} groups"
    );
    let each = channels / groups;
    each_row(ctx, input, each * pixels, output, |row, x, y| {
        let of_group = row % groups * each..(row % groups + 1) * each;
        let (gamma, beta) = (&gamma[of_group.clone()], &beta[of_group]);
        ctx.isa.run(GroupRow { x, y, gamma, beta, epsilon });
    });
}

/// Calls `body(row, x, y)` for each row on all threads.
fn each_row(
    ctx: Ctx<'_>,
    input: &[f32],
    row_len: usize,
    output: &mut [f32],
    body: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) {
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    if input.is_empty() {
        return;
    }
    assert!(row_len > 0 && input.len().is_multiple_of(row_len), "rows of {row_len} do not fit");
    let grain = ctx.pool.grain(input.len() / row_len, LEAST.div_ceil(row_len));
    ctx.pool.for_each_chunk(output, grain * row_len, |i, output| {
        for (j, y) in output.chunks_exact_mut(row_len).enumerate() {
            let row = i * grain + j;
            body(row, &input[row * row_len..][..row_len], y);
        }
    });
}

/// The mean of `x` and `1 / sqrt(variance + epsilon)`; leaves the differences in `y`.
#[inline(always)]
fn centre(x: &[f32], y: &mut [f32], epsilon: f32) -> f32 {
    let mean = MeanFold::finish(lanes::<MeanFold>(x, 0.0), x.len(), 0.0);
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - mean);
    inverse_root(y, epsilon)
}

/// `1 / sqrt(mean of x^2 + epsilon)`.
#[inline(always)]
fn inverse_root(x: &[f32], epsilon: f32) -> f32 {
    let squares = lanes::<SumSquareFold>(x, 0.0);
    1.0 / (squares / x.len() as f32 + epsilon).sqrt()
}

struct LayerRow<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    gamma: &'a [f32],
    beta: Option<&'a [f32]>,
    epsilon: f32,
}

impl Job for LayerRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let inverse = centre(self.x, self.y, self.epsilon);
        match self.beta {
            Some(beta) => {
                for ((y, &gamma), &beta) in self.y.iter_mut().zip(self.gamma).zip(beta) {
                    *y = (*y * inverse).mul_add(gamma, beta);
                }
            }
            None => scale(self.y, inverse, self.gamma),
        }
    }
}

/// `y = y inverse gamma`.
#[inline(always)]
fn scale(y: &mut [f32], inverse: f32, gamma: &[f32]) {
    for (y, &gamma) in y.iter_mut().zip(gamma) {
        *y = *y * inverse * gamma;
    }
}

struct RmsRow<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    gamma: &'a [f32],
    epsilon: f32,
}

impl Job for RmsRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let inverse = inverse_root(self.x, self.epsilon);
        for ((y, &x), &gamma) in self.y.iter_mut().zip(self.x).zip(self.gamma) {
            *y = x * inverse * gamma;
        }
    }
}

struct GroupRow<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    epsilon: f32,
}

impl Job for GroupRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let inverse = centre(self.x, self.y, self.epsilon);
        let pixels = self.y.len() / self.gamma.len();
        let channels = self.y.chunks_exact_mut(pixels);
        for ((y, &gamma), &beta) in channels.zip(self.gamma).zip(self.beta) {
            for y in y {
                *y = (*y * inverse).mul_add(gamma, beta);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{LENGTHS, bits, everywhere, numbers};

    const EPSILON: f32 = 1e-5;

    #[track_caller]
    fn check(got: &[u32], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (&got, &expected) in got.iter().zip(expected) {
            let got = f64::from(f32::from_bits(got));
            let error = (got - expected).abs();
            assert!(error <= 4e-6 * expected.abs().max(1.0), "{got} is not {expected}");
        }
    }

    /// `(x - mean) / sqrt(mean of squares + epsilon)`; without the mean for RMS.
    fn normalized(x: &[f32], subtract: bool) -> Vec<f64> {
        let count = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let mean = if subtract { mean } else { 0.0 };
        let centred: Vec<f64> = x.iter().map(|&x| f64::from(x) - mean).collect();
        let variance = centred.iter().map(|d| d * d).sum::<f64>() / count;
        let inverse = 1.0 / (variance + f64::from(EPSILON)).sqrt();
        centred.iter().map(|d| d * inverse).collect()
    }

    #[test]
    fn layer_norm_is_accurate_and_the_same_everywhere() {
        for len in LENGTHS.into_iter().filter(|&len| len > 0) {
            let x: Vec<f32> = numbers(3 * len, 16, 2.0).iter().map(|x| x + 1.5).collect();
            let (gamma, beta) = (numbers(len, 17, 1.0), numbers(len, 18, 1.0));
            for beta in [Some(&beta[..]), None] {
                let y = everywhere(|ctx| {
                    let mut y = vec![0.0; x.len()];
                    layer_norm_f32(ctx, &x, &gamma, beta, EPSILON, &mut y);
                    bits(&y)
                });
                let expected: Vec<f64> = x
                    .chunks(len)
                    .flat_map(|row| normalized(row, true))
                    .enumerate()
                    .map(|(i, d)| {
                        let beta = beta.map_or(0.0, |beta| f64::from(beta[i % len]));
                        d * f64::from(gamma[i % len]) + beta
                    })
                    .collect();
                check(&y, &expected);
            }
        }
    }

    #[test]
    fn rms_norm_is_accurate_and_the_same_everywhere() {
        for len in LENGTHS.into_iter().filter(|&len| len > 0) {
            let (x, gamma) = (numbers(3 * len, 19, 2.0), numbers(len, 20, 1.0));
            let y = everywhere(|ctx| {
                let mut y = vec![0.0; x.len()];
                rms_norm_f32(ctx, &x, &gamma, EPSILON, &mut y);
                bits(&y)
            });
            let rows = x.chunks(len).flat_map(|row| normalized(row, false));
            let expected: Vec<f64> =
                rows.enumerate().map(|(i, d)| d * f64::from(gamma[i % len])).collect();
            check(&y, &expected);
        }
    }

    #[test]
    fn group_norm_is_accurate_and_the_same_everywhere() {
        let (batch, channels, pixels) = (2, 6, 35);
        let x = numbers(batch * channels * pixels, 21, 2.0);
        let (gamma, beta) = (numbers(channels, 22, 1.0), numbers(channels, 23, 1.0));
        for groups in [1, 2, 3, 6] {
            let y = everywhere(|ctx| {
                let mut y = vec![0.0; x.len()];
                group_norm_f32(ctx, &x, pixels, groups, (&gamma, &beta), EPSILON, &mut y);
                bits(&y)
            });
            let rows = x.chunks(channels / groups * pixels);
            let expected: Vec<f64> = rows
                .flat_map(|row| normalized(row, true))
                .enumerate()
                .map(|(i, d)| (i / pixels % channels, d))
                .map(|(c, d)| d * f64::from(gamma[c]) + f64::from(beta[c]))
                .collect();
            check(&y, &expected);
        }
    }
}
