//! Normalization over trailing axes: `LayerNormalization`, `RMSNormalization`,
//! `MeanVarianceNormalization`.

use super::mean_and_variance;
use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, same_as_input, typed};
use crate::ops::broadcast::{broadcast_shapes, for_each_row};
use crate::ops::half::widen;
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};
use fewbit_kernels::norm::{layer_norm_f32, rms_norm_f32};

pub(in crate::ops) const LAYER: OpDef = OpDef::new("LayerNormalization", infer_layer, layer);
pub(in crate::ops) const RMS: OpDef = OpDef::new("RMSNormalization", same_as_input, rms);
pub(in crate::ops) const MEAN_VARIANCE: OpDef =
    OpDef::new("MeanVarianceNormalization", same_as_input, mean_variance);

fn infer_layer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let axis = ctx.node.int("axis")?.unwrap_or(-1);
    let reduced = match ctx.shape(0) {
        Some(shape) => {
            let axis = axis_index(axis, shape.len())?;
            let keep = |(i, d): (usize, &Dim)| if i < axis { d.clone() } else { Dim::Known(1) };
            Some(shape.iter().enumerate().map(keep).collect())
        }
        None => None,
    };
    let statistics = typed(Some(DType::F32), reduced);
    let mut types = vec![ctx.ty(0)];
    types.resize(ctx.node.outputs.len().max(1), statistics);
    Ok(types)
}

fn layer(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let stored = stored_type(ctx)?;
    let wants_statistics = ctx.node.outputs.iter().skip(1).any(Option::is_some);
    if let (false, Some(rows)) = (wants_statistics, whole_rows(ctx, ctx.opt(2))?) {
        let y = rows.run(ctx, |x, out| {
            let (gamma, beta) = (&rows.gamma, rows.beta.as_deref());
            layer_norm_f32(*ctx.kernels, x, gamma, beta, rows.epsilon, out);
        })?;
        return Ok(vec![y.cast(stored)?]);
    }
    let mut x = as_f32(ctx.take(0)?)?;
    let (size, kept) = trailing(ctx, x.shape())?;
    let epsilon = ctx.float("epsilon", 1e-5)? as f64;
    let (mut means, mut inverses) = (Vec::new(), Vec::new());
    for row in x.as_mut_slice::<f32>()?.chunks_exact_mut(size.max(1)) {
        let (mean, variance) = mean_and_variance(row.iter().copied(), size);
        let inverse = 1.0 / (variance + epsilon).sqrt();
        row.iter_mut().for_each(|v| *v = ((*v as f64 - mean) * inverse) as f32);
        means.push(mean as f32);
        inverses.push(inverse as f32);
    }
    let y = scale_and_shift(x, ctx.opt(1), ctx.opt(2))?.cast(stored)?;
    let mut outputs =
        vec![y, Tensor::from_slice(kept.clone(), &means)?, Tensor::from_slice(kept, &inverses)?];
    outputs.truncate(ctx.node.outputs.len().max(1));
    Ok(outputs)
}

fn rms(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let stored = stored_type(ctx)?;
    if let Some(rows) = whole_rows(ctx, None)? {
        let y = rows.run(ctx, |x, out| {
            rms_norm_f32(*ctx.kernels, x, &rows.gamma, rows.epsilon, out);
        })?;
        return Ok(vec![y.cast(stored)?]);
    }
    let mut x = as_f32(ctx.take(0)?)?;
    let (size, _) = trailing(ctx, x.shape())?;
    let epsilon = ctx.float("epsilon", 1e-5)? as f64;
    for row in x.as_mut_slice::<f32>()?.chunks_exact_mut(size.max(1)) {
        let squares = row.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / size as f64;
        let inverse = 1.0 / (squares + epsilon).sqrt();
        row.iter_mut().for_each(|v| *v = (*v as f64 * inverse) as f32);
    }
    Ok(vec![scale_and_shift(x, ctx.opt(1), None)?.cast(stored)?])
}

/// The type of the data; half-precision inputs are widened.
fn stored_type(ctx: &mut EvalCtx) -> Result<DType> {
    let stored = ctx.input(0)?.dtype();
    widen(ctx)?;
    Ok(stored)
}

