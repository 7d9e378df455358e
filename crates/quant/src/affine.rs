//! Scale and zero point: the affine map between codes and real values.

use crate::observer::Range;
use fewbit_core::{QuantScheme, ZeroPoint};

/// `real = (code - zero_point) * scale`, with codes in `low..=high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Real size of one step; positive and finite.
    pub scale: f32,
    /// Code of the real value 0.
    pub zero_point: i32,
    low: i32,
    high: i32,
}

impl Affine {
    /// The map that covers `range` with the codes of `scheme`.
    ///
    /// Asymmetric: `scale = (high - low) / steps`, `zero_point = round(code_low - low / scale)`.
    /// Symmetric: the larger magnitude at the outermost code. A range of nothing gets scale 1.
    pub fn from_range(range: Range, scheme: &QuantScheme) -> Self {
        let (low, high) = scheme.code_range();
        let (span, steps, zero_point) = match scheme.zero_point {
            ZeroPoint::Symmetric => {
                let zero = scheme.symmetric_zero_point();
                (range.high.max(-range.low), (high - zero) as f32, Some(zero))
            }
            ZeroPoint::Asymmetric => (range.high - range.low, (high - low) as f32, None),
        };
        let scale = span / steps;
        // Subnormal scales lose precision and their reciprocals overflow.
        let scale = if scale.is_normal() {
            scale
        } else if scale.is_infinite() {
            f32::MAX / steps
        } else {
            1.0
        };
        let asymmetric = || (low as f32 - range.low / scale).round_ties_even() as i32;
        let zero_point = zero_point.unwrap_or_else(asymmetric).clamp(low, high);
        Affine { scale, zero_point, low, high }
    }

    /// The map with the given scale and zero point and the codes of `scheme`.
    pub fn new(scale: f32, zero_point: i32, scheme: &QuantScheme) -> Self {
        let (low, high) = scheme.code_range();
        Affine { scale, zero_point, low, high }
    }

    /// Code of a value: nearest, ties to even, saturating (ONNX `QuantizeLinear`).
    pub fn code(&self, value: f32) -> i32 {
        let rounded = (value / self.scale).round_ties_even() as i32;
        rounded.saturating_add(self.zero_point).clamp(self.low, self.high)
    }

    /// Real value of a code (ONNX `DequantizeLinear`).
    pub fn value(&self, code: i32) -> f32 {
        (code - self.zero_point) as f32 * self.scale
    }

    /// What quantization makes of a value.
    pub fn round_trip(&self, value: f32) -> f32 {
        self.value(self.code(value))
    }

    /// Whether a value lies more than half a step outside the codes.
    pub fn clips(&self, value: f32) -> bool {
        let position = (value / self.scale).round_ties_even() + self.zero_point as f32;
        position < self.low as f32 || position > self.high as f32
    }

    /// Number of codes.
    pub fn levels(&self) -> usize {
        (self.high - self.low + 1) as usize
    }

    /// Position of a value's code among all codes, from 0.
    pub fn level(&self, value: f32) -> usize {
        (self.code(value) - self.low) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_the_ends_are_covered() {
        for (low, high) in [(0.0, 6.0), (-1.0, 3.0), (-2.5, 0.0), (0.0, 0.0), (-1e-30, 1e30)] {
            let affine = Affine::from_range(Range::around(low, high), &QuantScheme::U8_TENSOR);
            assert_eq!(affine.round_trip(0.0), 0.0);
            assert!((affine.round_trip(high) - high).abs() <= affine.scale * 0.51, "{low} {high}");
            assert!((affine.round_trip(low) - low).abs() <= affine.scale * 0.51, "{low} {high}");
        }
    }

    #[test]
    fn symmetric_signed_codes_centre_on_zero() {
        let affine = Affine::from_range(Range { low: -2.0, high: 1.0 }, &QuantScheme::I8_TENSOR);
        assert_eq!((affine.zero_point, affine.code(-2.0), affine.code(1.0)), (0, -127, 64));
    }
}
