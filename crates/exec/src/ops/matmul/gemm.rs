//! `Gemm`: `alpha * A' * B' + beta * C`.

use super::float::{matmul_f32, matmul_plain};
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, broadcast_dims, only_dtype, typed};
use crate::memory::Arena;
use crate::ops::matmul::shape::broadcast_index;
use fewbit_core::{DType, Dim, Element, Error, Result, Tensor, ValueType};
use fewbit_kernels::transpose::transpose;

pub(in crate::ops) fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let (Some(a), Some(b)) = (ctx.shape(0), ctx.shape(1)) else {
        return Ok(vec![only_dtype(ctx.dtype(0))]);
    };
    let ([a0, a1], [b0, b1]) = (a, b) else {
        return Err(Error::bad_input("Gemm takes matrices").code("FB-3214"));
    };
    let flag = |name| ctx.node.int(name).map(|v| v.unwrap_or(0) != 0);
    let (m, k) = if flag("transA")? { (a1, a0) } else { (a0, a1) };
    let (k2, n) = if flag("transB")? { (b1, b0) } else { (b0, b1) };
    if let (Some(x), Some(y)) = (k.known(), k2.known())
        && x != y
    {
        return Err(
            Error::bad_input(format!("inner dimensions {x} and {y} differ")).code("FB-3214")
        );
    }
    Ok(vec![typed(ctx.dtype(0), Some(vec![m.clone(), n.clone()]))])
}

pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (alpha, beta) = (ctx.float("alpha", 1.0)?, ctx.float("beta", 1.0)?);
    let a = oriented(ctx, 0, "transA")?;
    let b = oriented(ctx, 1, "transB")?;
    let c = ctx.opt(2).cloned();
    let output = match a.dtype() {
        DType::F32 => {
            let y = matmul_f32(ctx.kernels, ctx.arena, &a, &b)?;
            scale_add::<f32>(y, c, |y| alpha * y, |y, c| y + beta * c)?
        }
        DType::F64 => {
            let y = matmul_plain::<f64>(ctx.arena, &a, &b, |s, a, b| a.mul_add(b, s))?;
            scale_add::<f64>(y, c, |y| f64::from(alpha) * y, |y, c| y + f64::from(beta) * c)?
        }
        DType::F16 | DType::BF16 => {
            let (wide_a, wide_b) = (a.cast(DType::F32)?, b.cast(DType::F32)?);
            let y = matmul_f32(ctx.kernels, ctx.arena, &wide_a, &wide_b)?;
            let c = c.map(|c| c.cast(DType::F32)).transpose()?;
            scale_add::<f32>(y, c, |y| alpha * y, |y, c| y + beta * c)?.cast(a.dtype())?
        }
        DType::I32 | DType::I64 | DType::U32 | DType::U64 => {
            integers(ctx.arena, &a, &b, c, [alpha, beta])?
        }
        other => return Err(Error::unsupported(format!("Gemm of {other}"))),
    };
    Ok(vec![output])
}

fn integers(
    arena: &Arena,
    a: &Tensor,
    b: &Tensor,
    c: Option<Tensor>,
    factors: [f32; 2],
) -> Result<Tensor> {
    let [alpha, beta] = factors.map(f64::from);
    let wide = |t: &Tensor| Tensor::from_slice(t.shape().to_vec(), &t.to_i64()?);
    let y = matmul_plain::<i64>(arena, &wide(a)?, &wide(b)?, |s, a, b| {
        s.wrapping_add(a.wrapping_mul(b))
    })?;
    let c = c.map(|c| wide(&c)).transpose()?;
    let scaled = |factor: f64, v: i64| if factor == 1.0 { v } else { (factor * v as f64) as i64 };
    let y = scale_add::<i64>(y, c, |y| scaled(alpha, y), |y, c| y.wrapping_add(scaled(beta, c)))?;
    y.cast(a.dtype())
}

/// A matrix input, transposed where the attribute says so.
fn oriented(ctx: &EvalCtx, index: usize, attr: &str) -> Result<Tensor> {
    let input = ctx.input(index)?;
    let [rows, cols] = *input.shape() else {
        return Err(
            Error::bad_input(format!("Gemm takes matrices, found {input:?}")).code("FB-3214")
        );
    };
    if ctx.int(attr, 0)? == 0 {
        return Ok(input.clone());
    }
    let size = input.dtype().size().ok_or_else(|| Error::unsupported("Gemm of packed types"))?;
    let mut output = ctx.alloc(input.dtype(), vec![cols, rows])?;
    transpose(*ctx.kernels, size, input.bytes(), &[rows, cols], &[1, 0], output.bytes_mut());
    Ok(output)
}

fn scale_add<T: Element>(
    mut y: Tensor,
    c: Option<Tensor>,
    scale: impl Fn(T) -> T,
    add: impl Fn(T, T) -> T,
) -> Result<Tensor> {
    let shape = y.shape().to_vec();
    let out = y.as_mut_slice::<T>()?;
    out.iter_mut().for_each(|y| *y = scale(*y));
    if let Some(c) = c {
        let known = |s: &[usize]| s.iter().map(|&d| Dim::Known(d)).collect::<Vec<_>>();
        if broadcast_dims(&known(&shape), &known(c.shape()))? != known(&shape) {
            return Err(Error::bad_input(format!("C of shape {:?} for {shape:?}", c.shape())));
        }
        let values = c.cow::<T>()?;
        for (index, y) in out.iter_mut().enumerate() {
            *y = add(*y, values[broadcast_index(&shape, c.shape(), index)]);
        }
    }
    Ok(y)
}
