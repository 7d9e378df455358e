//! Comparisons and logic: boolean results.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, broadcast, broadcast_to_bool};
use crate::ops::broadcast::{broadcast_shapes, for_each_row, zip};
use crate::ops::half::widen;
use crate::ops::movement::move_elements;
use crate::ops::number::{for_number, mixed_dtypes, unsupported_dtype};
use fewbit_core::{DType, Result, Tensor, ValueType};

pub(in crate::ops) const DEFS: &[OpDef] = &[
    OpDef::new("Equal", broadcast_to_bool, equal).since(7),
    OpDef::new("Greater", broadcast_to_bool, greater).since(7),
    OpDef::new("GreaterOrEqual", broadcast_to_bool, greater_or_equal),
    OpDef::new("Less", broadcast_to_bool, less).since(7),
    OpDef::new("LessOrEqual", broadcast_to_bool, less_or_equal),
    OpDef::new("And", broadcast_to_bool, and).since(7),
    OpDef::new("Or", broadcast_to_bool, or).since(7),
    OpDef::new("Xor", broadcast_to_bool, xor).since(7),
    OpDef::new("Not", bool_like_input, not),
    OpDef::new("IsNaN", bool_like_input, is_nan),
    OpDef::new("IsInf", bool_like_input, is_inf),
    OpDef::new("Where", infer_where, select),
];

fn bool_like_input(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![ValueType { dtype: Some(DType::Bool), ..ctx.ty(0) }])
}

/// A comparison for every type of number.
macro_rules! comparison {
    ($name:ident, $a:ident, $b:ident, $holds:expr) => {
        fn $name(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
            widen(ctx)?;
            let (a, b) = (ctx.input(0)?, ctx.input(1)?);
            if a.dtype() != b.dtype() {
                return Err(mixed_dtypes(a.dtype(), b.dtype()));
            }
            let result = for_number!(a.dtype(), T => zip(ctx, a, b, |$a: T, $b: T| $holds as u8))?;
            Ok(vec![result.reinterpret(DType::Bool)?])
        }
    };
}

comparison!(greater, a, b, (a > b));
comparison!(greater_or_equal, a, b, (a >= b));
comparison!(less, a, b, (a < b));
comparison!(less_or_equal, a, b, (a <= b));
comparison!(equal_numbers, a, b, (a == b));

fn equal(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    match ctx.input(0)?.dtype() {
        DType::Bool => logic(ctx, |a, b| a == b),
        DType::String => Ok(vec![equal_strings(ctx)?]),
        _ => equal_numbers(ctx),
    }
}

fn equal_strings(ctx: &EvalCtx) -> Result<Tensor> {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    let (Some(av), Some(bv)) = (a.strings(), b.strings()) else {
        return Err(mixed_dtypes(a.dtype(), b.dtype()));
    };
    let shape = broadcast_shapes(&[a.shape(), b.shape()])?;
    let mut out = vec![false; shape.iter().product()];
    for_each_row([a.shape(), b.shape()], &shape, |start, [ao, bo], [astep, bstep], len| {
        for i in 0..len {
            out[start + i] = av[ao + i * astep] == bv[bo + i * bstep];
        }
    });
    Tensor::from_bools(shape, &out)
}

fn and(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    logic(ctx, |a, b| a && b)
}

fn or(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    logic(ctx, |a, b| a || b)
}

fn xor(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    logic(ctx, |a, b| a != b)
}

fn logic(ctx: &EvalCtx, f: impl Fn(bool, bool) -> bool) -> Result<Vec<Tensor>> {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    if let Some(other) = [a, b].into_iter().find(|t| t.dtype() != DType::Bool) {
        return Err(unsupported_dtype(other.dtype()));
    }
    let result = zip(ctx, a, b, |a: u8, b: u8| f(a != 0, b != 0) as u8)?;
    Ok(vec![result.reinterpret(DType::Bool)?])
}

fn not(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let mut tensor = ctx.take(0)?;
    if tensor.dtype() != DType::Bool {
        return Err(unsupported_dtype(tensor.dtype()));
    }
    tensor.bytes_mut().iter_mut().for_each(|b| *b = (*b == 0) as u8);
    Ok(vec![tensor])
}

fn is_nan(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    classify(ctx, f64::is_nan)
}

fn is_inf(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let positive = ctx.int("detect_positive", 1)? != 0;
    let negative = ctx.int("detect_negative", 1)? != 0;
    classify(ctx, |v| v.is_infinite() && if v > 0.0 { positive } else { negative })
}

fn classify(ctx: &EvalCtx, f: impl Fn(f64) -> bool) -> Result<Vec<Tensor>> {
    let tensor = ctx.input(0)?;
    let holds: Vec<bool> = tensor.to_f64()?.into_iter().map(f).collect();
    Ok(vec![Tensor::from_bools(tensor.shape().to_vec(), &holds)?])
}

fn infer_where(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = broadcast(ctx)?;
    types[0].dtype = ctx.dtype(1);
    Ok(types)
}

/// `Where`: any type of element, moved by its bytes.
fn select(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (condition, x, y) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    if condition.dtype() != DType::Bool {
        return Err(unsupported_dtype(condition.dtype()));
    }
    let shapes = [condition.shape(), x.shape(), y.shape()];
    let shape = broadcast_shapes(&shapes)?;
    let chosen = condition.bytes();
    let out = move_elements(ctx, &[x, y], shape.clone(), |inputs, out, size| {
        for_each_row(shapes, &shape, |start, offsets, steps, len| {
            for i in 0..len {
                let at = |k: usize| offsets[k] + i * steps[k];
                let (from, index) = match chosen[at(0)] {
                    0 => (inputs[1], at(2)),
                    _ => (inputs[0], at(1)),
                };
                let source = &from[index * size..(index + 1) * size];
                out[(start + i) * size..(start + i + 1) * size].copy_from_slice(source);
            }
        });
        Ok(())
    })?;
    Ok(vec![out])
}
