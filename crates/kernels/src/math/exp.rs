//! The exponential function.

use super::{clip, horner};

/// `(e^r - 1 - r) / r^2` on `|r| <= ln(2) / 2`, minimax for the relative error of `e^r`
/// (3.1e-9, 0.03 ULP).
const TAIL: [f32; 5] =
    [4.999_999_4e-1, 1.666_652_1e-1, 4.166_838_5e-2, 8.368_71e-3, 1.381_464_3e-3];

/// ln(2) in two parts; the first has trailing zero bits (Cody and Waite's reduction).
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// Adding this to a small `f32` leaves its nearest integer (ties to even) in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// Beyond these arguments `e^x` is infinite, or rounds to zero.
const HIGHEST: f32 = 89.0;
const LOWEST: f32 = -104.0;

/// `x = n ln 2 + r` as the rounded quotient's bits `n` and the remainder `r`.
#[inline(always)]
fn reduce(x: f32) -> (i32, f32) {
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let bits = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    (bits as i32, r)
}

/// 2 to the power `n`, for -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `e^x`, within 1 ULP; subnormal results are rounded once more.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (n, r) = reduce(clip(x, LOWEST, HIGHEST));
    let fraction = (r * r).mul_add(horner(r, &TAIL), r) + 1.0;
    // Two factors, because 2^n itself may be out of range where the result is not.
    let half = n >> 1;
    fraction * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `e^x - 1` for `x` up to 88, without the cancellation near 0; within 2 ULP. Infinite above 88.
#[inline(always)]
pub fn exp_m1(x: f32) -> f32 {
    let (n, r) = reduce(clip(x, -30.0, 88.0));
    let fraction = (r * r).mul_add(horner(r, &TAIL), r);
    let scale = power_of_two(n);
    let y = fraction.mul_add(scale, scale - 1.0);
    if x > 88.0 { f32::INFINITY } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::accuracy::{assert_ulp, dense};

    #[test]
    fn exp_is_within_one_ulp() {
        assert_ulp("exp", 1.0, exp, f64::exp, dense(-87.0, 88.7));
    }

    #[test]
    fn exp_ends() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(88.8), f32::INFINITY);
        assert_eq!(exp(-110.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        let subnormal = f64::from(exp(-100.0));
        assert!((subnormal / (-100.0_f64).exp() - 1.0).abs() < 0.02);
    }

    #[test]
    fn exp_m1_is_within_two_ulp() {
        assert_ulp("exp_m1", 2.0, exp_m1, f64::exp_m1, dense(-40.0, 88.0));
        assert_ulp("exp_m1", 2.0, exp_m1, f64::exp_m1, dense(-1e-3, 1e-3));
        assert_eq!(exp_m1(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp_m1(f32::NEG_INFINITY), -1.0);
        assert!(exp_m1(f32::NAN).is_nan());
    }
}
