//! `If`: one of two subgraphs.

use crate::def::OpDef;
use crate::eval::{EvalCtx, Subgraphs};
use crate::infer::InferCtx;
use fewbit_core::{Error, Graph, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("If", infer, eval);

/// Types on which both branches agree, as they declare them.
fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let graphs = [ctx.node.graph("then_branch")?, ctx.node.graph("else_branch")?];
    let [Some(then), Some(otherwise)] = graphs else {
        return Err(Error::bad_input("If needs then_branch and else_branch"));
    };
    let count = ctx.node.outputs.len();
    Ok((0..count).map(|i| common(declared(then, i), declared(otherwise, i))).collect())
}

/// The declared type of output `index` of a subgraph.
pub(super) fn declared(graph: &Graph, index: usize) -> ValueType {
    graph.outputs().get(index).map(|&v| graph.value(v).ty.clone()).unwrap_or_default()
}

fn common(a: ValueType, b: ValueType) -> ValueType {
    ValueType {
        dtype: a.dtype.filter(|d| Some(*d) == b.dtype),
        shape: a.shape.filter(|s| Some(s) == b.shape.as_ref()),
        opaque: None,
    }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let condition = truth(ctx.input(0)?)?;
    let branch = if condition { "then_branch" } else { "else_branch" };
    subgraphs(ctx)?.run(branch, Vec::new())
}

/// The boolean in a tensor of one element.
pub(super) fn truth(tensor: &Tensor) -> Result<bool> {
    match *tensor.bytes() {
        [flag] => Ok(flag != 0),
        _ => Err(Error::bad_input(format!("a condition is one boolean, found {tensor:?}"))),
    }
}

/// The runner of the node's subgraphs.
pub(super) fn subgraphs<'a>(ctx: &EvalCtx<'a>) -> Result<&'a dyn Subgraphs> {
    ctx.subgraphs.ok_or_else(|| Error::internal("subgraphs were not prepared"))
}
