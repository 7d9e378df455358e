//! `BatchNormalization`: with the stored statistics, or in training mode with those of the batch.

use super::{channels, mean_and_variance, parameter};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::half::through_f32;
use fewbit_core::{Dim, Result, Tensor, ValueType};

pub(in crate::ops) const DEF: OpDef = OpDef::new("BatchNormalization", infer, eval).since(7);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let channels = ctx.shape(0).and_then(|s| s.get(1)).cloned().unwrap_or(Dim::Unknown);
    let statistics = typed(ctx.dtype(3), Some(vec![channels]));
    let mut types = vec![ctx.ty(0)];
    types.resize(ctx.node.outputs.len().max(1), statistics);
    Ok(types)
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let mut x = ctx.take(0)?;
    let (count, inner) = channels(x.shape())?;
    let [gamma, beta, mean, variance] = parameters(ctx, count)?;
    let epsilon = ctx.float("epsilon", 1e-5)?;
    let trains = ctx.int("training_mode", 0)? != 0;
    let (used_mean, used_variance) =
        if trains { batch_statistics(&x, count, inner)? } else { (mean.clone(), variance.clone()) };
    let factor: Vec<f32> =
        gamma.iter().zip(&used_variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
    if inner > 0 && count > 0 {
        let pool = ctx.kernels.pool;
        let planes = pool.grain(x.len() / inner, 32_768 / inner);
        pool.for_each_chunk(x.as_mut_slice::<f32>()?, planes * inner, |i, chunk| {
            for (j, plane) in chunk.chunks_exact_mut(inner).enumerate() {
                let c = (i * planes + j) % count;
                plane.iter_mut().for_each(|v| *v = (*v - used_mean[c]) * factor[c] + beta[c]);
            }
        });
    }
    if !trains {
        return Ok(vec![x]);
    }
    let momentum = ctx.float("momentum", 0.9)?;
    let blend = |old: &[f32], new: &[f32]| -> Vec<f32> {
        old.iter().zip(new).map(|(o, n)| o * momentum + n * (1.0 - momentum)).collect()
    };
    let running = [blend(&mean, &used_mean), blend(&variance, &used_variance)];
    Ok(vec![x, Tensor::vector(&running[0]), Tensor::vector(&running[1])])
}

fn parameters(ctx: &EvalCtx, count: usize) -> Result<[Vec<f32>; 4]> {
    let get = |index, what| parameter(ctx.input(index)?, count, what);
    Ok([get(1, "scale")?, get(2, "B")?, get(3, "mean")?, get(4, "var")?])
}

fn batch_statistics(x: &Tensor, count: usize, inner: usize) -> Result<(Vec<f32>, Vec<f32>)> {
    let data = x.cow::<f32>()?;
    let batch = x.shape()[0];
    let of_channel = |c: usize| {
        let data = &data;
        let planes =
            (0..batch).flat_map(move |n| data[(n * count + c) * inner..][..inner].iter().copied());
        mean_and_variance(planes, batch * inner)
    };
    Ok((0..count).map(of_channel).map(|(m, v)| (m as f32, v as f32)).unzip())
}
