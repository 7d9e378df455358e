//! `MatMulInteger`, `QLinearMatMul`, and ONNX Runtime's `MatMulIntegerToFloat` and
//! `DynamicQuantizeMatMul`.

use super::requantize::{one_scale, one_zero_point, requantized};
use super::{MICROSOFT, dynamic, exact};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::matmul::shape::{product, product_dims};
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};
use fewbit_kernels::quantize::dynamic_range;

pub(super) const INTEGER: OpDef = OpDef::new("MatMulInteger", infer_integer, eval_integer);
pub(super) const LINEAR: OpDef = OpDef::new("QLinearMatMul", infer_linear, eval_linear);
pub(super) const TO_FLOAT: OpDef =
    OpDef::new("MatMulIntegerToFloat", infer_float, eval_to_float).domain(MICROSOFT);
pub(super) const DYNAMIC: OpDef =
    OpDef::new("DynamicQuantizeMatMul", infer_float, eval_dynamic).domain(MICROSOFT);

/// The exact product of inputs `a` and `b` with zero points at `a_zero` and `b_zero`.
fn integer_product(ctx: &EvalCtx, [a, b, a_zero, b_zero]: [usize; 4]) -> Result<Tensor> {
    let (left, right) = (ctx.input(a)?, ctx.input(b)?);
    exact::expect_bytes(&[left, right])?;
    let shape = product(left.shape(), right.shape())?;
    let left = exact::centred(left, ctx.opt(a_zero), exact::by_row)?;
    let right = exact::centred(right, ctx.opt(b_zero), exact::by_column)?;
    exact::products(ctx, &left, &right, &shape)
}

fn eval_integer(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    Ok(vec![integer_product(ctx, [0, 1, 2, 3])?])
}

/// Scales of the rows or columns of an operand.
struct Scales(Vec<f32>);

impl Scales {
    fn of(tensor: &Tensor, count: usize) -> Result<Scales> {
        let scales = tensor.to_f32()?;
        if scales.len() != 1 && scales.len() != count {
            return Err(Error::unsupported(format!(
                "a scale of shape {:?}: one is handled, or one for each of {count} rows or columns",
                tensor.shape()
            )));
        }
        Ok(Scales(scales))
    }

    fn at(&self, index: usize) -> f32 {
        match self.0.as_slice() {
            [only] => *only,
            scales => scales[index],
        }
    }
}

fn eval_linear(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let sums = integer_product(ctx, [0, 3, 2, 5])?;
    let shape = product(ctx.input(0)?.shape(), ctx.input(3)?.shape())?;
    let rows = Scales::of(ctx.input(1)?, shape.m)?;
    let columns = Scales::of(ctx.input(4)?, shape.n)?;
    let out_scale = one_scale(ctx.input(6)?)?;
    let factor = |i: usize| rows.at(i / shape.n % shape.m) * columns.at(i % shape.n) / out_scale;
    let zero_point = one_zero_point(ctx.opt(7))?;
    let dtype = ctx.opt(7).map_or(ctx.input(0)?.dtype(), Tensor::dtype);
    Ok(vec![requantized(&sums, factor, zero_point, dtype)?])
}

/// Sums as numbers, with a bias for each column.
fn floats(
    ctx: &EvalCtx,
    sums: &Tensor,
    factor: impl Fn(usize) -> f32,
    columns: usize,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let bias = bias.map_or(Ok(vec![0.0; columns]), Tensor::to_f32)?;
    if bias.len() != columns {
        return Err(Error::bad_input(format!("{} biases for {columns} columns", bias.len())));
    }
    ctx.output::<f32>(sums.shape().to_vec(), |out| {
        for (i, (slot, &sum)) in out.iter_mut().zip(sums.as_slice::<i32>()?).enumerate() {
            *slot = sum as f32 * factor(i) + bias[i % columns];
        }
        Ok(())
    })
}

fn eval_to_float(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let sums = integer_product(ctx, [0, 1, 4, 5])?;
    let shape = product(ctx.input(0)?.shape(), ctx.input(1)?.shape())?;
    let rows = Scales::of(ctx.input(2)?, shape.m)?;
    let columns = Scales::of(ctx.input(3)?, shape.n)?;
    let factor = |i: usize| rows.at(i / shape.n % shape.m) * columns.at(i % shape.n);
    let out = floats(ctx, &sums, factor, shape.n, ctx.opt(6))?;
    Ok(vec![out.cast(ctx.input(2)?.dtype())?])
}

fn eval_dynamic(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, weight) = (ctx.input(0)?, ctx.input(1)?);
    exact::expect_bytes(&[weight])?;
    let shape = product(input.shape(), weight.shape())?;
    let values = input.cow::<f32>()?;
    let affine = dynamic_range(ctx.kernels.isa, &values);
    let codes = dynamic::codes(ctx.kernels, &values, affine);
    let left: Vec<i32> = codes.into_iter().map(|c| c as i32 - affine.zero_point).collect();
    let right = exact::centred(weight, ctx.opt(3), exact::by_column)?;
    let sums = exact::products(ctx, &left, &right, &shape)?;
    let columns = Scales::of(ctx.input(2)?, shape.n)?;
    let factor = |i: usize| affine.scale * columns.at(i % shape.n);
    Ok(vec![floats(ctx, &sums, factor, shape.n, ctx.opt(4))?])
}

fn product_shape(ctx: &InferCtx, a: usize, b: usize) -> Result<Option<Vec<Dim>>> {
    match (ctx.shape(a), ctx.shape(b)) {
        (Some(a), Some(b)) => product_dims(a, b).map(Some),
        _ => Ok(None),
    }
}

fn infer_integer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![typed(Some(DType::I32), product_shape(ctx, 0, 1)?)])
}

fn infer_linear(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = if ctx.has(7) { ctx.dtype(7) } else { ctx.dtype(0) };
    Ok(vec![typed(dtype, product_shape(ctx, 0, 3)?)])
}

fn infer_float(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let scale = if ctx.node.op == "DynamicQuantizeMatMul" { 0 } else { 2 };
    Ok(vec![typed(ctx.dtype(scale), product_shape(ctx, 0, 1)?)])
}
