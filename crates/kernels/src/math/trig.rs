//! Sine and cosine for every finite argument.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

/// What `FRAC_PI_2` leaves of pi / 2.
const FRAC_PI_2_LOW: f64 = 6.123_233_995_736_766e-17;

/// 2 / pi as a binary fraction, in words of 32 bits from the top.
const TWO_OVER_PI: [u32; 7] =
    [0xa2f9_836e, 0x4e44_1529, 0xfc27_57d1, 0xf534_ddc0, 0xdb62_9599, 0x3c43_9041, 0xfe51_63ab];

/// Below this the quotient by pi / 2 is exact enough in `f64`.
const LARGE: f32 = 268_435_456.0;

/// 1.5 * 2^52: the last bits of its sum with an integer are those of the integer.
const SHIFT: f64 = 6_755_399_441_055_744.0;

/// Whether [`sin_near`] and [`cos_near`] may stand for [`sin`] and [`cos`].
#[inline(always)]
pub(crate) fn is_near(x: f32) -> bool {
    x.abs() < LARGE
}

/// The quadrant of a near `x` (low two bits) and the remainder in `-pi/4..=pi/4`.
#[inline(always)]
fn reduce_near(x: f32) -> (u64, f64) {
    let x = f64::from(x);
    let n = (x * FRAC_2_PI).round_ties_even();
    let r = n.mul_add(-FRAC_PI_2_LOW, n.mul_add(-FRAC_PI_2, x));
    ((n + SHIFT).to_bits(), r)
}

/// Payne and Hanek's reduction: multiplies by just those bits of 2 / pi that matter.
fn reduce_large(x: f32) -> (u64, f64) {
    if !x.is_finite() {
        return (0, f64::NAN);
    }
    let bits = x.to_bits();
    let mantissa = u128::from(bits & 0x007f_ffff | 0x0080_0000);
    // |x| = mantissa * 2^shift. Bits of 2 / pi that make whole turns (weight 4 and up after the
    // shift) fall away; the next 96 are enough.
    let shift = ((bits >> 23) & 0xff) as usize - 150;
    let (word, bit) = ((shift - 2) / 32, (shift - 2) % 32);
    let words = &TWO_OVER_PI[word..word + 4];
    let window = words.iter().fold(0_u128, |sum, &w| sum << 32 | u128::from(w));
    let product = ((window << bit) >> 32) * mantissa;
    let quadrant = (product + (1 << 93)) >> 94;
    let remainder = (product << 34) as i128 as f64 / 2.0_f64.powi(128) * FRAC_PI_2;
    if x < 0.0 {
        ((quadrant as u64).wrapping_neg(), -remainder)
    } else {
        (quadrant as u64, remainder)
    }
}

/// Taylor's series of `sin(r) / r` in `r^2`, to 1e-11 at pi / 4.
#[inline(always)]
fn sine(r: f64) -> f64 {
    let z = r * r;
    let tail = -1.0 / 5_040.0 + z * (1.0 / 362_880.0 - z / 39_916_800.0);
    r + r * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * tail))
}

/// Taylor's series of `cos(r)` in `r^2`, to 1e-12 at pi / 4.
#[inline(always)]
fn cosine(r: f64) -> f64 {
    let z = r * r;
    let tail = 1.0 / 40_320.0 + z * (-1.0 / 3_628_800.0 + z / 479_001_600.0);
    1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * tail)))
}

/// The sine of quadrant and remainder. Both series are computed, so that there is no branch.
#[inline(always)]
fn by_quadrant(quadrant: u64, r: f64) -> f32 {
    let (even, odd) = (sine(r), cosine(r));
    let size = if quadrant & 1 == 0 { even } else { odd };
    (if quadrant & 2 == 0 { size } else { -size }) as f32
}

/// [`sin`] where [`is_near`] holds.
#[inline(always)]
pub(crate) fn sin_near(x: f32) -> f32 {
    let (quadrant, r) = reduce_near(x);
    let sine = by_quadrant(quadrant, r);
    if x == 0.0 { x } else { sine }
}

/// [`cos`] where [`is_near`] holds.
#[inline(always)]
pub(crate) fn cos_near(x: f32) -> f32 {
    let (quadrant, r) = reduce_near(x);
    by_quadrant(quadrant.wrapping_add(1), r)
}

/// `sin(x)`, `x` in radians, within 1 ULP; NaN for an infinite `x`.
pub fn sin(x: f32) -> f32 {
    if is_near(x) {
        return sin_near(x);
    }
    let (quadrant, r) = reduce_large(x);
    by_quadrant(quadrant, r)
}

/// `cos(x)`, `x` in radians, within 1 ULP; NaN for an infinite `x`.
pub fn cos(x: f32) -> f32 {
    if is_near(x) {
        return cos_near(x);
    }
    let (quadrant, r) = reduce_large(x);
    by_quadrant(quadrant.wrapping_add(1), r)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::accuracy::{assert_ulp, dense};

    #[test]
    fn sine_and_cosine_are_within_one_ulp() {
        for (low, high) in [(-8.0, 8.0), (100.0, 1e5), (1e6, 1e9), (1e12, 3e38), (-1e20, -1e9)] {
            assert_ulp("sin", 0.51, sin, f64::sin, dense(low, high));
            assert_ulp("cos", 0.51, cos, f64::cos, dense(low, high));
        }
    }

    #[test]
    fn sine_of_the_ends() {
        assert_eq!(sin(-0.0).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(cos(0.0), 1.0);
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(sin(x).is_nan() && cos(x).is_nan());
        }
    }
}
