//! Scalar functions of our own, the same bits on every instruction set and platform.
//!
//! Each is a branch-free body of additions, multiplications and explicit fused multiply-adds, so
//! that a loop over it becomes vector code with the very same results. The polynomials are
//! minimax fits (Remez exchange at 40 digits, coefficients then rounded to `f32`) made for this
//! crate; each file states the interval and what the fit minimises. The tests measure the whole
//! function against `f64`; `docs/numerics.md` lists the figures.
//!
//! Every function keeps NaN. Which NaN comes out (sign, payload) is not specified.

mod activation;
mod erf;
mod exp;
mod log;
mod pow;
mod tanh;
mod trig;

pub use activation::{
    celu, elu, gelu, gelu_tanh, hard_sigmoid, hard_swish, mish, selu, silu, softplus, softsign,
};
pub use erf::erf;
pub(crate) use exp::ROUND;
pub use exp::{exp, exp_m1};
pub use log::{log, log1p_unit};
pub use pow::pow;
pub use tanh::{sigmoid, tanh};
pub use trig::{cos, sin};
pub(crate) use trig::{cos_near, is_near, sin_near};

/// `x` limited to `low..=high`; NaN stays NaN. With `low > high` the result is `high`.
#[inline(always)]
pub fn clip(x: f32, low: f32, high: f32) -> f32 {
    let raised = if x < low { low } else { x };
    if raised > high { high } else { raised }
}

/// The larger of two numbers; NaN if either is NaN, and `b` where they compare equal.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// The smaller of two numbers; NaN if either is NaN, and `b` where they compare equal.
#[inline(always)]
pub fn min(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

/// Evaluates a polynomial by Horner's rule, one fused multiply-add per coefficient; the
/// coefficients run from the constant term up.
#[inline(always)]
fn horner<const N: usize>(x: f32, coefficients: &[f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    for k in (0..N - 1).rev() {
        sum = sum.mul_add(x, coefficients[k]);
    }
    sum
}

#[cfg(test)]
pub(crate) mod accuracy;
