//! `ArgMax` and `ArgMin`.

use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::half::widen;
use crate::ops::number::{Number, for_number};
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};

pub(in crate::ops) const MAX: OpDef = OpDef::new("ArgMax", infer, max);
pub(in crate::ops) const MIN: OpDef = OpDef::new("ArgMin", infer, min);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(shape) = ctx.shape(0) else {
        return Ok(vec![only_dtype(Some(DType::I64))]);
    };
    let axis = axis_index(ctx.node.int("axis")?.unwrap_or(0), shape.len())?;
    let mut dims = shape.to_vec();
    match ctx.node.int("keepdims")?.unwrap_or(1) {
        0 => drop(dims.remove(axis)),
        _ => dims[axis] = Dim::Known(1),
    }
    Ok(vec![typed(Some(DType::I64), Some(dims))])
}

fn max(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    widen(ctx)?;
    let x = ctx.input(0)?;
    for_number!(x.dtype(), T => search(ctx, x, |new: T, best: T| new > best))
}

fn min(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    widen(ctx)?;
    let x = ctx.input(0)?;
    for_number!(x.dtype(), T => search(ctx, x, |new: T, best: T| new < best))
}

fn search<T: Number>(
    ctx: &EvalCtx,
    x: &Tensor,
    better: impl Fn(T, T) -> bool,
) -> Result<Vec<Tensor>> {
    let axis = axis_index(ctx.int("axis", 0)?, x.rank())?;
    let last = ctx.int("select_last_index", 0)? != 0;
    let (len, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    if len == 0 {
        return Err(
            Error::bad_input(format!("axis {axis} of {:?} is empty", x.shape())).code("FB-3210")
        );
    }
    // As in numpy, the first NaN beats every number.
    let wins = |new: T, best: T| {
        better(new, best) || (last && new == best) || (new.is_nan() && !best.is_nan())
    };
    let values = x.cow::<T>()?;
    let mut found = Vec::with_capacity(values.len() / len);
    for block in values.chunks_exact((len * inner).max(1)) {
        for offset in 0..inner {
            let at = |i: usize| block[offset + i * inner];
            let pick = |best: usize, i: usize| if wins(at(i), at(best)) { i } else { best };
            found.push((1..len).fold(0, pick) as i64);
        }
    }
    let mut shape = x.shape().to_vec();
    match ctx.int("keepdims", 1)? {
        0 => drop(shape.remove(axis)),
        _ => shape[axis] = 1,
    }
    Ok(vec![Tensor::from_slice(shape, &found)?])
}
