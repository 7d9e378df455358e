//! `RNN`, `GRU` and `LSTM`.

mod activation;
mod gru;
mod layer;
mod lstm;
mod rnn;

use crate::def::OpDef;
use crate::infer::{InferCtx, typed};
use fewbit_core::{Dim, Result, ValueType};

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("GRU", infer, gru::eval).since(3),
    OpDef::new("LSTM", infer, lstm::eval),
    OpDef::new("RNN", infer, rnn::eval),
];

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = ctx.dtype(0);
    let batch_first = ctx.node.int("layout")?.unwrap_or(0) != 0;
    let (Some([first, second, _]), Some([directions, .., hidden])) = (ctx.shape(0), ctx.shape(2))
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
