//! Element types, sub-byte ones included. A `DType` carries no parameters.

use crate::error::{Error, Result};
use std::fmt;

/// Declares the enum and its tables in one place: variant, text name, bits, ONNX `TensorProto.DataType`.
macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $bits:literal $onnx:literal;)*) => {
        /// Type of one element of a [`Tensor`](crate::Tensor).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType { $($(#[$doc])* $variant,)* }

        impl DType {
            /// Every type, in the order of declaration.
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];

            /// Short lower-case name used in recipes, reports and messages.
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }

            /// Storage bits of one element; 0 for strings, which have no fixed size.
            pub fn bits(self) -> usize {
                match self { $(DType::$variant => $bits,)* }
            }

            /// `TensorProto.DataType` of the ONNX specification.
            pub fn to_onnx(self) -> i32 {
                match self { $(DType::$variant => $onnx,)* }
            }

            /// The inverse of [`to_onnx`](DType::to_onnx).
            pub fn from_onnx(code: i32) -> Option<DType> {
                match code { $($onnx => Some(DType::$variant),)* _ => None }
            }
        }
    };
}

dtypes! {
    /// IEEE 754 binary32.
    F32 "f32" 32 1;
    /// Unsigned 8-bit integer.
    U8 "u8" 8 2;
    /// Signed 8-bit integer.
    I8 "i8" 8 3;
    /// Unsigned 16-bit integer.
    U16 "u16" 16 4;
    /// Signed 16-bit integer.
    I16 "i16" 16 5;
    /// Signed 32-bit integer.
    I32 "i32" 32 6;
    /// Signed 64-bit integer.
    I64 "i64" 64 7;
    /// Byte strings; passed through, never computed with.
    String "string" 0 8;
    /// One byte, 0 or 1.
    Bool "bool" 8 9;
    /// IEEE 754 binary16.
    F16 "f16" 16 10;
    /// IEEE 754 binary64.
    F64 "f64" 64 11;
    /// Unsigned 32-bit integer.
    U32 "u32" 32 12;
    /// Unsigned 64-bit integer.
    U64 "u64" 64 13;
    /// Two binary32: real, imaginary.
    C64 "c64" 64 14;
    /// Two binary64: real, imaginary.
    C128 "c128" 128 15;
    /// bfloat16: the upper half of a binary32.
    BF16 "bf16" 16 16;
    /// OCP FP8 E4M3, finite and NaN only.
    F8E4M3FN "f8e4m3fn" 8 17;
    /// FP8 E4M3 with bias 8, no negative zero.
    F8E4M3FNUZ "f8e4m3fnuz" 8 18;
    /// OCP FP8 E5M2 with infinities.
    F8E5M2 "f8e5m2" 8 19;
    /// FP8 E5M2 with bias 16, no negative zero, no infinities.
    F8E5M2FNUZ "f8e5m2fnuz" 8 20;
    /// Unsigned 4-bit integer, two per byte, first in the low nibble.
    U4 "u4" 4 21;
    /// Signed 4-bit integer, two per byte, first in the low nibble.
    I4 "i4" 4 22;
    /// FP4 E2M1 of the OCP microscaling formats, two per byte.
    F4E2M1 "f4e2m1" 4 23;
    /// Power-of-two scale E8M0 of the OCP microscaling formats.
    F8E8M0 "f8e8m0" 8 24;
    /// Unsigned 2-bit integer, four per byte, first in the low bits.
    U2 "u2" 2 25;
    /// Signed 2-bit integer, four per byte, first in the low bits.
    I2 "i2" 2 26;
}

impl DType {
    /// Bytes that `count` elements take, sub-byte types packed; `None` on overflow or for strings.
    pub fn bytes_for(self, count: usize) -> Option<usize> {
        if self == DType::String {
            return None;
        }
        match self.bits() {
            bits if bits >= 8 => count.checked_mul(bits / 8),
            bits => Some(count.div_ceil(8 / bits)),
        }
    }

    /// Whole bytes of one element, `None` for sub-byte types and strings.
    pub fn size(self) -> Option<usize> {
        match self.bits() {
            bits if bits >= 8 => Some(bits / 8),
            _ => None,
        }
    }

    /// Whether several elements share a byte.
    pub fn is_sub_byte(self) -> bool {
        matches!(self.bits(), 1..8)
    }

    /// Whether this is one of the floating-point types (complex ones excluded).
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(
            self,
            F32 | F16 | BF16 | F64 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0
        )
    }

    /// Whether this is an integer type (`Bool` excluded).
    pub fn is_int(self) -> bool {
        self.int_range().is_some()
    }

    /// Smallest and largest value of an integer type, widened to `i128`.
    pub fn int_range(self) -> Option<(i128, i128)> {
        use DType::*;
        let signed = |bits: u32| Some((-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1));
        let unsigned = |bits: u32| Some((0, (1i128 << bits) - 1));
        match self {
            I2 | I4 | I8 | I16 | I32 | I64 => signed(self.bits() as u32),
            U2 | U4 | U8 | U16 | U32 | U64 => unsigned(self.bits() as u32),
            _ => None,
        }
    }

    /// Whether this is a signed integer type.
    pub fn is_signed_int(self) -> bool {
        self.int_range().is_some_and(|(lo, _)| lo < 0)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for DType {
    type Err = Error;

    fn from_str(text: &str) -> Result<DType> {
        let found = DType::ALL.iter().find(|d| d.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = DType::ALL.iter().map(|d| d.name()).collect();
            Error::usage(format!("unknown element type `{text}`"))
                .hint(format!("known types: {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_round_trip() {
        for &d in DType::ALL {
            assert_eq!(d.name().parse::<DType>().unwrap(), d);
            assert_eq!(DType::from_onnx(d.to_onnx()), Some(d));
        }
    }

    #[test]
    fn sub_byte_sizes_round_up() {
        assert_eq!(DType::I4.bytes_for(3), Some(2));
        assert_eq!(DType::U2.bytes_for(5), Some(2));
        assert_eq!(DType::F64.bytes_for(usize::MAX), None);
    }

    #[test]
    fn ranges() {
        assert_eq!(DType::I8.int_range(), Some((-128, 127)));
        assert_eq!(DType::U4.int_range(), Some((0, 15)));
        assert_eq!(DType::F16.int_range(), None);
    }
}
