//! `Dropout` outside training: the input, and a mask of ones.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use fewbit_core::{DType, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("Dropout", infer, eval);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![ctx.ty(0), ValueType { dtype: Some(DType::Bool), ..ctx.ty(0) }])
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let trains = ctx.opt(2).map(Tensor::to_i64).transpose()?.is_some_and(|v| v.first() == Some(&1));
    let ratio = ctx.opt(1).map(Tensor::to_f32).transpose()?.and_then(|v| v.first().copied());
    if trains && ratio != Some(0.0) {
        return Err(
            Error::unsupported("Dropout in training mode draws random numbers").code("FB-4203")
        );
    }
    let input = ctx.take(0)?;
    let mask = Tensor::from_bools(input.shape().to_vec(), &vec![true; input.len()])?;
    Ok(vec![input, mask])
}
