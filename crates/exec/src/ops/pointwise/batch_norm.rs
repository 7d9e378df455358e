//! `BatchNormalization` at inference.

use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use fewbit_core::{DType, Error, Result, Tensor, ValueType};

pub(super) fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = vec![ctx.ty(0)];
    types.resize(ctx.node.outputs.len().max(1), ValueType::default());
    Ok(types)
}

pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if ctx.int("training_mode", 0)? != 0 {
        return Err(Error::unsupported("BatchNormalization in training mode"));
    }
    let x = ctx.take(0)?;
    let (dtype, channels) = (x.dtype(), x.shape().get(1).copied().unwrap_or(1));
    let epsilon = ctx.float("epsilon", 1e-5)?;
    let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| parameter(ctx, i, channels));
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    let plane: usize = x.shape().get(2..).unwrap_or(&[]).iter().product();
    let mut y = x.cast(DType::F32)?;
    drop(x);
    let images = y.as_mut_slice::<f32>()?.chunks_mut((channels * plane).max(1));
    for image in images {
        for (c, values) in image.chunks_mut(plane.max(1)).enumerate() {
            let scale = gamma[c] / (variance[c] + epsilon).sqrt();
            values.iter_mut().for_each(|v| *v = (*v - mean[c]) * scale + beta[c]);
        }
    }
    Ok(vec![y.cast(dtype)?])
}

fn parameter(ctx: &EvalCtx, index: usize, channels: usize) -> Result<Vec<f32>> {
    let values = ctx.input(index)?.to_f32()?;
    if values.len() != channels {
        return Err(Error::bad_input(format!(
            "input {index} has {} numbers for {channels} channels",
            values.len()
        )));
    }
    Ok(values)
}
