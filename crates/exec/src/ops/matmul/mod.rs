//! `MatMul` and `Gemm`.

mod accumulate;
mod blocks;
mod dynamic;
pub(crate) mod float;
mod gemm;
mod integer;
mod lower;
pub(crate) mod shape;

pub(crate) use accumulate::lower as lower_accumulated;
pub(super) use gemm::infer as infer_gemm;
pub(crate) use integer::{coded, lower_integer};
pub(crate) use lower::lower;

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype, typed};
use fewbit_core::{DType, Error, Node, Result, Tensor, ValueType};
use float::{matmul_f32, matmul_plain};

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("MatMul", infer, eval).role(Role::Weighted(|_| -1)),
    OpDef::new("Gemm", gemm::infer, gemm::eval).role(Role::Weighted(gemm_axis)),
];

/// The output channels of a `Gemm` weight.
fn gemm_axis(node: &Node) -> i32 {
    let transposed = matches!(node.int("transB"), Ok(Some(flag)) if flag != 0);
    if transposed { 0 } else { 1 }
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    match (ctx.shape(0), ctx.shape(1)) {
        (Some(a), Some(b)) => Ok(vec![typed(ctx.dtype(0), Some(shape::product_dims(a, b)?))]),
        _ => Ok(vec![only_dtype(ctx.dtype(0))]),
    }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    let wrap = |s: i64, a: i64, b: i64| s.wrapping_add(a.wrapping_mul(b));
    let output = match a.dtype() {
        DType::F32 => matmul_f32(ctx.kernels, ctx.arena, a, b)?,
        DType::F64 => matmul_plain::<f64>(ctx.arena, a, b, |s, a, b| a.mul_add(b, s))?,
        dtype @ (DType::F16 | DType::BF16) => {
            let (a, b) = (a.cast(DType::F32)?, b.cast(DType::F32)?);
            matmul_f32(ctx.kernels, ctx.arena, &a, &b)?.cast(dtype)?
        }
        DType::I64 => matmul_plain(ctx.arena, a, b, wrap)?,
        dtype @ (DType::I32 | DType::U32 | DType::U64) => {
            let wide = |t: &Tensor| Tensor::from_slice(t.shape().to_vec(), &t.to_i64()?);
            matmul_plain(ctx.arena, &wide(a)?, &wide(b)?, wrap)?.cast(dtype)?
        }
        other => return Err(Error::unsupported(format!("MatMul of {other}"))),
    };
    Ok(vec![output])
}
