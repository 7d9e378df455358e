//! Hyperbolic tangent and the logistic function.

use super::{exp, horner};

/// `(tanh(x) / x - 1) / x^2` in powers of `x^2` for `|x| <= 0.625`, minimax for the relative
/// error of `tanh` (4.4e-9, 0.04 ULP).
const SMALL: [f32; 5] =
    [-3.333_328e-1, 1.333_144_2e-1, -5.373_971_5e-2, 2.063_908_6e-2, -5.704_988e-3];

/// `tanh(x)`, within 2 ULP.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = x * x;
    let small = (magnitude * square).mul_add(horner(square, &SMALL), magnitude);
    let large = 1.0 - 2.0 / (exp(magnitude + magnitude) + 1.0);
    let y = if magnitude > 0.625 { large } else { small };
    y.copysign(x)
}

/// `1 / (1 + e^-x)`, within 2.5 ULP.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    // e^-|x| cannot overflow, so that both tails keep their relative accuracy.
    let e = exp(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::accuracy::{assert_ulp, dense};

    #[test]
    fn tanh_is_within_two_ulp() {
        for (low, high) in [(-10.0, 10.0), (-0.7, 0.7), (-1e-3, 1e-3)] {
            assert_ulp("tanh", 2.0, tanh, f64::tanh, dense(low, high));
        }
    }

    #[test]
    fn tanh_ends() {
        assert_eq!(tanh(f32::INFINITY), 1.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        assert_eq!(tanh(-0.0).to_bits(), (-0.0_f32).to_bits());
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoid_is_within_two_and_a_half_ulp() {
        let exact = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert_ulp("sigmoid", 2.5, sigmoid, exact, dense(-87.0, 20.0));
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert!(sigmoid(f32::NAN).is_nan());
    }
}
