//! Operators on quantized tensors: `QuantizeLinear` and `DequantizeLinear`, integer matrix
//! products and convolutions, and the operators of ONNX Runtime's `com.microsoft` domain that
//! quantized models use; and the block formats of language models, in our own domain.

mod concat;
mod conv;
mod dequantize;
pub(crate) mod dequantize_blocks;
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
mod quantize_blocks;
mod requantize;

use crate::def::OpDef;

/// The domain of ONNX Runtime's own operators.
pub(crate) const MICROSOFT: &str = "com.microsoft";

/// The domain of our own operators: what ONNX has no words for.
pub(crate) const FEWBIT: &str = "ai.fewbit";

pub(super) const DEFS: &[OpDef] = &[
    concat::DEF,
    conv::INTEGER,
    conv::LINEAR,
    conv::LINEAR.domain(MICROSOFT),
    dequantize::DEF,
    dequantize::DEF.domain(MICROSOFT),
    dequantize_blocks::DEF,
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
    quantize_blocks::DEF,
];
