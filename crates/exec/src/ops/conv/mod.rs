//! `Conv` and `ConvTranspose`, of one to three spatial dimensions.

mod accumulate;
mod deformable;
pub(crate) mod float;
mod float_transposed;
pub(crate) mod geometry;
mod integer;
mod integer_transposed;
mod lower;
pub(crate) mod transposed;

pub(crate) use accumulate::lower as lower_accumulated;
pub(crate) use integer::{IntegerConv, IntegerLink, Sizes, coded, lower_integer};
pub(crate) use lower::lower;
pub(crate) use transposed::Part;

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::window::Window;
use crate::plan::kernel::RunCtx;
use crate::plan::permute::{to_default_in, to_last_in};
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};
use float::FloatConv;
use float_transposed::FloatTransposed;
use geometry::{Geometry, groups};
use transposed::Transposed;

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("Conv", infer_conv, eval_conv).role(Role::Weighted(|_| 0)),
    deformable::DEF,
    OpDef::new("ConvTranspose", infer_transposed, eval_transposed).role(Role::Weighted(|_| 1)),
];

pub(super) fn infer_conv(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let (Some(x), Some(w)) = (ctx.shape(0), ctx.shape(1)) else {
        return Ok(vec![only_dtype(ctx.dtype(0))]);
    };
    if x.len() < 3 || w.len() != x.len() {
        return Err(rank_error(x.len(), w.len()));
    }
    let mut shape = vec![x[0].clone(), w[0].clone()];
    let kernel: Option<Vec<usize>> = w[2..].iter().map(Dim::known).collect();
    match kernel {
        Some(kernel) => shape.extend(Window::new(ctx.node, &kernel)?.output_dims(&x[2..])?),
        None => shape.resize(x.len(), Dim::Unknown),
    }
    Ok(vec![typed(ctx.dtype(0), Some(shape))])
}

fn infer_transposed(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let (Some(x), Some(w)) = (ctx.shape(0), ctx.shape(1)) else {
        return Ok(vec![only_dtype(ctx.dtype(0))]);
    };
    if x.len() < 3 || w.len() != x.len() {
        return Err(rank_error(x.len(), w.len()));
    }
    let weight: Option<Vec<usize>> = w.iter().map(Dim::known).collect();
    let input: Option<Vec<usize>> = x[2..].iter().map(Dim::known).collect();
    let mut shape = vec![x[0].clone(), Dim::Unknown];
    if let Some(out) = w[1].known() {
        shape[1] = Dim::Known(out.saturating_mul(groups(ctx.node)?));
    }
    match (weight, input) {
        (Some(weight), Some(input)) => {
            let (sizes, _) = Transposed::new(ctx.node, &weight)?.outputs(&input)?;
            shape.extend(sizes.into_iter().map(Dim::Known));
        }
        _ => shape.resize(x.len(), Dim::Unknown),
    }
    Ok(vec![typed(ctx.dtype(0), Some(shape))])
}

fn rank_error(x: usize, w: usize) -> Error {
    Error::bad_input(format!("an input of rank {x} and a weight of rank {w} form no convolution"))
        .code("FB-3213")
}

fn eval_conv(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, weight, bias) = floats(ctx)?;
    let geometry = Geometry::of_conv(ctx.node, weight.shape())?;
    let conv = FloatConv::new(geometry, weight.bytes(), None, bias)?;
    let run = RunCtx { kernels: ctx.kernels, arena: ctx.arena };
    let output = conv.run(&run, &input, None)?;
    finish(ctx, output)
}

fn eval_transposed(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, weight, bias) = floats(ctx)?;
    let shape = Transposed::new(ctx.node, weight.shape())?;
    let conv = FloatTransposed::new(shape, weight.bytes(), None, bias.as_deref(), None)?;
    let run = RunCtx { kernels: ctx.kernels, arena: ctx.arena };
    let output = conv.convolve(&run, &input)?;
    finish(ctx, output)
}

/// Input (channels-last), weight and bias as f32.
fn floats(ctx: &EvalCtx) -> Result<(Tensor, Tensor, Option<Vec<f32>>)> {
    let (x, w) = (ctx.input(0)?, ctx.input(1)?);
    if x.rank() < 3 || x.rank() != w.rank() {
        return Err(rank_error(x.rank(), w.rank()));
    }
    if !x.dtype().is_float() || !w.dtype().is_float() {
        return Err(Error::bad_input(format!("{} and {} are no floats", x.dtype(), w.dtype())));
    }
    let input = to_last_in(&x.cast(DType::F32)?, *ctx.kernels, ctx.arena)?;
    let bias = ctx.opt(2).map(Tensor::to_f32).transpose()?;
    Ok((input, w.cast(DType::F32)?, bias))
}

/// Back to `[N,C,...]` and to the element type of the input.
fn finish(ctx: &EvalCtx, output: Tensor) -> Result<Vec<Tensor>> {
    let ordered = to_default_in(&output, *ctx.kernels, ctx.arena)?;
    ctx.arena.recycle(output);
    Ok(vec![ordered.cast(ctx.input(0)?.dtype())?])
}
