//! Rounding to odd (Boldo and Melquiond, 2005): what is cut off stays visible in the last bit, so
//! that rounding again, to at least two digits fewer, gives what rounding once would.

use std::cmp::Ordering;

/// A number in f32, rounded to odd: from `near`, the nearest f32, and how its magnitude compares
/// with that of the number.
pub fn to_odd(near: f32, magnitude: Option<Ordering>) -> f32 {
    let bits = near.to_bits();
    match magnitude {
        Some(Ordering::Less) if bits & 1 == 0 => f32::from_bits(bits + 1),
        Some(Ordering::Greater) if bits & 1 == 0 => f32::from_bits(bits - 1),
        _ => near,
    }
}

/// `value` in f32, rounded to odd.
pub fn f64_to_odd(value: f64) -> f32 {
    let near = value as f32;
    to_odd(near, f64::from(near).abs().partial_cmp(&value.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inexact_numbers_become_odd() {
        let next = f32::from_bits(1.0f32.to_bits() + 1);
        assert_eq!(f64_to_odd(1.0), 1.0);
        assert_eq!(f64_to_odd(1.0 + 1e-12), next);
        assert_eq!(f64_to_odd(-1.0 - 1e-12), -next);
        assert_eq!(f64_to_odd(f64::from(next) + 1e-12), next);
        assert_eq!(f64_to_odd(2.0 - 1e-12), f32::from_bits(2.0f32.to_bits() - 1));
        assert_eq!(f64_to_odd(1e300), f32::MAX);
        assert_eq!(f64_to_odd(1e-300), f32::from_bits(1));
        assert_eq!(f64_to_odd(f64::INFINITY), f32::INFINITY);
        assert!(f64_to_odd(f64::NAN).is_nan());
    }
}
