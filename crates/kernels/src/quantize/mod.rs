//! Between numbers and codes: quantization, dequantization, tables, arithmetic on codes, and the
//! statistics that calibration needs.
//!
//! A code `q` stands for the number `(q - zero_point) scale`; this is ONNX's definition. The
//! three steps (integer difference, exact conversion, one rounded product) are the same in every
//! kernel here, so a kernel on codes gives what the float kernel gives between a dequantization
//! and a quantization, bit for bit.

mod arithmetic;
mod code;
mod convert;
mod dynamic;
mod observe;
mod table;

pub use arithmetic::binary_codes;
pub use code::{Affine, Byte, Code, Integer, Quantizer};
pub use convert::{
    dequantize, dequantize_broadcast, fake_quantize, fake_quantize_broadcast, quantize,
    quantize_broadcast, quantize_i32,
};
pub use dynamic::dynamic_range;
pub use observe::{Extent, Moments, column_sums, extent, histogram, moments};
pub use table::{byte_table, lookup};
