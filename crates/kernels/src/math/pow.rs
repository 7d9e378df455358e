//! Powers.

/// `1 / (2 k + 1)`: the series of `atanh(s) / s` in `s^2`, enough terms for 48 bits at
/// `s = 3 - 2 sqrt(2)`.
const ATANH: [f64; 9] = [
    1.0,
    1.0 / 3.0,
    1.0 / 5.0,
    1.0 / 7.0,
    1.0 / 9.0,
    1.0 / 11.0,
    1.0 / 13.0,
    1.0 / 15.0,
    1.0 / 17.0,
];

/// `1 / k!`: the series of `e^r`, enough terms for 42 bits at `r = ln(2) / 2`.
const EXP: [f64; 11] = [
    1.0,
    1.0,
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5_040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
];

const SQRT_HALF_BITS: u64 = 0x3fe6_a09e_667f_3bcd;
const MANTISSA: u64 = (1 << 52) - 1;

/// Adding this to a small `f64` leaves its nearest integer (ties to even) in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;

#[inline(always)]
fn horner<const N: usize>(x: f64, coefficients: &[f64; N]) -> f64 {
    let mut sum = coefficients[N - 1];
    for k in (0..N - 1).rev() {
        sum = sum * x + coefficients[k];
    }
    sum
}

/// The binary logarithm of a positive finite `x` that came from an `f32` (so it is normal).
#[inline(always)]
fn log2(x: f64) -> f64 {
    let offset = x.to_bits().wrapping_sub(SQRT_HALF_BITS);
    let exponent = (offset as i64) >> 52;
    let m = f64::from_bits((offset & MANTISSA).wrapping_add(SQRT_HALF_BITS));
    let s = (m - 1.0) / (m + 1.0);
    let log_m = s * horner(s * s, &ATANH) * (2.0 * std::f64::consts::LOG2_E);
    exponent as f64 + log_m
}

/// 2 to the power `t`, for `t` from -300 to 300.
#[inline(always)]
fn exp2(t: f64) -> f64 {
    let shifted = t + ROUND;
    let r = (t - (shifted - ROUND)) * std::f64::consts::LN_2;
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let scale = f64::from_bits(n.wrapping_add(1023) << 52);
    horner(r, &EXP) * scale
}

/// `x` to the power `y` with the special cases of IEEE 754 `pow`, within 1 ULP.
///
/// Computed in `f64` and rounded once, so that powers of small integers come out exact; exponents
/// 2 and 3 are plain products.
#[inline(always)]
pub fn pow(x: f32, y: f32) -> f32 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if y == 2.0 {
        return x * x;
    }
    if y == 3.0 {
        let x = f64::from(x);
        return (x * x * x) as f32;
    }
    let whole = y.trunc() == y;
    // From 2^24 on, every f32 is an even number.
    let odd = whole && y.abs() < 16_777_216.0 && (y as i32) & 1 == 1;
    let size = magnitude(f64::from(x.abs()), f64::from(y)) as f32;
    let negative = x.is_sign_negative();
    if x < 0.0 && !whole && x != f32::NEG_INFINITY {
        f32::NAN
    } else if negative && odd {
        -size
    } else {
        size
    }
}

/// `base` to the power `y` for a base that is not negative.
#[inline(always)]
fn magnitude(base: f64, y: f64) -> f64 {
    if base == 1.0 {
        return if y.is_nan() { y } else { 1.0 };
    }
    let log = if base == 0.0 {
        f64::NEG_INFINITY
    } else if base == f64::INFINITY || base.is_nan() {
        base
    } else {
        log2(base)
    };
    let t = y * log;
    let limited = if t > 300.0 { 300.0 } else { t };
    let limited = if limited < -300.0 { -300.0 } else { limited };
    exp2(limited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::accuracy::{assert_ulp, dense};

    #[test]
    fn pow_is_within_one_ulp() {
        for y in [0.1_f32, 0.333, 0.5, 1.5, 2.0, 2.2, 7.7, -0.5, -1.0, -3.3] {
            let exact = |x: f64| x.powf(f64::from(y));
            assert_ulp("pow", 0.51, |x| pow(x, y), exact, dense(0.05, 100.0));
        }
        assert_ulp("cube", 0.51, |x| pow(x, 3.0), |x| x.powi(3), dense(0.05, 100.0));
        for x in [0.01_f32, 0.9, 1.1, 10.0] {
            let exact = |y: f64| f64::from(x).powf(y);
            assert_ulp("pow", 0.51, |y| pow(x, y), exact, dense(-15.0, 15.0));
        }
    }

    #[test]
    fn pow_of_special_values_is_that_of_the_standard_library() {
        let inf = f32::INFINITY;
        let values = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            2.0,
            -2.0,
            3.0,
            -3.0,
            2.5,
            -2.5,
            inf,
            -inf,
            f32::NAN,
            1e30,
            -1e30,
            1e-30,
            16_777_215.0,
            16_777_216.0,
        ];
        for x in values {
            for y in values {
                let (ours, theirs) = (pow(x, y), x.powf(y));
                let same = ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan();
                assert!(same, "pow({x}, {y}) = {ours}, not {theirs}");
            }
        }
    }

    #[test]
    fn small_integer_powers_are_exact() {
        for x in -40_i32..40 {
            assert_eq!(pow(x as f32, 2.0), (x * x) as f32);
            assert_eq!(pow(x as f32, 3.0), (x * x * x) as f32);
        }
    }
}
