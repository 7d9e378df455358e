//! Operators on quantized tensors: `QuantizeLinear` and `DequantizeLinear`, integer matrix
//! products and convolutions, and the operators of ONNX Runtime's `com.microsoft` domain that
//! quantized models use.

mod concat;
mod conv;
mod dequantize;
mod dynamic;
mod elementwise;
mod exact;
mod gather_block;
mod gemm;
mod layout;
mod linear;
mod matmul;
mod matmul_nbits;
mod patches;
mod pool;
mod requantize;

use crate::def::OpDef;

pub(super) const MICROSOFT: &str = "com.microsoft";

pub(super) const DEFS: &[OpDef] = &[
    concat::DEF,
    conv::INTEGER,
    conv::LINEAR,
    conv::LINEAR.domain(MICROSOFT),
    dequantize::DEF,
    dequantize::DEF.domain(MICROSOFT),
    dynamic::DEF,
    elementwise::ADD,
    elementwise::LEAKY_RELU,
    elementwise::MUL,
    elementwise::SIGMOID,
    elementwise::SOFTMAX,
    gather_block::DEF,
    gemm::DEF,
    linear::DEF,
    linear::DEF.domain(MICROSOFT),
    matmul::DYNAMIC,
    matmul::INTEGER,
    matmul::LINEAR,
    matmul::TO_FLOAT,
    matmul_nbits::DEF,
    pool::AVERAGE,
    pool::GLOBAL,
];
