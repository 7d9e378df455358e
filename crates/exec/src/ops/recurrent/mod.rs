//! `RNN`, `GRU` and `LSTM`, and the `DynamicQuantizeLSTM` of ONNX Runtime.

mod activation;
mod layer;
mod lower;
mod operands;
mod spec;

use crate::def::OpDef;
use crate::infer::{InferCtx, typed};
use fewbit_core::{Dim, Result, ValueType};

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("GRU", infer, layer::eval).since(3),
    OpDef::new("LSTM", infer, layer::eval),
    OpDef::new("RNN", infer, layer::eval),
    OpDef::new("DynamicQuantizeLSTM", infer_dynamic, layer::eval).domain("com.microsoft"),
];

pub(crate) use lower::lower;

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    types(ctx, ctx.shape(2).and_then(<[Dim]>::last))
}

/// Codes of R lie transposed.
fn infer_dynamic(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    types(ctx, ctx.shape(2).and_then(|shape| shape.get(1)))
}

fn types(ctx: &InferCtx, hidden: Option<&Dim>) -> Result<Vec<ValueType>> {
    let dtype = ctx.dtype(0);
    let batch_first = ctx.node.int("layout")?.unwrap_or(0) != 0;
    let (Some([first, second, _]), Some([directions, _, _]), Some(hidden)) =
        (ctx.shape(0), ctx.shape(2), hidden)
    else {
        return Ok(vec![typed(dtype, None); ctx.node.outputs.len()]);
    };
    let [first, second, directions, hidden] = [first, second, directions, hidden].map(Dim::clone);
    let (y, state) = match batch_first {
        true => (
            vec![first.clone(), second, directions.clone(), hidden.clone()],
            vec![first, directions, hidden],
        ),
        false => (
            vec![first, directions.clone(), second.clone(), hidden.clone()],
            vec![directions, second, hidden],
        ),
    };
    let state = typed(dtype, Some(state));
    Ok([typed(dtype, Some(y)), state.clone(), state]
        .into_iter()
        .take(ctx.node.outputs.len())
        .collect())
}
