//! ONNX Runtime's elementwise operators on 8-bit codes: `QLinearAdd`, `QLinearMul`,
//! `QLinearSigmoid`, `QLinearLeakyRelu`, `QLinearSoftmax`.

use super::requantize::{affine, byte_tensor, quantizer};
use super::{MICROSOFT, exact};
use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, broadcast_dims, typed};
use fewbit_core::{DType, Dim, Element, Error, Result, Tensor, ValueType};
use fewbit_kernels::elementwise::Binary;
use fewbit_kernels::math;
use fewbit_kernels::quantize::{Affine, Byte, Quantizer, binary_codes, byte_table, lookup};

pub(super) const ADD: OpDef =
    OpDef::new("QLinearAdd", infer_pair, |ctx| pair(ctx, Binary::Add)).domain(MICROSOFT);
pub(super) const MUL: OpDef =
    OpDef::new("QLinearMul", infer_pair, |ctx| pair(ctx, Binary::Mul)).domain(MICROSOFT);
pub(super) const SIGMOID: OpDef =
    OpDef::new("QLinearSigmoid", infer_single, eval_sigmoid).domain(MICROSOFT);
pub(super) const LEAKY_RELU: OpDef =
    OpDef::new("QLinearLeakyRelu", infer_single, eval_leaky_relu).domain(MICROSOFT);
pub(super) const SOFTMAX: OpDef =
    OpDef::new("QLinearSoftmax", infer_single, eval_softmax).domain(MICROSOFT);

fn pair(ctx: &mut EvalCtx, op: Binary) -> Result<Vec<Tensor>> {
    let (a, b) = (ctx.input(0)?, ctx.input(3)?);
    exact::expect_bytes(&[a, b])?;
    crate::ops::movement::common_dtype(&[a, b])?;
    let meanings = [affine(ctx.input(1)?, ctx.opt(2))?, affine(ctx.input(4)?, ctx.opt(5))?];
    let output = quantizer(a.dtype(), affine(ctx.input(6)?, ctx.opt(7))?)?;
    let fixed = |t: &Tensor| crate::ops::params::fixed(t.shape());
    let dims = broadcast_dims(&fixed(a), &fixed(b))?;
    let shape: Vec<usize> = dims.iter().filter_map(Dim::known).collect();
    let out = match a.dtype() {
        DType::I8 => combined::<i8>(ctx, op, [a, b], meanings, shape, output)?,
        _ => combined::<u8>(ctx, op, [a, b], meanings, shape, output)?,
    };
    Ok(vec![out])
}

fn combined<T: Byte + Element>(
    ctx: &EvalCtx,
    op: Binary,
    [a, b]: [&Tensor; 2],
    [a_affine, b_affine]: [Affine; 2],
    shape: Vec<usize>,
    output: Quantizer,
) -> Result<Tensor> {
    let mut out = ctx.alloc(T::DTYPE, shape.clone())?;
    if out.is_empty() {
        return Ok(out);
    }
    let (x, y) = (a.cow::<T>()?, b.cow::<T>()?);
    binary_codes(
        *ctx.kernels,
        op,
        ((&*x, a.shape()), a_affine),
        ((&*y, b.shape()), b_affine),
        ((out.as_mut_slice::<T>()?, &shape), output),
    );
    Ok(out)
}

fn eval_sigmoid(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    single(ctx, math::sigmoid)
}

fn eval_leaky_relu(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let alpha = ctx.float("alpha", 0.01)?;
    single(ctx, |x| if x < 0.0 { alpha * x } else { x })
}

/// A function of every element, as a table of all codes.
fn single(ctx: &mut EvalCtx, f: impl Fn(f32) -> f32) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    exact::expect_bytes(&[input])?;
    let meaning = affine(ctx.input(1)?, ctx.opt(2))?;
    let output = quantizer(input.dtype(), affine(ctx.input(3)?, ctx.opt(4))?)?;
    Ok(vec![mapped(ctx, input, meaning, output, f)?])
}

/// The codes of `f` of the numbers that the codes of `input` stand for.
///
/// # Errors
/// When the output cannot be allocated.
pub(super) fn mapped(
    ctx: &EvalCtx,
    input: &Tensor,
    meaning: Affine,
    output: Quantizer,
    f: impl Fn(f32) -> f32,
) -> Result<Tensor> {
    let mut out = ctx.alloc(input.dtype(), input.shape().to_vec())?;
    match input.dtype() {
        DType::I8 => {
            let table = byte_table::<i8, i8>(meaning, output, f);
            lookup(*ctx.kernels, &table, &input.cow::<i8>()?, out.as_mut_slice::<i8>()?);
        }
        _ => {
            let table = byte_table::<u8, u8>(meaning, output, f);
            lookup(*ctx.kernels, &table, &input.cow::<u8>()?, out.as_mut_slice::<u8>()?);
        }
    }
    Ok(out)
}

fn eval_softmax(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    exact::expect_bytes(&[input])?;
    let meaning = affine(ctx.input(1)?, ctx.opt(2))?;
    let output = quantizer(input.dtype(), affine(ctx.input(3)?, ctx.opt(4))?)?;
    let since_13 = ctx.int("opset", 13)? >= 13;
    let axis = axis_index(ctx.int("axis", -1)?, input.rank())?;
    let shape = input.shape();
    // Before opset 13 everything from the axis on is one distribution.
    let inner: usize = if since_13 { shape[axis + 1..].iter().product() } else { 1 };
    let count: usize = match since_13 {
        true => shape[axis],
        false => shape[axis..].iter().product(),
    };
    let numbers: Vec<f32> = input.to_i64()?.iter().map(|&c| meaning.dequantize(c as i32)).collect();
    let mut codes = vec![0u8; numbers.len()];
    for start in (0..numbers.len()).step_by((count * inner).max(1)) {
        for offset in 0..inner {
            let places = (0..count).map(|i| start + i * inner + offset);
            distribution(&numbers, places, &mut codes, output);
        }
    }
    Ok(vec![byte_tensor(input.dtype(), shape.to_vec(), &codes)?])
}

fn distribution(
    numbers: &[f32],
    places: impl Iterator<Item = usize> + Clone,
    codes: &mut [u8],
    output: Quantizer,
) {
    let largest = places.clone().map(|i| numbers[i]).fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = places.clone().map(|i| math::exp(numbers[i] - largest)).sum();
    for i in places {
        codes[i] = output.code(math::exp(numbers[i] - largest) / sum) as u8;
    }
}

fn infer_pair(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shape = match (ctx.shape(0), ctx.shape(3)) {
        (Some(a), Some(b)) => Some(broadcast_dims(a, b)?),
        _ => None,
    };
    Ok(vec![typed(ctx.dtype(0), shape)])
}

fn infer_single(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    if ctx.inputs.len() < 4 {
        return Err(Error::bad_input("scales of input and output are missing"));
    }
    Ok(vec![typed(ctx.dtype(0), ctx.shape(0).map(<[Dim]>::to_vec))])
}
