//! Small floating-point formats: FP8 (Micikevicius et al. 2022; ONNX "Float stored in 8 bits"),
//! FP4 E2M1 and the E8M0 scale (OCP Microscaling Formats 1.0).

use crate::dtype::DType;

/// What the codes at the top of the range mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Specials {
    /// All codes are finite.
    None,
    /// Only the all-ones code (either sign) is NaN.
    NanOnly,
    /// As IEEE: the top exponent holds infinities and NaN.
    Ieee,
    /// Negative zero is the one NaN.
    Unsigned,
}

/// A sign-magnitude floating-point format of at most 8 bits.
#[derive(Clone, Copy)]
pub struct MiniFloat {
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    specials: Specials,
}

impl MiniFloat {
    /// FP4 E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
    pub const E2M1: Self = Self::new(2, 1, 1, Specials::None);
    /// FP8 E4M3FN, largest value 448.
    pub const E4M3FN: Self = Self::new(4, 3, 7, Specials::NanOnly);
    /// FP8 E4M3FNUZ, largest value 240.
    pub const E4M3FNUZ: Self = Self::new(4, 3, 8, Specials::Unsigned);
    /// FP8 E5M2, largest value 57344.
    pub const E5M2: Self = Self::new(5, 2, 15, Specials::Ieee);
    /// FP8 E5M2FNUZ, largest value 57344.
    pub const E5M2FNUZ: Self = Self::new(5, 2, 16, Specials::Unsigned);

    const fn new(exponent_bits: u32, mantissa_bits: u32, bias: i32, specials: Specials) -> Self {
        MiniFloat { exponent_bits, mantissa_bits, bias, specials }
    }

    /// The format behind an element type.
    pub fn of(dtype: DType) -> Option<Self> {
        Some(match dtype {
            DType::F8E4M3FN => Self::E4M3FN,
            DType::F8E4M3FNUZ => Self::E4M3FNUZ,
            DType::F8E5M2 => Self::E5M2,
            DType::F8E5M2FNUZ => Self::E5M2FNUZ,
            DType::F4E2M1 => Self::E2M1,
            _ => return None,
        })
    }

    fn sign_bit(self) -> u8 {
        1 << (self.exponent_bits + self.mantissa_bits)
    }

    /// The largest finite code, without sign.
    fn max_code(self) -> u8 {
        let all = self.sign_bit() - 1;
        match self.specials {
            Specials::None | Specials::Unsigned => all,
            Specials::NanOnly => all - 1,
            Specials::Ieee => all - (1 << self.mantissa_bits),
        }
    }

    /// The quiet NaN code of the format. One without NaN has -0 in its place, as the ONNX `Cast`
    /// conformance data has it.
    fn nan_code(self) -> u8 {
        match self.specials {
            Specials::None | Specials::Unsigned => self.sign_bit(),
            Specials::NanOnly | Specials::Ieee => self.sign_bit() - 1,
        }
    }

    /// Value of a code.
    pub fn decode(self, code: u8) -> f32 {
        let magnitude = code & (self.sign_bit() - 1);
        let negative = code & self.sign_bit() != 0;
        if self.specials == Specials::Unsigned && negative && magnitude == 0 {
            return f32::NAN;
        }
        let value = self.decode_magnitude(magnitude);
        if negative { -value } else { value }
    }

    fn decode_magnitude(self, code: u8) -> f32 {
        if code > self.max_code() {
            let infinity = self.max_code() + 1;
            let is_infinity = self.specials == Specials::Ieee && code == infinity;
            return if is_infinity { f32::INFINITY } else { f32::NAN };
        }
        let exponent = (code >> self.mantissa_bits) as i32;
        let mantissa = (code & ((1 << self.mantissa_bits) - 1)) as f32;
        let unit = 2f32.powi(-(self.mantissa_bits as i32));
        match exponent {
            0 => mantissa * unit * 2f32.powi(1 - self.bias),
            _ => (1.0 + mantissa * unit) * 2f32.powi(exponent - self.bias),
        }
    }

