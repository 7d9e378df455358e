//! The quantization scheme: how one tensor is stored, as a small hashable value without floats.

use crate::dtype::DType;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Which elements share one scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// One scale for the whole tensor.
    Tensor,
    /// One scale for each index along an axis (negative counts from the back).
    Axis(i32),
    /// One scale for each run of `size` elements along an axis.
    Block {
        /// The axis that is cut into blocks.
        axis: i32,
        /// Elements in one block.
        size: u32,
    },
}

/// Whether the real value 0 sits at code 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZeroPoint {
    /// The zero point is 0 (128 for `U8`): the range is symmetric around zero.
    Symmetric,
    /// The zero point is chosen from the data.
    Asymmetric,
}

/// Which codes are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeRange {
    /// All codes of the storage type.
    Full,
    /// Without the lowest signed code: -127..127 for `I8`, so that negation stays exact.
    Narrow,
}

/// How a tensor is quantized.
///
/// Text form, used in recipes, reports and messages:
/// `storage:granularity:zero[:narrow][:scale]`, for example `i8:axis(0):sym:narrow`,
/// `u8:tensor:asym` or `i4:block(1,32):sym:f16`. The scale type is left out when it is `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantScheme {
    /// Type of the stored codes.
    pub storage: DType,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// Symmetric or not.
    pub zero_point: ZeroPoint,
    /// Codes in use.
    pub range: CodeRange,
    /// Type in which scales are stored.
    pub scale: DType,
}

impl QuantScheme {
    /// Activations as unsigned bytes, asymmetric, one scale for the tensor.
    pub const U8_TENSOR: Self = Self::new(DType::U8, Granularity::Tensor, ZeroPoint::Asymmetric);
    /// Activations as signed bytes, symmetric, one scale for the tensor.
    pub const I8_TENSOR: Self = Self::new(DType::I8, Granularity::Tensor, ZeroPoint::Symmetric);

    /// A scheme with the full code range and `f32` scales.
    pub const fn new(storage: DType, granularity: Granularity, zero_point: ZeroPoint) -> Self {
        QuantScheme { storage, granularity, zero_point, range: CodeRange::Full, scale: DType::F32 }
    }

    /// Weights as signed bytes -127..127, symmetric, one scale for each index of `axis`.
    pub const fn i8_weights(axis: i32) -> Self {
        let scheme = Self::new(DType::I8, Granularity::Axis(axis), ZeroPoint::Symmetric);
        QuantScheme { range: CodeRange::Narrow, ..scheme }
    }

    /// Smallest and largest code in use; `(0, 0)` for float storage, which has no codes.
    pub fn code_range(&self) -> (i32, i32) {
        let (lo, hi) = self.storage.int_range().unwrap_or((0, 0));
        let narrow = self.range == CodeRange::Narrow && lo < 0;
        (lo as i32 + narrow as i32, hi as i32)
    }

    /// The zero point of a symmetric scheme: 0, or the middle code of an unsigned type.
    pub fn symmetric_zero_point(&self) -> i32 {
        match self.storage.int_range() {
            Some((0, hi)) => ((hi + 1) / 2) as i32,
            _ => 0,
        }
    }
}

impl fmt::Display for QuantScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.storage)?;
        match self.granularity {
            Granularity::Tensor => f.write_str("tensor")?,
            Granularity::Axis(axis) => write!(f, "axis({axis})")?,
            Granularity::Block { axis, size } => write!(f, "block({axis},{size})")?,
        }
        f.write_str(match self.zero_point {
            ZeroPoint::Symmetric => ":sym",
            ZeroPoint::Asymmetric => ":asym",
        })?;
        if self.range == CodeRange::Narrow {
            f.write_str(":narrow")?;
        }
        match self.scale {
            DType::F32 => Ok(()),
            scale => write!(f, ":{scale}"),
        }
    }
}

impl FromStr for QuantScheme {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::usage(format!("quantization scheme `{text}`: {why}"))
                .hint("write it as storage:granularity:zero, for example i8:axis(0):sym:narrow")
        };
        let mut parts = text.split(':');
        let storage = parts.next().unwrap_or("").parse::<DType>()?;
        let granularity = parse_granularity(parts.next().unwrap_or(""))
            .ok_or_else(|| bad("expected tensor, axis(N) or block(AXIS,SIZE)"))?;
        let zero_point = match parts.next() {
            Some("sym") => ZeroPoint::Symmetric,
            Some("asym") => ZeroPoint::Asymmetric,
            _ => return Err(bad("expected sym or asym")),
        };
        let mut scheme = QuantScheme::new(storage, granularity, zero_point);
        for part in parts {
            match part {
                "narrow" => scheme.range = CodeRange::Narrow,
                _ => scheme.scale = part.parse()?,
            }
        }
        if !scheme.scale.is_float() {
            return Err(bad("the scale type must be a float"));
        }
        Ok(scheme)
    }
}

fn parse_granularity(text: &str) -> Option<Granularity> {
    if text == "tensor" {
        return Some(Granularity::Tensor);
    }
    let (kind, arguments) = text.strip_suffix(')')?.split_once('(')?;
    match kind {
        "axis" => Some(Granularity::Axis(arguments.parse().ok()?)),
        "block" => {
            let (axis, size) = arguments.split_once(',')?;
            let size = size.trim().parse().ok().filter(|&s| s > 0)?;
            Some(Granularity::Block { axis: axis.trim().parse().ok()?, size })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["i8:axis(0):sym:narrow", "u8:tensor:asym", "i4:block(1,32):sym:f16"] {
            assert_eq!(text.parse::<QuantScheme>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "i8", "i8:axis:sym", "i8:block(1,0):sym", "i8:tensor:sym:i8", "q9:tensor:sym"]
        {
            assert!(text.parse::<QuantScheme>().is_err(), "{text}");
        }
    }

    #[test]
    fn narrow_range_drops_the_lowest_code() {
        assert_eq!(QuantScheme::i8_weights(0).code_range(), (-127, 127));
        assert_eq!(QuantScheme::U8_TENSOR.code_range(), (0, 255));
    }
}