/// The common case, which the kernels know: `f32`, parameters of the shape of one row.
struct Rows {
    gamma: Vec<f32>,
    beta: Option<Vec<f32>>,
    epsilon: f32,
}

fn whole_rows(ctx: &EvalCtx, beta: Option<&Tensor>) -> Result<Option<Rows>> {
    let (x, gamma) = (ctx.input(0)?, ctx.input(1)?);
    let axis = axis_index(ctx.int("axis", -1)?, x.rank())?;
    let fits = |t: &Tensor| t.dtype() == DType::F32 && t.shape() == &x.shape()[axis..];
    if x.dtype() != DType::F32 || gamma.is_empty() || !fits(gamma) || !beta.is_none_or(fits) {
        return Ok(None);
    }
    let beta = beta.map(Tensor::to_vec).transpose()?;
    Ok(Some(Rows { gamma: gamma.to_vec()?, beta, epsilon: ctx.float("epsilon", 1e-5)? }))
}

impl Rows {
    fn run(&self, ctx: &EvalCtx, kernel: impl Fn(&[f32], &mut [f32])) -> Result<Tensor> {
        let x = ctx.input(0)?;
        let data = x.cow::<f32>()?;
        ctx.output(x.shape().to_vec(), |out| {
            kernel(&data, out);
            Ok(())
        })
    }
}

fn as_f32(x: Tensor) -> Result<Tensor> {
    if x.dtype().is_float() {
        x.cast(DType::F32)
    } else {
        Err(crate::ops::number::unsupported_dtype(x.dtype()))
    }
}

/// Elements of a normalized run, and the shape of the statistics.
fn trailing(ctx: &EvalCtx, shape: &[usize]) -> Result<(usize, Vec<usize>)> {
    let axis = axis_index(ctx.int("axis", -1)?, shape.len())?;
    let mut kept = shape.to_vec();
    kept[axis..].fill(1);
    Ok((shape[axis..].iter().product(), kept))
}

/// `x * scale + bias`, both broadcast to `x`.
fn scale_and_shift(mut x: Tensor, scale: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Tensor> {
    let shape = x.shape().to_vec();
    let mut apply = |parameter: Option<&Tensor>, f: fn(&mut f32, f32)| -> Result<()> {
        let Some(parameter) = parameter else {
            return Ok(());
        };
        if broadcast_shapes(&[&shape, parameter.shape()])? != shape {
            return Err(Error::bad_input(format!(
                "{:?} does not broadcast to {shape:?}",
                parameter.shape()
            ))
            .code("FB-3203"));
        }
        let values = parameter.to_f32()?;
        let out = x.as_mut_slice::<f32>()?;
        for_each_row([parameter.shape()], &shape, |start, [offset], [step], len| {
            (0..len).for_each(|i| f(&mut out[start + i], values[offset + i * step]));
        });
        Ok(())
    };
    apply(scale, |v, s| *v *= s)?;
    apply(bias, |v, b| *v += b)?;
    Ok(x)
}

/// Over the batch and all positions of each channel, or over the given axes.
fn mean_variance(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let stored = stored_type(ctx)?;
    let mut x = as_f32(ctx.take(0)?)?;
    let shape = x.shape().to_vec();
    let axes = ctx.node.ints("axes")?.map_or(vec![0, 2, 3], <[i64]>::to_vec);
    let mut kept = shape.clone();
    for axis in axes {
        kept[axis_index(axis, shape.len())?] = 1;
    }
    let mut groups: Vec<Vec<f32>> = vec![Vec::new(); kept.iter().product()];
    let data = x.as_mut_slice::<f32>()?;
    for_each_row([&kept], &shape, |start, [group], [step], len| {
        (0..len).for_each(|i| groups[group + i * step].push(data[start + i]));
    });
    let statistics: Vec<(f64, f64)> =
        groups.iter().map(|g| mean_and_variance(g.iter().copied(), g.len())).collect();
    for_each_row([&kept], &shape, |start, [group], [step], len| {
        for i in 0..len {
            let (mean, variance) = statistics[group + i * step];
            let value = &mut data[start + i];
            *value = ((*value as f64 - mean) / (variance.sqrt() + 1e-9)) as f32;
        }
    });
    Ok(vec![x.cast(stored)?])
}
