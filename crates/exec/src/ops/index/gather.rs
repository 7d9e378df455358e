//! `Gather`: whole slices along an axis, picked by index.

use super::place::index_values;
use crate::def::{OpDef, Role};
use crate::eval::{EvalCtx, axis_index};
use crate::infer::InferCtx;
use crate::ops::movement::move_elements;
use crate::ops::params::like_input;
use fewbit_core::{Dim, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("Gather", infer, eval).role(Role::SameScale);

/// The data's shape with its axis replaced by the shape of the indices.
pub(crate) fn replaced<T: Clone>(data: &[T], axis: usize, indices: &[T]) -> Vec<T> {
    [&data[..axis], indices, &data[axis + 1..]].concat()
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (data, indices) = (ctx.input(0)?, ctx.input(1)?);
    let axis = axis_index(ctx.int("axis", 0)?, data.rank())?;
    let picks = index_values(indices, data.shape()[axis])?;
    let shape = replaced(data.shape(), axis, indices.shape());
    Ok(vec![picked(ctx, data, axis, &picks)?.reshape(shape)?])
}

/// The slices at `picks` (each a valid index) along an axis, in their order.
///
/// # Errors
/// When the output is too large.
pub(crate) fn picked(ctx: &EvalCtx, data: &Tensor, axis: usize, picks: &[usize]) -> Result<Tensor> {
    let mut shape = data.shape().to_vec();
    let dim = std::mem::replace(&mut shape[axis], picks.len());
    move_elements(ctx, &[data], shape, |inputs, out, size| {
        let block = data.shape()[axis + 1..].iter().product::<usize>() * size;
        if out.is_empty() {
            return Ok(());
        }
        for (row, slot) in out.chunks_exact_mut(block).enumerate() {
            let source = (row / picks.len()) * dim + picks[row % picks.len()];
            slot.copy_from_slice(&inputs[0][source * block..][..block]);
        }
        Ok(())
    })
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let (Some(data), Some(indices)) = (ctx.shape(0), ctx.shape(1)) else {
        return Ok(like_input(ctx, None));
    };
    let axis = axis_index(ctx.node.int("axis")?.unwrap_or(0), data.len())?;
    Ok(like_input(ctx, Some(replaced::<Dim>(data, axis, indices))))
}
