//! Numbers that operators compute with, and the choice of one by a tensor's element type.

use fewbit_core::{DType, Element, Error};

/// A number. Integer arithmetic wraps, as in numpy.
pub(crate) trait Number: Element + PartialOrd + Send + Sync {
    const ZERO: Self;
    const ONE: Self;
    /// The identity of the maximum: minus infinity where there is one.
    const LOWEST: Self;
    /// The identity of the minimum: infinity where there is one.
    const HIGHEST: Self;

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// Integers truncate toward zero; an integer divided by zero gives zero, as in numpy.
    fn div(self, other: Self) -> Self;
    /// Remainder with the sign of the dividend (C's `fmod`).
    fn rem_truncated(self, other: Self) -> Self;
    /// Remainder with the sign of the divisor (Python's `%`).
    fn rem_floored(self, other: Self) -> Self;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    fn is_nan(self) -> bool;
    /// Rounds into floats, truncates into integers.
    fn from_f64(value: f64) -> Self;

    /// The smaller; NaN if either is NaN.
    fn smaller(self, other: Self) -> Self {
        if self < other || self.is_nan() { self } else { other }
    }

    /// The larger; NaN if either is NaN.
    fn larger(self, other: Self) -> Self {
        if self > other || self.is_nan() { self } else { other }
    }

    /// -1, 0 or 1; NaN stays.
    fn sign(self) -> Self {
        match self.partial_cmp(&Self::ZERO) {
            Some(std::cmp::Ordering::Greater) => Self::ONE,
            Some(std::cmp::Ordering::Less) => Self::ZERO.sub(Self::ONE),
            _ => self,
        }
    }
}

macro_rules! float_numbers { ($($t:ident)*) => { $(
    impl Number for $t {
        const ZERO: Self = 0.0;
        const ONE: Self = 1.0;
        const LOWEST: Self = $t::NEG_INFINITY;
        const HIGHEST: Self = $t::INFINITY;
        fn add(self, other: Self) -> Self { self + other }
        fn sub(self, other: Self) -> Self { self - other }
        fn mul(self, other: Self) -> Self { self * other }
        fn div(self, other: Self) -> Self { self / other }
        fn rem_truncated(self, other: Self) -> Self { self % other }
        fn rem_floored(self, other: Self) -> Self {
            let rem = self % other;
            if rem != 0.0 && (rem < 0.0) != (other < 0.0) { rem + other } else { rem }
        }
        fn neg(self) -> Self { -self }
        fn abs(self) -> Self { $t::abs(self) }
        fn is_nan(self) -> bool { $t::is_nan(self) }
        fn from_f64(value: f64) -> Self { value as $t }
    }
)* } }
float_numbers! { f32 f64 }

macro_rules! int_numbers { ($($t:ident)*) => { $(
    impl Number for $t {
        const ZERO: Self = 0;
        const ONE: Self = 1;
        const LOWEST: Self = $t::MIN;
        const HIGHEST: Self = $t::MAX;
        fn add(self, other: Self) -> Self { self.wrapping_add(other) }
        fn sub(self, other: Self) -> Self { self.wrapping_sub(other) }
        fn mul(self, other: Self) -> Self { self.wrapping_mul(other) }
        fn div(self, other: Self) -> Self {
            if other == 0 { 0 } else { self.wrapping_div(other) }
        }
        fn rem_truncated(self, other: Self) -> Self {
            if other == 0 { 0 } else { self.wrapping_rem(other) }
        }
        #[allow(unused_comparisons, reason = "one body for signed and unsigned types")]
        fn rem_floored(self, other: Self) -> Self {
            let rem = self.rem_truncated(other);
            if rem != 0 && (rem < 0) != (other < 0) { rem.wrapping_add(other) } else { rem }
        }
        fn neg(self) -> Self { self.wrapping_neg() }
        #[allow(unused_comparisons, reason = "one body for signed and unsigned types")]
        fn abs(self) -> Self { if self < 0 { self.wrapping_neg() } else { self } }
        fn is_nan(self) -> bool { false }
        fn from_f64(value: f64) -> Self { value as $t }
    }
)* } }
int_numbers! { i8 i16 i32 i64 u8 u16 u32 u64 }

/// Evaluates `$body` with `$T` standing for the Rust type of a numeric element type.
macro_rules! for_number {
    ($dtype:expr, $T:ident => $body:expr) => {{
        use fewbit_core::DType;
        match $dtype {
            DType::F32 => { type $T = f32; $body }
            DType::F64 => { type $T = f64; $body }
            dtype => crate::ops::number::for_int!(dtype, $T => $body),
        }
    }};
}
pub(crate) use for_number;

/// As `for_number`, for integer types only.
macro_rules! for_int {
    ($dtype:expr, $T:ident => $body:expr) => {{
        use fewbit_core::DType;
        match $dtype {
            DType::I8 => {
                type $T = i8;
                $body
            }
            DType::I16 => {
                type $T = i16;
                $body
            }
            DType::I32 => {
                type $T = i32;
                $body
            }
            DType::I64 => {
                type $T = i64;
                $body
            }
            DType::U8 => {
                type $T = u8;
                $body
            }
            DType::U16 => {
                type $T = u16;
                $body
            }
            DType::U32 => {
                type $T = u32;
                $body
            }
            DType::U64 => {
                type $T = u64;
                $body
            }
            other => Err(crate::ops::number::unsupported_dtype(other)),
        }
    }};
}
pub(crate) use for_int;

/// The element type is not one this operator computes with.
pub(crate) fn unsupported_dtype(dtype: DType) -> Error {
    Error::unsupported(format!("element type {dtype} is not supported by this operator"))
        .code("FB-4202")
}

/// Two inputs that must have one element type have two.
pub(crate) fn mixed_dtypes(a: DType, b: DType) -> Error {
    Error::bad_input(format!("the inputs have different element types, {a} and {b}"))
        .code("FB-3204")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_and_never_trap() {
        assert_eq!(i8::MIN.div(-1), i8::MIN);
        assert_eq!(i32::MIN.rem_floored(-1), 0);
        assert_eq!(7i64.div(0), 0);
        assert_eq!(Number::abs(i16::MIN), i16::MIN);
        assert_eq!(Number::add(250u8, 10), 4);
    }

    #[test]
    fn remainders_take_their_signs() {
        assert_eq!((-7i32).rem_floored(3), 2);
        assert_eq!((-7i32).rem_truncated(3), -1);
        assert_eq!((-7.5f32).rem_floored(2.0), 0.5);
        assert_eq!(7u8.rem_floored(4), 3);
    }

    #[test]
    fn nan_wins() {
        assert!(f32::NAN.smaller(1.0).is_nan() && 1f32.larger(f32::NAN).is_nan());
        assert!(Number::sign(f64::NAN).is_nan());
    }
}
