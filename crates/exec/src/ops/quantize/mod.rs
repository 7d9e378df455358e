//! Operators on quantized tensors: `QuantizeLinear` and `DequantizeLinear`, integer matrix
//! products and convolutions, and the operators of ONNX Runtime's `com.microsoft` domain that
//! quantized models use.

mod dequantize;
mod dynamic;
mod layout;
mod linear;

use crate::def::OpDef;

pub(super) const MICROSOFT: &str = "com.microsoft";

pub(super) const DEFS: &[OpDef] = &[
    dequantize::DEF,
    dequantize::DEF.domain(MICROSOFT),
    dynamic::DEF,
    linear::DEF,
    linear::DEF.domain(MICROSOFT),
];
