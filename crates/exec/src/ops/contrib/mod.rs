//! Operators of ONNX Runtime's `com.microsoft` domain that its optimizer puts into transformers.
//! Source: the `ContribOperators.md` of ONNX Runtime.

mod embed;
mod gelu;
mod skip_norm;

use crate::def::OpDef;

const MICROSOFT: &str = "com.microsoft";

pub(super) const DEFS: &[OpDef] = &[
    embed::DEF,
    gelu::BIAS,
    gelu::EXACT,
    gelu::FAST,
    gelu::QUICK,
    skip_norm::SIMPLIFIED,
    skip_norm::SIMPLIFIED_MICROSOFT,
    skip_norm::SKIP_LAYER,
    skip_norm::SKIP_SIMPLIFIED,
];
