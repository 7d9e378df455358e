//! Tensors made from parameters: `Constant`, `ConstantOfShape`, `Range`, `EyeLike`.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::movement::{fill, move_elements};
use crate::ops::params::{Known, known_ints, open, scalar, scalar_int, size};
use fewbit_core::{Attr, DType, Dim, Error, Node, Result, Tensor, ValueType};

pub(super) const CONSTANT: OpDef = OpDef::new("Constant", infer_constant, eval_constant);
pub(super) const CONSTANT_OF_SHAPE: OpDef =
    OpDef::new("ConstantOfShape", infer_of_shape, eval_of_shape);
pub(super) const RANGE: OpDef = OpDef::new("Range", infer_range, eval_range);
pub(super) const EYE_LIKE: OpDef = OpDef::new("EyeLike", infer_eye, eval_eye);

fn eval_constant(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    Ok(vec![constant(ctx.node)?])
}

fn infer_constant(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![ValueType::of(&constant(ctx.node)?)])
}

fn constant(node: &Node) -> Result<Tensor> {
    let given = node.attrs.iter().find(|(name, _)| name.starts_with("value"));
    match given.map(|(_, attr)| attr) {
        Some(Attr::Tensor(tensor)) => Ok(tensor.clone()),
        Some(Attr::Float(value)) => Ok(Tensor::scalar(*value)),
        Some(Attr::Floats(values)) => Ok(Tensor::vector(values)),
        Some(Attr::Int(value)) => Ok(Tensor::scalar(*value)),
        Some(Attr::Ints(values)) => Ok(Tensor::vector(values)),
        Some(Attr::String(text)) => Tensor::from_strings(vec![], vec![text.clone()]),
        Some(Attr::Strings(texts)) => Tensor::from_strings(vec![texts.len()], texts.clone()),
        _ => Err(Error::unsupported("a Constant without a dense `value` attribute")),
    }
}

fn fill_value(node: &Node) -> Result<Tensor> {
    match node.attr("value") {
        None => Ok(Tensor::scalar(0f32)),
        Some(Attr::Tensor(tensor)) if tensor.len() == 1 => Ok(tensor.clone()),
        Some(_) => {
            Err(Error::bad_input("expected a tensor of one element").at("attribute `value`"))
        }
    }
}

fn shape_of(dims: &[i64]) -> Result<Vec<usize>> {
    dims.iter().map(|&d| size(d, "a dimension")).collect()
}

fn eval_of_shape(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let shape = shape_of(&ctx.input(0)?.to_i64()?)?;
    let value = fill_value(ctx.node)?;
    let out = move_elements(ctx, &[&value], shape, |inputs, out, size| {
        fill(out, &inputs[0][..size]);
        Ok(())
    })?;
    Ok(vec![out])
}

fn infer_of_shape(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = Some(fill_value(ctx.node)?.dtype());
    let shape = match known_ints(ctx, "", 0)? {
        Known::Value(dims) => Some(crate::ops::params::fixed(&shape_of(&dims)?)),
        _ => {
            let rank = ctx.shape(0).and_then(|s| s.first()).and_then(Dim::known);
            rank.filter(|&r| r <= 64).map(open)
        }
    };
    Ok(vec![typed(dtype, shape)])
}

fn eval_range(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let [start, limit, delta] = [ctx.input(0)?, ctx.input(1)?, ctx.input(2)?];
    let dtype = crate::ops::movement::common_dtype(&[start, limit, delta])?;
    let count = range_len(start, limit, delta)?;
    // Refuses impossible sizes before any value is computed.
    let mut out = ctx.alloc(dtype, vec![count])?;
    if dtype.is_int() {
        let (first, step) = (scalar_int(start)?, scalar_int(delta)?);
        let values = (0..count as i64).map(|i| first.wrapping_add(step.wrapping_mul(i)));
        match dtype {
            DType::I64 => put(out.as_mut_slice::<i64>()?, values),
            DType::I32 => put(out.as_mut_slice::<i32>()?, values.map(|v| v as i32)),
            DType::I16 => put(out.as_mut_slice::<i16>()?, values.map(|v| v as i16)),
            _ => return Err(Error::unsupported(format!("Range of {dtype}"))),
        }
        return Ok(vec![out]);
    }
    let (first, step) = (scalar(start)?, scalar(delta)?);
    let values: Vec<f64> = (0..count).map(|i| first + step * i as f64).collect();
    fewbit_core::codec::encode_f64(dtype, &values, out.bytes_mut());
    Ok(vec![out])
}

fn put<T>(out: &mut [T], values: impl Iterator<Item = T>) {
    out.iter_mut().zip(values).for_each(|(slot, v)| *slot = v);
}

fn range_len(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<usize> {
    let zero = || Error::bad_input("a step of 0 never reaches the limit");
    if start.dtype().is_int() {
        let [start, limit, delta] = [start, limit, delta].map(scalar_int);
        let (start, limit, delta) = (start? as i128, limit? as i128, delta? as i128);
        if delta == 0 {
            return Err(zero());
        }
        let span = if delta > 0 { limit - start } else { start - limit };
        let steps = if span <= 0 { 0 } else { (span - 1) / delta.abs() + 1 };
        return Ok(usize::try_from(steps).unwrap_or(usize::MAX));
    }
    let (start, limit, delta) = (scalar(start)?, scalar(limit)?, scalar(delta)?);
    if delta == 0.0 {
        return Err(zero());
    }
    let steps = ((limit - start) / delta).ceil();
    if steps.is_nan() {
        return Err(Error::bad_input(format!("no range from {start} to {limit} by {delta}")));
    }
    Ok(steps.max(0.0) as usize)
}

fn infer_range(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let len = match (ctx.constant(0), ctx.constant(1), ctx.constant(2)) {
        (Some(start), Some(limit), Some(delta)) => Dim::Known(range_len(start, limit, delta)?),
        _ => Dim::Unknown,
    };
    Ok(vec![typed(ctx.dtype(0), Some(vec![len]))])
}

fn eye_dtype(node: &Node, input: Option<DType>) -> Result<Option<DType>> {
    match node.int("dtype")? {
        None => Ok(input),
        Some(code) => crate::ops::cast::target(code).map(Some),
    }
}

fn eval_eye(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let &[rows, columns] = input.shape() else {
        return Err(Error::bad_input(format!("EyeLike needs rank 2, found {:?}", input.shape())));
    };
    let dtype = eye_dtype(ctx.node, Some(input.dtype()))?.unwrap_or(DType::F32);
    let k = ctx.int("k", 0)?;
    let one = Tensor::from_f64(dtype, vec![1], &[1.0])?;
    let out = move_elements(ctx, &[&one], vec![rows, columns], |inputs, out, size| {
        out.fill(0);
        for row in 0..rows {
            let column = (row as i64).checked_add(k).and_then(|c| usize::try_from(c).ok());
            if let Some(column) = column.filter(|&c| c < columns) {
                out[(row * columns + column) * size..][..size].copy_from_slice(&inputs[0][..size]);
            }
        }
        Ok(())
    })?;
    Ok(vec![out])
}

fn infer_eye(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = eye_dtype(ctx.node, ctx.dtype(0))?;
    Ok(vec![typed(dtype, ctx.shape(0).map(<[Dim]>::to_vec))])
}
