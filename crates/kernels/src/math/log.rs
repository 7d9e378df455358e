//! The natural logarithm.

use super::horner;

/// `(ln(1 + f) - f + f^2 / 2) / f^3` for `sqrt(1/2) <= 1 + f <= sqrt(2)`, minimax for the
/// relative error of `ln(1 + f)` (5.8e-9, 0.05 ULP).
const TAIL: [f32; 8] = [
    3.333_333e-1,
    -2.500_082e-1,
    2.000_122_7e-1,
    -1.662_336_1e-1,
    1.420_178_1e-1,
    -1.316_016_9e-1,
    1.276_141_4e-1,
    -7.634_33e-2,
];

const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// The bits of sqrt(1/2): where the mantissa's interval begins.
const SQRT_HALF_BITS: u32 = 0x3f35_04f3;

/// `ln(x)`, within 1 ULP; -infinity at 0, NaN below.
#[inline(always)]
pub fn log(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let base = if subnormal { -23 } else { 0 };
    let offset = scaled.to_bits().wrapping_sub(SQRT_HALF_BITS) as i32;
    let exponent = ((offset >> 23) + base) as f32;
    let mantissa = ((offset & 0x007f_ffff) as u32).wrapping_add(SQRT_HALF_BITS);
    let f = f32::from_bits(mantissa) - 1.0;
    let y = finish(f, exponent);
    if x > 0.0 && x < f32::INFINITY {
        y
    } else if x == 0.0 {
        f32::NEG_INFINITY
    } else if x < 0.0 {
        f32::NAN
    } else {
        x
    }
}

/// `ln(1 + f) + exponent * ln(2)`, small terms first.
#[inline(always)]
fn finish(f: f32, exponent: f32) -> f32 {
    let square = f * f;
    let cubic = f * square * horner(f, &TAIL);
    let low = exponent.mul_add(LN2_LOW, cubic);
    let low = square.mul_add(-0.5, low);
    exponent.mul_add(LN2_HIGH, f + low)
}

/// `ln(1 + u)` for `u` from 0 to 1, within 2 ULP; NaN stays NaN.
#[inline(always)]
pub fn log1p_unit(u: f32) -> f32 {
    let sum = 1.0 + u;
    // What the addition rounded away, divided by the slope's reciprocal.
    let lost = u - (sum - 1.0);
    log(sum) + lost / sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::accuracy::{assert_ulp, dense};

    #[test]
    fn log_is_within_one_ulp() {
        for (low, high) in [(1e-38, 1e-30), (1e-6, 0.5), (0.5, 2.0), (2.0, 1e4), (1e4, 3e38)] {
            assert_ulp("log", 1.0, log, f64::ln, dense(low, high));
        }
        assert_ulp("log", 1.0, log, f64::ln, (1..100_000).map(f32::from_bits));
    }

    #[test]
    fn log_ends() {
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert_eq!(log(-0.0), f32::NEG_INFINITY);
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert_eq!(log(1.0), 0.0);
        for x in [-1.0, f32::NEG_INFINITY, f32::NAN] {
            assert!(log(x).is_nan());
        }
    }

    #[test]
    fn log1p_is_within_two_ulp() {
        assert_ulp("log1p", 2.0, log1p_unit, f64::ln_1p, dense(0.0, 1.0));
        assert_ulp("log1p", 2.0, log1p_unit, f64::ln_1p, dense(1e-9, 1e-3));
    }
}