    /// Nearest code, ties to even. Out of range: the largest value when `saturate`,
    /// otherwise infinity or NaN, as the ONNX `Cast` specification lists.
    pub fn encode(self, value: f32, saturate: bool) -> u8 {
        if value.is_nan() {
            return self.nan_code();
        }
        let magnitude = self.nearest_magnitude(value.abs(), saturate);
        if magnitude == self.nan_code() && self.specials == Specials::Unsigned {
            return magnitude;
        }
        let negative = value.is_sign_negative();
        // The formats without negative zero would read it as NaN.
        if negative && !(magnitude == 0 && self.specials == Specials::Unsigned) {
            magnitude | self.sign_bit()
        } else {
            magnitude
        }
    }

    fn nearest_magnitude(self, value: f32, saturate: bool) -> u8 {
        let max = self.max_code();
        let largest = self.decode_magnitude(max);
        // Half a step above the largest value still rounds down to it.
        let step = largest - self.decode_magnitude(max - 1);
        if value > largest + step / 2.0 || (value == largest + step / 2.0 && max & 1 == 1) {
            return self.overflow(saturate);
        }
        let (mut low, mut high) = (0u8, max);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.decode_magnitude(middle) <= value { low = middle } else { high = middle }
        }
        let below = value - self.decode_magnitude(low);
        let above = self.decode_magnitude(high) - value;
        let up = above < below || (above == below && high & 1 == 0);
        if up { high } else { low }
    }

    fn overflow(self, saturate: bool) -> u8 {
        match self.specials {
            Specials::None => self.max_code(),
            _ if saturate => self.max_code(),
            Specials::Ieee => self.max_code() + 1,
            Specials::NanOnly | Specials::Unsigned => self.nan_code(),
        }
    }
}

/// Value of an E8M0 code: 2^(code - 127); 255 is NaN.
pub fn decode_e8m0(code: u8) -> f32 {
    match code {
        255 => f32::NAN,
        0 => f32::from_bits(0x0040_0000),
        _ => f32::from_bits((code as u32) << 23),
    }
}

/// The nearest power of two as an E8M0 code, ties up; zero and negatives give the smallest.
pub fn encode_e8m0(value: f32) -> u8 {
    if value.is_nan() {
        return 255;
    }
    let bits = value.max(0.0).to_bits();
    let exponent = bits >> 23;
    let round_up = bits & 0x0040_0000 != 0 && exponent > 0;
    (exponent + round_up as u32).min(254) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [MiniFloat; 5] = [
        MiniFloat::E2M1,
        MiniFloat::E4M3FN,
        MiniFloat::E4M3FNUZ,
        MiniFloat::E5M2,
        MiniFloat::E5M2FNUZ,
    ];

    #[test]
    fn finite_codes_round_trip() {
        for format in FORMATS {
            for code in 0..=(format.sign_bit() - 1) * 2 + 1 {
                let value = format.decode(code);
                if value.is_finite() {
                    assert_eq!(format.decode(format.encode(value, true)), value);
                }
            }
        }
    }

    #[test]
    fn largest_values_are_those_of_the_specification() {
        let largest = FORMATS.map(|f| f.decode(f.max_code()));
        assert_eq!(largest, [6.0, 448.0, 240.0, 57344.0, 57344.0]);
    }

    #[test]
    fn ties_go_to_even_and_overflow_saturates() {
        assert_eq!(MiniFloat::E2M1.decode(MiniFloat::E2M1.encode(2.5, true)), 2.0);
        assert_eq!(MiniFloat::E4M3FN.decode(MiniFloat::E4M3FN.encode(1e9, true)), 448.0);
        assert!(MiniFloat::E4M3FN.decode(MiniFloat::E4M3FN.encode(1e9, false)).is_nan());
        assert_eq!(MiniFloat::E5M2.decode(MiniFloat::E5M2.encode(1e9, false)), f32::INFINITY);
    }

    #[test]
    fn e8m0_is_a_power_of_two() {
        assert_eq!(decode_e8m0(127), 1.0);
        assert_eq!(encode_e8m0(1.0), 127);
        assert_eq!(encode_e8m0(1.4), 127);
        assert_eq!(encode_e8m0(1.5), 128);
    }
}
