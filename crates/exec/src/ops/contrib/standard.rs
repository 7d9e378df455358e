//! Operators of ONNX that those of ONNX Runtime come down to.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::ops::attention::{ROTARY, SCALED};
use fewbit_core::{Attr, Error, Node, Result, Tensor};

/// `Attention` of ONNX with the given number of outputs.
pub(super) fn attention(
    ctx: &EvalCtx,
    attrs: &[(&str, Attr)],
    inputs: Vec<Option<Tensor>>,
    outputs: usize,
) -> Result<Vec<Tensor>> {
    run(ctx, &SCALED, attrs, inputs, outputs)
}

/// `RotaryEmbedding` of ONNX.
pub(super) fn rotary(
    ctx: &EvalCtx,
    attrs: &[(&str, Attr)],
    inputs: Vec<Option<Tensor>>,
) -> Result<Tensor> {
    let turned = run(ctx, &ROTARY, attrs, inputs, 1)?.into_iter().next();
    turned.ok_or_else(|| Error::internal("an operator without an output"))
}

fn run(
    ctx: &EvalCtx,
    def: &OpDef,
    attrs: &[(&str, Attr)],
    inputs: Vec<Option<Tensor>>,
    outputs: usize,
) -> Result<Vec<Tensor>> {
    let attrs = attrs.iter().map(|(name, attr)| (name.to_string(), attr.clone())).collect();
    let node = Node { attrs, outputs: vec![None; outputs], ..Node::new(def.name, "", &[], &[]) };
    (def.eval)(&mut EvalCtx {
        node: &node,
        opset: def.since,
        kernels: ctx.kernels,
        arena: ctx.arena,
        subgraphs: None,
        inputs,
    })
}

/// The error for a part of an operator that is not computed.
pub(super) fn refuse(what: &str, why: &str) -> Error {
    Error::unsupported(why).at(what)
}
