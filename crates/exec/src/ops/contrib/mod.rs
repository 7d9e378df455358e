//! Operators of ONNX Runtime's `com.microsoft` domain that its optimizer puts into transformers.
//! Source: the `ContribOperators.md` of ONNX Runtime.

mod embed;
mod fused;
mod gelu;
mod grouped;
mod multi_head;
mod padding;
mod rotary;
mod skip_norm;
mod standard;

use crate::def::OpDef;

const MICROSOFT: &str = "com.microsoft";

pub(super) const DEFS: &[OpDef] = &[
    embed::DEF,
    embed::ON_CODES,
    fused::ATTENTION,
    fused::CONV,
    fused::GEMM,
    fused::MATMUL,
    fused::Q_ATTENTION,
    fused::TRANSPOSE_MATMUL,
    gelu::BIAS,
    gelu::EXACT,
    gelu::FAST,
    gelu::QUICK,
    grouped::DEF,
    multi_head::DEF,
    rotary::DEF,
    skip_norm::SIMPLIFIED,
    skip_norm::SIMPLIFIED_MICROSOFT,
    skip_norm::SKIP_LAYER,
    skip_norm::SKIP_SIMPLIFIED,
];
