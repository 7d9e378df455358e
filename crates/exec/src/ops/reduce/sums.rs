//! `ReduceSum` and its kin. Axes are an attribute in old operator sets and input 1 in new ones.

use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::broadcast::for_each_row;
use crate::ops::params::{Known, ints, known_ints};
use fewbit_core::{DType, Dim, Result, Tensor, ValueType};

/// A reduction in `f64`, which holds every 32-bit integer and float exactly: the start value,
/// the step, and what is made of the total and the number of elements.
struct Reduction {
    start: f64,
    step: fn(f64, f64) -> f64,
    finish: fn(f64, usize) -> f64,
}

/// A row: operator, start value, step, finish.
macro_rules! rows {
    ($($name:ident $op:literal $start:expr, $step:expr, $finish:expr;)*) => {
        $(pub(in crate::ops) const $name: OpDef = {
            fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
                reduce(ctx, &Reduction { start: $start, step: $step, finish: $finish })
            }
            OpDef::new($op, infer, eval)
        };)*
    };
}

rows! {
    SUM "ReduceSum" 0.0, |a, v| a + v, |a, _| a;
    MEAN "ReduceMean" 0.0, |a, v| a + v, |a, n| a / n as f64;
    MAX "ReduceMax" f64::NEG_INFINITY, |a, v| if v > a || v.is_nan() { v } else { a }, |a, _| a;
    MIN "ReduceMin" f64::INFINITY, |a, v| if v < a || v.is_nan() { v } else { a }, |a, _| a;
    PROD "ReduceProd" 1.0, |a, v| a * v, |a, _| a;
    L1 "ReduceL1" 0.0, |a, v| a + v.abs(), |a, _| a;
    L2 "ReduceL2" 0.0, |a, v| v.mul_add(v, a), |a, _| a.sqrt();
    SUM_SQUARE "ReduceSumSquare" 0.0, |a, v| v.mul_add(v, a), |a, _| a;
    LOG_SUM "ReduceLogSum" 0.0, |a, v| a + v, |a, _| a.ln();
    LOG_SUM_EXP "ReduceLogSumExp" f64::NEG_INFINITY, log_add_exp, |a, _| a;
}

/// `ln(e^a + e^b)` without overflow.
fn log_add_exp(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if high.is_infinite() { high } else { high + (low - high).exp().ln_1p() }
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let axes = match known_ints(ctx, "axes", 1)? {
        Known::Value(axes) => axes,
        Known::Absent => Vec::new(),
        Known::Unknown => return Ok(vec![only_dtype(ctx.dtype(0))]),
    };
    let Some(shape) = ctx.shape(0) else {
        return Ok(vec![only_dtype(ctx.dtype(0))]);
    };
    let keep = ctx.node.int("keepdims")?.unwrap_or(1) != 0;
    let idle = axes.is_empty() && ctx.node.int("noop_with_empty_axes")?.unwrap_or(0) != 0;
    let reduced = reduced_axes(&axes, shape.len(), idle)?;
    let dims = shape.iter().zip(&reduced).filter(|(_, r)| keep || !**r);
    let dims = dims.map(|(d, r)| if *r { Dim::Known(1) } else { d.clone() }).collect();
    Ok(vec![typed(ctx.dtype(0), Some(dims))])
}

/// Which axes go; no axes means all, unless told to do nothing.
pub(super) fn reduced_axes(axes: &[i64], rank: usize, idle: bool) -> Result<Vec<bool>> {
    let mut reduced = vec![axes.is_empty() && !idle; rank];
    for &axis in axes {
        reduced[axis_index(axis, rank)?] = true;
    }
    Ok(reduced)
}

fn reduce(ctx: &mut EvalCtx, reduction: &Reduction) -> Result<Vec<Tensor>> {
    let x = ctx.input(0)?;
    let axes = ints(ctx, "axes", 1)?.unwrap_or_default();
    let keep = ctx.int("keepdims", 1)? != 0;
    let idle = axes.is_empty() && ctx.int("noop_with_empty_axes", 0)? != 0;
    let reduced = reduced_axes(&axes, x.rank(), idle)?;
    let kept: Vec<usize> =
        x.shape().iter().zip(&reduced).map(|(&d, &r)| if r { 1 } else { d }).collect();
    let totals = totals(x, &kept, reduction)?;
    let shape = if keep {
        kept
    } else {
        x.shape().iter().zip(&reduced).filter(|(_, r)| !**r).map(|(&d, _)| d).collect()
    };
    Ok(vec![narrow(x.dtype(), shape, &totals)?])
}

fn totals(x: &Tensor, kept: &[usize], reduction: &Reduction) -> Result<Vec<f64>> {
    let values = x.to_f64()?;
    let outputs: usize = kept.iter().product();
    let mut totals = vec![reduction.start; outputs];
    for_each_row([kept], x.shape(), |start, [offset], [step], len| {
        for i in 0..len {
            let total = &mut totals[offset + i * step];
            *total = (reduction.step)(*total, values[start + i]);
        }
    });
    let count = values.len() / outputs.max(1);
    Ok(totals.into_iter().map(|t| (reduction.finish)(t, count)).collect())
}

/// Integer results truncate, as integer arithmetic would; an empty maximum saturates.
fn narrow(dtype: DType, shape: Vec<usize>, totals: &[f64]) -> Result<Tensor> {
    if dtype.is_int() {
        let whole: Vec<f64> = totals.iter().map(|t| t.trunc()).collect();
        return Tensor::from_f64(dtype, shape, &whole);
    }
    if dtype == DType::Bool {
        let holds: Vec<f64> = totals.iter().map(|&t| (t > 0.0) as u8 as f64).collect();
        return Tensor::from_f64(dtype, shape, &holds);
    }
    Tensor::from_f64(dtype, shape, totals)
}
