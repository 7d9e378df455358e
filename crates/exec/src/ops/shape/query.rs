//! `Shape` and `Size`: what an input's shape says, as integers.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use fewbit_core::{DType, Dim, Node, Result, Tensor, ValueType};
use std::ops::Range;

pub(super) const SHAPE: OpDef = OpDef::new("Shape", infer_shape, eval_shape);
pub(super) const SIZE: OpDef = OpDef::new("Size", infer_size, eval_size);

/// The asked-for part of the dimensions; bounds are clamped, not checked (opset 15).
fn part(node: &Node, rank: usize) -> Result<Range<usize>> {
    let clamp = |v: i64| {
        let v = if v < 0 { v.saturating_add(rank as i64) } else { v };
        v.clamp(0, rank as i64) as usize
    };
    let start = clamp(node.int("start")?.unwrap_or(0));
    let end = clamp(node.int("end")?.unwrap_or(i64::MAX));
    Ok(start..end.max(start))
}

fn eval_shape(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let shape = ctx.input(0)?.shape();
    let dims: Vec<i64> = shape[part(ctx.node, shape.len())?].iter().map(|&n| n as i64).collect();
    Ok(vec![Tensor::vector(&dims)])
}

fn infer_shape(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let len = match ctx.shape(0) {
        Some(dims) => Dim::Known(part(ctx.node, dims.len())?.len()),
        None => Dim::Unknown,
    };
    Ok(vec![typed(Some(DType::I64), Some(vec![len]))])
}

fn eval_size(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    Ok(vec![Tensor::scalar(ctx.input(0)?.len() as i64)])
}

fn infer_size(_: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![ValueType::fixed(DType::I64, &[])])
}
