//! Arithmetic of two (or more) tensors, broadcast.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::broadcast;
use crate::ops::broadcast::{broadcast_shapes, zip};
use crate::ops::half::through_f32;
use crate::ops::number::{Number, for_int, for_number, mixed_dtypes, unsupported_dtype};
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::elementwise::{Binary, binary_f32};

pub(in crate::ops) const DEFS: &[OpDef] = &[
    OpDef::new("Add", broadcast, add).role(Role::Elementwise).since(7),
    OpDef::new("Sub", broadcast, sub).since(7),
    OpDef::new("Mul", broadcast, mul).role(Role::Elementwise).since(7),
    OpDef::new("Div", broadcast, div).since(7),
    OpDef::new("Max", broadcast, max),
    OpDef::new("Min", broadcast, min),
    OpDef::new("Sum", broadcast, sum),
    OpDef::new("Mean", broadcast, mean),
    OpDef::new("Mod", broadcast, modulo),
    OpDef::new("PRelu", broadcast, prelu),
];

fn add(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    fold(ctx, add, Binary::Add)
}

fn sub(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    fold(ctx, sub, Binary::Sub)
}

fn mul(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    fold(ctx, mul, Binary::Mul)
}

fn div(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    fold(ctx, div, Binary::Div)
}

fn max(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    fold(ctx, max, Binary::Max)
}

fn min(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    fold(ctx, min, Binary::Min)
}

fn sum(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    fold(ctx, sum, Binary::Add)
}

fn prelu(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if ctx.opset < 7 {
        per_channel_slope(ctx)?;
    }
    // The slope broadcasts to the input, never the other way round.
    let (x, slope) = (ctx.input(0)?.shape(), ctx.input(1)?.shape());
    if broadcast_shapes(&[x, slope])? != x {
        return Err(Error::bad_input(format!("slope {slope:?} does not broadcast to {x:?}"))
            .code("FB-3203"));
    }
    fold(ctx, prelu, Binary::PRelu)
}

/// Before operator set 7 a slope per channel is a plain vector.
fn per_channel_slope(ctx: &mut EvalCtx) -> Result<()> {
    let (x, slope) = (ctx.input(0)?.shape(), ctx.input(1)?);
    if slope.rank() == 1 && x.len() > 1 && slope.len() == x[1] {
        let mut shape = vec![1; x.len() - 1];
        shape[0] = slope.len();
        let reshaped = slope.reshape(shape)?;
        ctx.inputs[1] = Some(reshaped);
    }
    Ok(())
}

fn mean(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, mean)? {
        return Ok(done);
    }
    let count = ctx.input_count() as f64;
    let sum = fold(ctx, mean, Binary::Add)?.remove(0);
    match sum.dtype() {
        DType::F32 => {
            let count = Tensor::scalar(count as f32);
            Ok(vec![pair(ctx, Binary::Div, &sum, &count)?])
        }
        _ => Ok(vec![pair(
            ctx,
            Binary::Div,
            &sum,
            &Tensor::from_f64(sum.dtype(), vec![], &[count])?,
        )?]),
    }
}

/// Applies the operation to the inputs from left to right.
fn fold(
    ctx: &mut EvalCtx,
    eval: fn(&mut EvalCtx) -> Result<Vec<Tensor>>,
    op: Binary,
) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let mut total = ctx.take(0)?;
    for index in 1..ctx.input_count() {
        let next = ctx.take(index)?;
        let result = pair(ctx, op, &total, &next)?;
        [total, next].into_iter().for_each(|t| ctx.arena.recycle(t));
        total = result;
    }
    Ok(vec![total])
}

/// One operation on two tensors of one type.
pub(super) fn pair(ctx: &EvalCtx, op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dtype() != b.dtype() {
        return Err(mixed_dtypes(a.dtype(), b.dtype()));
    }
    if a.dtype() != DType::F32 {
        return for_number!(a.dtype(), T => plain::<T>(ctx, op, a, b));
    }
    let shape = broadcast_shapes(&[a.shape(), b.shape()])?;
    let (av, bv) = (a.cow::<f32>()?, b.cow::<f32>()?);
    ctx.output(shape.clone(), |out| {
        binary_f32(*ctx.kernels, op, (&av, a.shape()), (&bv, b.shape()), (out, &shape));
        Ok(())
    })
}

fn plain<T: Number>(ctx: &EvalCtx, op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match op {
        Binary::Add => zip(ctx, a, b, T::add),
        Binary::Sub => zip(ctx, a, b, T::sub),
        Binary::Mul => zip(ctx, a, b, T::mul),
        Binary::Div => zip(ctx, a, b, T::div),
        Binary::Max => zip(ctx, a, b, T::larger),
        Binary::Min => zip(ctx, a, b, T::smaller),
        Binary::PRelu => {
            zip(ctx, a, b, |x: T, slope: T| if x < T::ZERO { x.mul(slope) } else { x })
        }
        _ => Err(unsupported_dtype(a.dtype())),
    }
}

/// `Mod`: the sign of the divisor, or with `fmod = 1` that of the dividend.
fn modulo(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, modulo)? {
        return Ok(done);
    }
    let truncated = ctx.int("fmod", 0)? != 0;
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    if a.dtype() != b.dtype() {
        return Err(mixed_dtypes(a.dtype(), b.dtype()));
    }
    let result = for_number!(a.dtype(), T => match truncated {
        true => zip(ctx, a, b, <T as Number>::rem_truncated),
        false => zip(ctx, a, b, <T as Number>::rem_floored),
    })?;
    Ok(vec![result])
}

/// `Pow`: base and exponent may differ in type; the result has that of the base.
pub(in crate::ops) const POW: OpDef = OpDef::new("Pow", broadcast, pow).since(7);

fn pow(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    if a.dtype() == DType::F32 && b.dtype() == DType::F32 {
        return Ok(vec![pair(ctx, Binary::Pow, a, b)?]);
    }
    let shape = broadcast_shapes(&[a.shape(), b.shape()])?;
    let integers = a.dtype().is_int() && b.dtype().is_int();
    if integers {
        return Ok(vec![
            for_int!(a.dtype(), T => zip(ctx, &a.clone(), &b.cast(DType::I64)?, |x: T, e: i64| integer_power(x, e)))?,
        ]);
    }
    let (a64, b64) = (a.cast(DType::F64)?, b.cast(DType::F64)?);
    let result = zip(ctx, &a64, &b64, f64::powf)?;
    let truncated: Vec<f64> = result
        .to_f64()?
        .into_iter()
        .map(|v| if a.dtype().is_int() { v.trunc() } else { v })
        .collect();
    Ok(vec![Tensor::from_f64(a.dtype(), shape, &truncated)?])
}

/// Wrapping power; a negative exponent gives what integer division of 1 gives.
fn integer_power<T: Number>(base: T, exponent: i64) -> T {
    if exponent < 0 {
        return T::ONE.div(integer_power(base, exponent.saturating_neg()));
    }
    let (mut result, mut square, mut left) = (T::ONE, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result = result.mul(square);
        }
        square = square.mul(square);
        left >>= 1;
    }
    result
}
