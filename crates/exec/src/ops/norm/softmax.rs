//! `Softmax`, `LogSoftmax`, `Hardmax`: along one axis since operator set 13, over the flattened
//! rest before.

use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::same_as_input;
use crate::ops::half::through_f32;
use crate::ops::number::unsupported_dtype;
use fewbit_core::{DType, Result, Tensor};
use fewbit_kernels::math;

pub(in crate::ops) const SOFTMAX: OpDef = OpDef::new("Softmax", same_as_input, softmax);
pub(in crate::ops) const LOG_SOFTMAX: OpDef = OpDef::new("LogSoftmax", same_as_input, log_softmax);
pub(in crate::ops) const HARDMAX: OpDef = OpDef::new("Hardmax", same_as_input, hardmax);

fn softmax(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    along_axis(ctx, softmax, |row| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|v| *v = math::exp(*v - largest));
        let total = lanes_sum(row);
        row.iter_mut().for_each(|v| *v /= total);
    })
}

fn log_softmax(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    along_axis(ctx, log_softmax, |row| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponentials: Vec<f32> = row.iter().map(|&v| math::exp(v - largest)).collect();
        let offset = largest + math::log(lanes_sum(&exponentials));
        row.iter_mut().for_each(|v| *v -= offset);
    })
}

fn hardmax(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    along_axis(ctx, hardmax, |row| {
        let mut best = 0;
        for i in 1..row.len() {
            best = if row[i] > row[best] { i } else { best };
        }
        row.iter_mut().enumerate().for_each(|(i, v)| *v = (i == best) as u8 as f32);
    })
}

/// Sum over 16 fixed lanes, then the lanes in order.
fn lanes_sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for chunk in values.chunks(16) {
        lanes.iter_mut().zip(chunk).for_each(|(lane, v)| *lane += v);
    }
    lanes.iter().sum()
}

fn along_axis(
    ctx: &mut EvalCtx,
    eval: fn(&mut EvalCtx) -> Result<Vec<Tensor>>,
    work: impl Fn(&mut [f32]),
) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let mut tensor = ctx.take(0)?;
    if tensor.dtype() == DType::F64 {
        tensor = tensor.cast(DType::F32)?;
        ctx.inputs[0] = Some(tensor);
        return eval(ctx)?.into_iter().map(|t| t.cast(DType::F64)).collect();
    }
    if tensor.dtype() != DType::F32 {
        return Err(unsupported_dtype(tensor.dtype()));
    }
    let (len, inner) = row_layout(ctx, tensor.shape())?;
    let data = tensor.as_mut_slice::<f32>()?;
    if len == 0 || inner == 0 {
        return Ok(vec![tensor]);
    }
    if inner == 1 {
        data.chunks_exact_mut(len).for_each(&work);
    } else {
        strided_rows(data, len, inner, &work);
    }
    Ok(vec![tensor])
}

/// Length of a row, and the distance between its elements.
fn row_layout(ctx: &EvalCtx, shape: &[usize]) -> Result<(usize, usize)> {
    let flattens = ctx.opset < 13;
    let axis = ctx.int("axis", if flattens { 1 } else { -1 })?;
    if shape.is_empty() {
        return Ok((1, 1));
    }
    if flattens && axis == shape.len() as i64 {
        return Ok((1, 1));
    }
    let axis = axis_index(axis, shape.len())?;
    let behind: usize = shape[axis + 1..].iter().product();
    Ok(if flattens { (shape[axis] * behind, 1) } else { (shape[axis], behind) })
}

fn strided_rows(data: &mut [f32], len: usize, inner: usize, work: &impl Fn(&mut [f32])) {
    let mut row = vec![0.0; len];
    for block in data.chunks_exact_mut(len * inner) {
        for offset in 0..inner {
            row.iter_mut().enumerate().for_each(|(i, v)| *v = block[offset + i * inner]);
            work(&mut row);
            row.iter().enumerate().for_each(|(i, v)| block[offset + i * inner] = *v);
        }
    }
}
