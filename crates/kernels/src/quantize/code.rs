//! What a code means, and how a number becomes one.

use crate::math::{ROUND, clip};

/// An integer that can be dequantized.
pub trait Integer: Copy + Send + Sync + 'static {
    /// The value as `i32`.
    fn widen(self) -> i32;
}

/// An integer that numbers are quantized to.
pub trait Code: Integer {
    /// The smallest code.
    const MIN: i32;
    /// The largest code.
    const MAX: i32;
    /// The code of value `value`, which is in `MIN..=MAX`.
    fn narrow(value: i32) -> Self;
}

/// A code of one byte.
pub trait Byte: Code {
    /// The code with these bits.
    fn from_byte(byte: u8) -> Self;
    /// The bits.
    fn to_byte(self) -> u8;
}

macro_rules! codes {
    ($($t:ty)*) => {$(
        impl Integer for $t {
            #[inline(always)]
            fn widen(self) -> i32 {
                self.into()
            }
        }

        impl Code for $t {
            const MIN: i32 = <$t>::MIN as i32;
            const MAX: i32 = <$t>::MAX as i32;
            #[inline(always)]
            fn narrow(value: i32) -> $t {
                value as $t
            }
        }
    )*};
}

codes!(u8 i8 u16 i16);

impl Integer for i32 {
    #[inline(always)]
    fn widen(self) -> i32 {
        self
    }
}

macro_rules! bytes {
    ($($t:ty)*) => {$(
        impl Byte for $t {
            #[inline(always)]
            fn from_byte(byte: u8) -> $t {
                byte as $t
            }
            #[inline(always)]
            fn to_byte(self) -> u8 {
                self as u8
            }
        }
    )*};
}

bytes!(u8 i8);

/// What codes stand for: `(code - zero_point) scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// The step between neighbouring codes.
    pub scale: f32,
    /// The code that stands for 0.
    pub zero_point: i32,
}

impl Affine {
    /// The number that `code` stands for. The difference wraps where it leaves `i32`.
    #[inline(always)]
    pub fn dequantize(self, code: i32) -> f32 {
        code.wrapping_sub(self.zero_point) as f32 * self.scale
    }
}

/// How numbers become codes: `clamp(round(x / scale) + zero_point, min, max)`.
///
/// The quotient is a true division and halves round to even, as ONNX defines. NaN (and `0 / 0`)
/// becomes the zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantizer {
    affine: Affine,
    min: i32,
    max: i32,
    // The bounds before the zero point is added.
    low: f32,
    high: f32,
}

impl Quantizer {
    /// Saturates at the ends of `T`.
    ///
    /// # Panics
    /// When the zero point is no code of `T`.
    pub fn of<T: Code>(affine: Affine) -> Quantizer {
        Quantizer::with_range(affine, T::MIN, T::MAX)
    }

    /// Saturates at `min` and `max`: for codes of fewer bits than their storage, or for a fused
    /// activation.
    ///
    /// # Panics
    /// When a bound or the zero point has more than 16 bits, or `min > max`.
    pub fn with_range(affine: Affine, min: i32, max: i32) -> Quantizer {
        let limit = i32::from(i16::MIN)..=i32::from(u16::MAX);
        let fits = [min, max, affine.zero_point].iter().all(|v| limit.contains(v));
        assert!(fits && min <= max, "codes {min}..={max} around {affine:?} are not of 16 bits");
        Quantizer {
            affine,
            min,
            max,
            low: (min - affine.zero_point) as f32,
            high: (max - affine.zero_point) as f32,
        }
    }

    /// Clips numbers to `low..=high` first: since rounding is monotone this only narrows the
    /// codes, so a fused ReLU or clip costs nothing.
    #[must_use]
    pub fn clipped(self, low: f32, high: f32) -> Quantizer {
        let max = self.code(high);
        Quantizer::with_range(self.affine, self.code(low).min(max), max)
    }

    /// What the codes stand for.
    pub fn affine(self) -> Affine {
        self.affine
    }

    /// The smallest and the largest code that come out.
    pub fn range(self) -> (i32, i32) {
        (self.min, self.max)
    }

    /// The code of `x`: the definition that all kernels follow.
    #[inline(always)]
    pub fn code(self, x: f32) -> i32 {
        let steps = x / self.affine.scale;
        let steps = if steps.is_nan() { 0.0 } else { steps };
        // The bounds are integers, so limiting before rounding changes nothing; and the sum
        // leaves the rounded integer in the low bits.
        let shifted = clip(steps, self.low, self.high) + ROUND;
        (shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32)
            .wrapping_add(self.affine.zero_point)
    }

    /// The number that the code of `x` stands for.
    #[inline(always)]
    pub fn fake_quantize(self, x: f32) -> f32 {
        self.affine.dequantize(self.code(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u8_codes(scale: f32, zero_point: i32) -> Quantizer {
        Quantizer::of::<u8>(Affine { scale, zero_point })
    }

    #[test]
    fn codes_follow_the_onnx_definition() {
        let mut x = -200.0_f32;
        while x < 200.0 {
            for (scale, zero_point) in [(0.5, 128), (0.731, 3), (1.0, 0), (0.01, 255)] {
                let expected = (x / scale).round_ties_even() + zero_point as f32;
                let expected = expected.clamp(0.0, 255.0) as i32;
                assert_eq!(u8_codes(scale, zero_point).code(x), expected, "{x} by {scale}");
            }
            x += 0.037;
        }
    }

    #[test]
    fn halves_round_to_even() {
        let codes = [0.5, 1.5, 2.5, -0.5].map(|x| u8_codes(1.0, 10).code(x));
        assert_eq!(codes, [10, 12, 12, 10]);
    }

    #[test]
    fn special_values_saturate() {
        let quantizer = u8_codes(0.1, 7);
        let values = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3e38, -0.0];
        assert_eq!(values.map(|x| quantizer.code(x)), [255, 0, 7, 255, 7]);
        assert_eq!(u8_codes(0.0, 7).code(0.0), 7);
        assert_eq!(u8_codes(f32::NAN, 7).code(1.0), 7);
    }

    #[test]
    fn sixteen_bits_round_exactly() {
        let affine = Affine { scale: 1.0, zero_point: 65_535 };
        let quantizer = Quantizer::of::<u16>(affine);
        for x in [-65_535.0, -65_534.5, -1.5, -0.4, 0.0] {
            assert_eq!(quantizer.code(x), x.round_ties_even() as i32 + 65_535);
        }
    }

    #[test]
    fn clipping_narrows_the_codes() {
        let plain = u8_codes(0.02, 100);
        let relu6 = plain.clipped(0.0, 6.0);
        assert_eq!(relu6.range(), (100, 255));
        for i in -1000..1000 {
            let x = i as f32 * 0.01;
            assert_eq!(relu6.code(x), plain.code(x.clamp(0.0, 6.0)));
        }
    }

    #[test]
    fn a_zero_point_outside_of_the_codes_still_saturates() {
        let quantizer = Quantizer::with_range(Affine { scale: 1.0, zero_point: 0 }, 3, 9);
        assert_eq!([0.0, 5.0, 50.0].map(|x| quantizer.code(x)), [3, 5, 9]);
    }
}
