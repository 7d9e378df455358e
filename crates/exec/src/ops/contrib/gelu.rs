//! `Gelu`, `BiasGelu`, `FastGelu`, `QuickGelu`.

use super::MICROSOFT;
use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::broadcast::broadcast_shapes;
use crate::ops::half::through_f32;
use fewbit_core::{Error, Result, Tensor};
use fewbit_kernels::elementwise::{Binary, Unary, binary_f32, unary_f32_in_place};

pub(super) const EXACT: OpDef = row("Gelu", exact);
pub(super) const BIAS: OpDef = row("BiasGelu", exact);
pub(super) const FAST: OpDef = row("FastGelu", fast);
pub(super) const QUICK: OpDef = row("QuickGelu", quick);

const fn row(name: &'static str, eval: crate::def::EvalFn) -> OpDef {
    OpDef::new(name, same_as_input, eval).domain(MICROSOFT).role(Role::FloatOnly)
}

fn exact(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    match through_f32(ctx, exact)? {
        Some(done) => Ok(done),
        None => apply(ctx, Unary::Gelu),
    }
}

fn fast(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    match through_f32(ctx, fast)? {
        Some(done) => Ok(done),
        None => apply(ctx, Unary::GeluTanh),
    }
}

fn quick(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, quick)? {
        return Ok(done);
    }
    let alpha = ctx.float("alpha", 1.702)?;
    apply(ctx, Unary::Silu { alpha })
}

/// The function of the input, plus the bias where the node has one.
fn apply(ctx: &mut EvalCtx, function: Unary) -> Result<Vec<Tensor>> {
    let x = ctx.take(0)?;
    let mut y = match ctx.opt(1) {
        Some(bias) => plus(ctx, &x, bias)?,
        None => x,
    };
    unary_f32_in_place(*ctx.kernels, function, y.as_mut_slice()?);
    Ok(vec![y])
}

/// `x + bias`, where the bias broadcasts to `x`.
pub(super) fn plus(ctx: &EvalCtx, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let shape = x.shape();
    if broadcast_shapes(&[shape, bias.shape()])? != shape {
        return Err(Error::bad_input(format!(
            "{:?} does not broadcast to {shape:?}",
            bias.shape()
        ))
        .code("FB-3203"));
    }
    let (a, b) = (x.cow::<f32>()?, bias.cow::<f32>()?);
    ctx.output(shape.to_vec(), |out| {
        binary_f32(*ctx.kernels, Binary::Add, (&a, shape), (&b, bias.shape()), (out, shape));
        Ok(())
    })
}
