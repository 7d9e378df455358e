//! `Cast`, `CastLike` and `BitCast`: the same values, or the same bits, as another type.

mod convert;
mod e8m0;
mod text;

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use fewbit_core::{DType, Dim, Error, Node, Result, Tensor, ValueType};

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("Cast", infer_cast, eval_cast),
    OpDef::new("CastLike", infer_like, eval_like).since(15),
    OpDef::new("BitCast", infer_cast, eval_bits).since(26),
];

/// What a conversion does outside the range of its target.
#[derive(Clone, Copy, Debug)]
struct Policy {
    /// FP8: the largest value instead of infinity or NaN.
    saturate: bool,
    /// E8M0: how numbers between two powers of two are rounded.
    rounding: e8m0::Rounding,
}

impl Policy {
    fn of(node: &Node) -> Result<Self> {
        let saturate = node.int("saturate")?.unwrap_or(1) != 0;
        Ok(Policy { saturate, rounding: e8m0::Rounding::of(node)? })
    }
}

/// The element type of an ONNX type code given in an attribute.
///
/// # Errors
/// When there is no such type.
pub(crate) fn target(code: i64) -> Result<DType> {
    let found = i32::try_from(code).ok().and_then(DType::from_onnx);
    found.ok_or_else(|| Error::bad_input(format!("{code} is the code of no known element type")))
}

fn to(node: &Node) -> Result<DType> {
    target(node.int("to")?.unwrap_or(0)).map_err(|e| e.at("attribute `to`"))
}

fn eval_cast(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (dtype, policy) = (to(ctx.node)?, Policy::of(ctx.node)?);
    Ok(vec![converted(ctx, dtype, policy)?])
}

fn eval_like(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (dtype, policy) = (ctx.input(1)?.dtype(), Policy::of(ctx.node)?);
    Ok(vec![converted(ctx, dtype, policy)?])
}

fn converted(ctx: &mut EvalCtx, dtype: DType, policy: Policy) -> Result<Tensor> {
    let input = ctx.take(0)?;
    match (input.dtype(), dtype) {
        (from, to) if from == to => Ok(input),
        (DType::String, to) => text::parse(&input, to),
        (_, DType::String) => text::print(&input),
        _ => convert::convert(ctx, &input, dtype, policy),
    }
}

fn eval_bits(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let dtype = to(ctx.node)?;
    let input = ctx.take(0)?;
    if input.dtype() == DType::String || dtype.bits() != input.dtype().bits() {
        return Err(Error::bad_input(format!(
            "{} elements cannot be read as {dtype}, which has another width",
            input.dtype()
        )));
    }
    Ok(vec![input.reinterpret(dtype)?])
}

fn infer_cast(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![typed(Some(to(ctx.node)?), ctx.shape(0).map(<[Dim]>::to_vec))])
}

fn infer_like(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![typed(ctx.dtype(1), ctx.shape(0).map(<[Dim]>::to_vec))])
}

#[cfg(test)]
mod tests;
