//! Operators that a session writes as what they fuse (`plan/fused`), with the reasons why it could
//! not: what is run here is what was left.

use super::MICROSOFT;
use super::standard::refuse;
use crate::def::{EvalFn, InferFn, OpDef};
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::conv::infer_conv;
use crate::ops::matmul::{infer_gemm, shape::product_dims};
use crate::plan::fused::attention::obstacle;
use crate::plan::fused::read_order;
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const ATTENTION: OpDef = row("Attention", infer_attention, attention);
pub(super) const Q_ATTENTION: OpDef = row("QAttention", infer_on_codes, attention);
pub(super) const CONV: OpDef = row("FusedConv", infer_conv, activation);
pub(super) const GEMM: OpDef = row("FusedGemm", infer_gemm, activation);
pub(super) const MATMUL: OpDef = row("FusedMatMul", infer_product, product);
pub(super) const TRANSPOSE_MATMUL: OpDef = row("TransposeMatMul", infer_product, product);

const fn row(name: &'static str, infer: InferFn, eval: EvalFn) -> OpDef {
    OpDef::new(name, infer, eval).domain(MICROSOFT)
}

fn infer_attention(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = vec![only_dtype(ctx.dtype(0)); ctx.node.outputs.len().max(1)];
    let width = match (ctx.node.ints("qkv_hidden_sizes")?, ctx.shape(1)) {
        (Some(&[_, _, width]), _) => usize::try_from(width).ok(),
        (None, Some([_, all])) => all.known().map(|all| all / 3),
        _ => None,
    };
    if let Some([batch, rows, _]) = ctx.shape(0) {
        let dims = vec![batch.clone(), rows.clone(), width.map_or(Dim::Unknown, Dim::Known)];
        types[0] = typed(ctx.dtype(0), Some(dims));
    }
    Ok(types)
}

/// The bias, at input 2, is of the type that codes stand for.
fn infer_on_codes(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = infer_attention(ctx)?;
    types.iter_mut().for_each(|ty| ty.dtype = ctx.dtype(2));
    Ok(types)
}

fn infer_product(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let operand = |index: usize, side: char| -> Result<Option<Vec<Dim>>> {
        let flag = |name: &str| ctx.node.int(&format!("{name}{side}"));
        let set = |flag: Option<i64>| flag.unwrap_or(0) != 0;
        let (swapped, batched) = (set(flag("trans")?), set(flag("transBatch")?));
        Ok(ctx.shape(index).map(|dims| match read_order(dims.len(), swapped, batched) {
            None => dims.to_vec(),
            Some(order) => order.iter().map(|&axis| dims[axis as usize].clone()).collect(),
        }))
    };
    match (operand(0, 'A')?, operand(1, 'B')?) {
        (Some(a), Some(b)) => Ok(vec![typed(ctx.dtype(0), Some(product_dims(&a, &b)?))]),
        _ => Ok(vec![only_dtype(ctx.dtype(0))]),
    }
}

fn attention(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let widths = ("input 1", "weights of unknown width, or one that three heads do not divide");
    let (what, why) = obstacle(ctx.node).unwrap_or(widths);
    Err(refuse(what, why))
}

fn activation(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let name = ctx.string("activation", "")?;
    let what = format!("activation `{name}` with these parameters");
    Err(Error::unsupported(what).at("attribute `activation`"))
}

fn product(_: &mut EvalCtx) -> Result<Vec<Tensor>> {
    Err(refuse("input 0", "a transposed operand whose rank is not known before the run"))
}
