//! `SkipLayerNormalization` and its simplified (RMS) form, with and without the addition.

use super::MICROSOFT;
use super::gelu::plus;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype};
use crate::ops::half::through_f32;
use fewbit_core::{Error, Result, Tensor, ValueType};
use fewbit_kernels::norm::{layer_norm_f32, rms_norm_f32};

pub(super) const SKIP_LAYER: OpDef =
    OpDef::new("SkipLayerNormalization", infer, skip_layer).domain(MICROSOFT);
pub(super) const SKIP_SIMPLIFIED: OpDef =
    OpDef::new("SkipSimplifiedLayerNormalization", infer, skip_simplified).domain(MICROSOFT);
/// ONNX Runtime writes this one into the default domain.
pub(super) const SIMPLIFIED: OpDef = OpDef::new("SimplifiedLayerNormalization", infer, simplified);
pub(super) const SIMPLIFIED_MICROSOFT: OpDef = SIMPLIFIED.domain(MICROSOFT);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = vec![only_dtype(None); ctx.node.outputs.len().max(1)];
    types[0] = ctx.ty(0);
    if types.len() > 3 {
        types[3] = ctx.ty(0);
    }
    Ok(types)
}

fn skip_layer(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, skip_layer)? {
        return Ok(done);
    }
    let sum = added(ctx, 4)?;
    let gamma = row(&sum, ctx.input(2)?)?;
    let beta = ctx.opt(3).map(|beta| row(&sum, beta)).transpose()?;
    let y = normalize(ctx, &sum, &gamma, beta.as_deref(), true, 1e-12)?;
    outputs(ctx, y, sum)
}

fn skip_simplified(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, skip_simplified)? {
        return Ok(done);
    }
    let sum = added(ctx, 3)?;
    let gamma = row(&sum, ctx.input(2)?)?;
    let y = normalize(ctx, &sum, &gamma, None, false, 1e-12)?;
    outputs(ctx, y, sum)
}

fn simplified(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, simplified)? {
        return Ok(done);
    }
    let x = ctx.take(0)?;
    if !matches!(ctx.int("axis", -1)?, axis if axis == -1 || axis == x.rank() as i64 - 1) {
        return Err(Error::unsupported("normalization over more than the last axis"));
    }
    let gamma = row(&x, ctx.input(1)?)?;
    statistics_unwanted(ctx, 1..3)?;
    Ok(vec![normalize(ctx, &x, &gamma, None, false, 1e-5)?])
}

/// Input and skip, and the bias in input `bias` where it is given.
fn added(ctx: &EvalCtx, bias: usize) -> Result<Tensor> {
    let sum = plus(ctx, ctx.input(0)?, ctx.input(1)?)?;
    match ctx.opt(bias) {
        Some(bias) => plus(ctx, &sum, bias),
        None => Ok(sum),
    }
}

/// A parameter of one row of `x`.
pub(super) fn row(x: &Tensor, parameter: &Tensor) -> Result<Vec<f32>> {
    match x.shape().last() {
        Some(&len) if len > 0 && parameter.shape() == [len] => parameter.to_vec(),
        _ => Err(Error::bad_input(format!(
            "a parameter of shape {:?} for rows of {:?}",
            parameter.shape(),
            x.shape()
        ))),
    }
}

/// Layer or RMS normalization of each row.
pub(super) fn normalize(
    ctx: &EvalCtx,
    x: &Tensor,
    gamma: &[f32],
    beta: Option<&[f32]>,
    centred: bool,
    epsilon: f32,
) -> Result<Tensor> {
    let epsilon = ctx.float("epsilon", epsilon)?;
    let data = x.cow::<f32>()?;
    ctx.output(x.shape().to_vec(), |out| {
        match centred {
            true => layer_norm_f32(*ctx.kernels, &data, gamma, beta, epsilon, out),
            false => rms_norm_f32(*ctx.kernels, &data, gamma, epsilon, out),
        }
        Ok(())
    })
}

fn statistics_unwanted(ctx: &EvalCtx, slots: std::ops::Range<usize>) -> Result<()> {
    match slots.clone().find(|&slot| ctx.node.output(slot).is_some()) {
        None => Ok(()),
        Some(slot) => Err(Error::unsupported(format!("output {slot} (statistics of training)"))),
    }
}

/// The result and, as output 3, the sum. Mean and deviation exist for training only.
fn outputs(ctx: &EvalCtx, y: Tensor, sum: Tensor) -> Result<Vec<Tensor>> {
    statistics_unwanted(ctx, 1..3)?;
    if ctx.node.outputs.len() < 4 {
        return Ok(vec![y]);
    }
    let unused = Tensor::vector::<f32>(&[]);
    Ok(vec![y, unused.clone(), unused, sum])
}
