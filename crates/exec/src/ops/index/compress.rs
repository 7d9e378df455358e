//! `Compress`: the slices along an axis whose condition is true.

use crate::def::{OpDef, Role};
use crate::eval::{EvalCtx, axis_index};
use crate::infer::InferCtx;
use crate::ops::params::like_input;
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("Compress", infer, eval).role(Role::SameScale);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, condition) = (ctx.input(0)?, ctx.input(1)?.to_i64()?);
    let (flat, axis) = match ctx.node.int("axis")? {
        Some(axis) => (input.shape().to_vec(), axis_index(axis, input.rank())?),
        None => (vec![input.len()], 0),
    };
    let dim = flat[axis];
    if condition.len() > dim {
        return Err(Error::bad_input(format!(
            "{} conditions for an axis of {dim} elements",
            condition.len()
        )));
    }
    let kept: Vec<usize> = (0..condition.len()).filter(|&i| condition[i] != 0).collect();
    Ok(vec![super::picked(ctx, &input.reshape(flat)?, axis, &kept)?])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shape = match (ctx.node.int("axis")?, ctx.shape(0)) {
        (None, _) => Some(vec![Dim::Unknown]),
        (Some(axis), Some(dims)) => {
            let mut shape = dims.to_vec();
            shape[axis_index(axis, dims.len())?] = Dim::Unknown;
            Some(shape)
        }
        _ => None,
    };
    Ok(like_input(ctx, shape))
}
