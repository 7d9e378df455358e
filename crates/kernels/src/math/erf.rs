//! The error function.

use super::{exp, horner};

/// `erf(x) / x - 1` in powers of `x^2` for `|x| <= 0.9375`, minimax for the relative error of
/// `erf` (5.1e-10).
const SMALL: [f32; 7] = [
    1.283_791_7e-1,
    -3.761_263_2e-1,
    1.128_367_9e-1,
    -2.685_849_7e-2,
    5.198_83e-3,
    -8.118_079e-4,
    8.267_477e-5,
];

/// `-ln(1 - erf(x)) / x - 1` for `0.9375 <= x <= 4`, minimax for the relative error of `erf`
/// (6.4e-10). N. Juffa's form: one polynomial reaches to where `erf` rounds to 1.
const LARGE: [f32; 7] = [
    1.286_585_3e-1,
    6.351_107e-1,
    1.063_037_4e-1,
    -2.381_944e-2,
    3.669_493e-3,
    -3.294_311_2e-4,
    1.189_143_9e-5,
];

/// `erf(x)`, within 2 ULP.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = x * x;
    let small = magnitude.mul_add(horner(square, &SMALL), magnitude);
    let t = if magnitude > 4.0 { 4.0 } else { magnitude };
    let large = 1.0 - exp(-t.mul_add(horner(t, &LARGE), t));
    let y = if magnitude > 0.9375 { large } else { small };
    y.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::accuracy::{assert_ulp, dense, erf_exact};

    #[test]
    fn erf_is_within_two_ulp() {
        for (low, high) in [(-6.0, 6.0), (-1.0, 1.0), (-1e-3, 1e-3)] {
            assert_ulp("erf", 2.0, erf, erf_exact, dense(low, high));
        }
    }

    #[test]
    fn erf_ends() {
        assert_eq!(erf(f32::INFINITY), 1.0);
        assert_eq!(erf(f32::NEG_INFINITY), -1.0);
        assert_eq!(erf(-0.0).to_bits(), (-0.0_f32).to_bits());
        assert!(erf(f32::NAN).is_nan());
    }
}
