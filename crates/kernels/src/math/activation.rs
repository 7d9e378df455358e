//! Activation functions, as the ONNX operator specification defines them.

use super::{clip, erf, exp, exp_m1, log1p_unit, sigmoid, tanh};

/// `max(0, min(1, alpha x + beta))`.
#[inline(always)]
pub fn hard_sigmoid(x: f32, alpha: f32, beta: f32) -> f32 {
    clip(alpha * x + beta, 0.0, 1.0)
}

/// `x hard_sigmoid(x)` with alpha 1/6 and beta 1/2.
#[inline(always)]
pub fn hard_swish(x: f32) -> f32 {
    x * hard_sigmoid(x, 1.0 / 6.0, 0.5)
}

/// `x sigmoid(alpha x)`; alpha 1 is SiLU.
#[inline(always)]
pub fn silu(x: f32, alpha: f32) -> f32 {
    x * sigmoid(alpha * x)
}

/// `x (1 + erf(x / sqrt(2))) / 2`.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + tanh(inner))
}

/// `x` above 0, `alpha (e^x - 1)` below.
#[inline(always)]
pub fn elu(x: f32, alpha: f32) -> f32 {
    let low = alpha * exp_m1(x);
    if x > 0.0 { x } else { low }
}

/// `gamma elu(x, alpha)`.
#[inline(always)]
pub fn selu(x: f32, alpha: f32, gamma: f32) -> f32 {
    gamma * elu(x, alpha)
}

/// `x` above 0, `alpha (e^(x / alpha) - 1)` below.
#[inline(always)]
pub fn celu(x: f32, alpha: f32) -> f32 {
    let low = alpha * exp_m1(x / alpha);
    if x > 0.0 { x } else { low }
}

/// `ln(1 + e^x)`, within 2 ULP, without overflow.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let positive = if x < 0.0 { 0.0 } else { x };
    positive + log1p_unit(exp(-x.abs()))
}

/// `x tanh(softplus(x))`, by the identity `tanh(ln(1 + e)) = e (e + 2) / (e (e + 2) + 2)`.
#[inline(always)]
pub fn mish(x: f32) -> f32 {
    // Above 20 the factor is 1 in f32, and e^2 must not overflow.
    let e = exp(if x > 20.0 { 20.0 } else { x });
    let product = e * (e + 2.0);
    x * (product / (product + 2.0))
}

/// `x / (1 + |x|)`.
#[inline(always)]
pub fn softsign(x: f32) -> f32 {
    x / (1.0 + x.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::accuracy::{assert_close, dense, erf_exact};

    fn mish_exact(x: f64) -> f64 {
        x * x.exp().ln_1p().tanh()
    }

    #[test]
    fn activations_follow_f64() {
        let points = || dense(-20.0, 20.0);
        let half = std::f64::consts::FRAC_1_SQRT_2;
        let root = std::f64::consts::FRAC_2_PI.sqrt();
        assert_close("gelu", gelu, |x| 0.5 * x * (1.0 + erf_exact(x * half)), points());
        let tanh_form = |x: f64| 0.5 * x * (1.0 + (root * (x + 0.044715 * x * x * x)).tanh());
        assert_close("gelu_tanh", gelu_tanh, tanh_form, points());
        assert_close("softplus", softplus, |x| x.exp().ln_1p(), points());
        assert_close("mish", mish, mish_exact, points());
        assert_close("silu", |x| silu(x, 1.0), |x| x / (1.0 + (-x).exp()), points());
        let elu_exact = |x: f64| if x > 0.0 { x } else { 0.5 * x.exp_m1() };
        assert_close("elu", |x| elu(x, 0.5), elu_exact, points());
        let celu_exact = |x: f64| if x > 0.0 { x } else { 2.0 * (x / 2.0).exp_m1() };
        assert_close("celu", |x| celu(x, 2.0), celu_exact, points());
        let swish = |x: f64| x * (x / 6.0 + 0.5).clamp(0.0, 1.0);
        assert_close("hard_swish", hard_swish, swish, points());
        assert_close("softsign", softsign, |x| x / (1.0 + x.abs()), points());
    }

    #[test]
    fn activations_keep_nan() {
        for y in [gelu, gelu_tanh, softplus, mish, hard_swish, softsign] {
            assert!(y(f32::NAN).is_nan());
        }
        assert!(elu(f32::NAN, 1.0).is_nan());
        assert!(celu(f32::NAN, 1.0).is_nan());
        assert!(selu(f32::NAN, 1.7, 1.1).is_nan());
        assert!(hard_sigmoid(f32::NAN, 0.2, 0.5).is_nan());
    }

    #[test]
    fn activations_reach_their_ends() {
        assert_eq!(softplus(f32::INFINITY), f32::INFINITY);
        assert_eq!(softplus(f32::NEG_INFINITY), 0.0);
        assert_eq!(mish(1e30), 1e30);
        assert_eq!(elu(f32::NEG_INFINITY, 2.0), -2.0);
        assert_eq!(hard_sigmoid(1e30, 0.2, 0.5), 1.0);
    }
}
