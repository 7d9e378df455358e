//! ONNX Runtime's `QLinearConcat`: inputs with scales of their own, brought to one and joined.

use super::elementwise::mapped;
use super::requantize::{affine, quantizer};
use super::{MICROSOFT, exact};
use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, typed};
use crate::ops::shape::{join, joined_dims};
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("QLinearConcat", infer, eval).domain(MICROSOFT);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let output = affine(ctx.input(0)?, ctx.opt(1))?;
    let groups = (ctx.input_count().saturating_sub(2)).div_ceil(3);
    let mut parts = Vec::with_capacity(groups);
    for first in (0..groups).map(|i| 2 + 3 * i) {
        let input = ctx.input(first)?;
        exact::expect_bytes(&[input])?;
        let meaning = affine(ctx.input(first + 1)?, ctx.opt(first + 2))?;
        let output = quantizer(input.dtype(), output)?;
        parts.push(mapped(ctx, input, meaning, output, |x| x)?);
    }
    let parts: Vec<&Tensor> = parts.iter().collect();
    let rank = parts.first().map_or(0, |t| t.rank());
    Ok(vec![join(ctx, &parts, axis_index(axis(ctx.node.int("axis")?)?, rank)?)?])
}

fn axis(given: Option<i64>) -> Result<i64> {
    given.ok_or_else(|| Error::bad_input("attribute `axis` is missing"))
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shapes: Vec<Option<&[Dim]>> =
        (2..ctx.inputs.len()).step_by(3).map(|i| ctx.shape(i)).collect();
    let dims = joined_dims(&shapes, axis(ctx.node.int("axis")?)?)?;
    Ok(vec![typed(ctx.dtype(2), dims)])
}
