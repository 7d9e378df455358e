//! `Softmax`, `LogSoftmax`, `Hardmax`: along one axis since operator set 13, over the flattened
//! rest before.

use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::same_as_input;
use crate::ops::half::through_f32;
use crate::ops::number::{Number, for_number};
use fewbit_core::{DType, Element, Result, Tensor};
use fewbit_kernels::softmax::{log_softmax_f32, softmax_f32};
use fewbit_kernels::transpose::transpose;

pub(in crate::ops) const SOFTMAX: OpDef = OpDef::new("Softmax", same_as_input, softmax);
pub(in crate::ops) const LOG_SOFTMAX: OpDef = OpDef::new("LogSoftmax", same_as_input, log_softmax);
pub(in crate::ops) const HARDMAX: OpDef = OpDef::new("Hardmax", same_as_input, hardmax);

fn softmax(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, softmax)? {
        return Ok(done);
    }
    if ctx.input(0)?.dtype() == DType::F64 {
        return along_axis(ctx, |_, x: &[f64], len, y| rows(x, len, y, wide_softmax));
    }
    along_axis(ctx, |ctx, x: &[f32], len, y| softmax_f32(*ctx.kernels, x, len, y))
}

fn log_softmax(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, log_softmax)? {
        return Ok(done);
    }
    if ctx.input(0)?.dtype() == DType::F64 {
        return along_axis(ctx, |_, x: &[f64], len, y| rows(x, len, y, wide_log_softmax));
    }
    along_axis(ctx, |ctx, x: &[f32], len, y| log_softmax_f32(*ctx.kernels, x, len, y))
}

fn hardmax(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, hardmax)? {
        return Ok(done);
    }
    for_number!(ctx.input(0)?.dtype(), T => {
        along_axis(ctx, |_, x: &[T], len, y| rows(x, len, y, first_largest))
    })
}

/// 1 where the first of the largest elements stands, 0 elsewhere.
fn first_largest<T: Number>(x: &[T], y: &mut [T]) {
    let best = (1..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best });
    y.fill(T::ZERO);
    y[best] = T::ONE;
}

fn wide_softmax(x: &[f64], y: &mut [f64]) {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::larger);
    y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - largest).exp());
    let total: f64 = y.iter().sum();
    y.iter_mut().for_each(|y| *y /= total);
}

fn wide_log_softmax(x: &[f64], y: &mut [f64]) {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::larger);
    let total: f64 = x.iter().map(|x| (x - largest).exp()).sum();
    y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - largest) - total.ln());
}

fn rows<T>(x: &[T], len: usize, y: &mut [T], work: impl Fn(&[T], &mut [T])) {
    x.chunks_exact(len).zip(y.chunks_exact_mut(len)).for_each(|(x, y)| work(x, y));
}

/// Calls `work` with contiguous rows of the given length, whatever the axis is.
fn along_axis<T: Element>(
    ctx: &mut EvalCtx,
    work: impl Fn(&EvalCtx, &[T], usize, &mut [T]),
) -> Result<Vec<Tensor>> {
    let x = ctx.input(0)?;
    let data = x.cow::<T>()?;
    let (len, inner) = row_layout(ctx, x.shape())?;
    let mut out = ctx.alloc(T::DTYPE, x.shape().to_vec())?;
    if data.is_empty() {
        return Ok(vec![out]);
    }
    if inner == 1 {
        work(ctx, &data, len, out.as_mut_slice()?);
        return Ok(vec![out]);
    }
    let dims = [data.len() / (len * inner), len, inner];
    let turn = |from: &Tensor, dims: &[usize], to: &mut Tensor| {
        transpose(*ctx.kernels, size_of::<T>(), from.bytes(), dims, &[0, 2, 1], to.bytes_mut());
    };
    let (mut turned, mut result) =
        (ctx.alloc(T::DTYPE, vec![data.len()])?, ctx.alloc(T::DTYPE, vec![data.len()])?);
    turn(x, &dims, &mut turned);
    work(ctx, turned.as_slice()?, len, result.as_mut_slice()?);
    turn(&result, &[dims[0], inner, len], &mut out);
    Ok(vec![out])
}

/// Length of a row, and the distance between its elements.
fn row_layout(ctx: &EvalCtx, shape: &[usize]) -> Result<(usize, usize)> {
    let flattens = ctx.opset < 13;
    let axis = ctx.int("axis", if flattens { 1 } else { -1 })?;
    if shape.is_empty() || (flattens && axis == shape.len() as i64) {
        return Ok((1, 1));
    }
    let axis = axis_index(axis, shape.len())?;
    let behind: usize = shape[axis + 1..].iter().product();
    Ok(if flattens { (shape[axis] * behind, 1) } else { (shape[axis], behind) })
}
