//! `NonZero`: coordinates of all elements that are not zero.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use fewbit_core::{DType, Dim, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("NonZero", infer, eval);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let values = input.to_f64()?.into_iter().enumerate();
    let found: Vec<usize> = values.filter(|(_, v)| *v != 0.0).map(|(i, _)| i).collect();
    let shape = input.shape();
    let out = ctx.output::<i64>(vec![shape.len(), found.len()], |out| {
        let mut stride = input.len();
        for (axis, row) in out.chunks_exact_mut(found.len().max(1)).enumerate() {
            stride /= shape[axis].max(1);
            for (slot, &at) in row.iter_mut().zip(&found) {
                *slot = (at / stride % shape[axis]) as i64;
            }
        }
        Ok(())
    })?;
    Ok(vec![out])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let rank = ctx.shape(0).map_or(Dim::Unknown, |s| Dim::Known(s.len()));
    Ok(vec![typed(Some(DType::I64), Some(vec![rank, Dim::Unknown]))])
}
