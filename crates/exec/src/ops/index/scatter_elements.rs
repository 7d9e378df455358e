//! `ScatterElements` (and `Scatter`, its old name): one update for each index, along an axis.

use super::gather_elements::element_offsets;
use super::reduction::Reduction;
use crate::def::{OpDef, Role};
use crate::eval::{EvalCtx, axis_index};
use crate::infer::same_as_input;
use crate::ops::movement::move_elements;
use fewbit_core::{Error, Result, Tensor};

pub(super) const SCATTER: OpDef = OpDef::new("Scatter", same_as_input, eval).role(Role::FloatOnly);
pub(super) const SCATTER_ELEMENTS: OpDef =
    OpDef::new("ScatterElements", same_as_input, eval).role(Role::FloatOnly);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (data, indices, updates) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let axis = axis_index(ctx.int("axis", 0)?, data.rank())?;
    if updates.shape() != indices.shape() {
        return Err(Error::bad_input(format!(
            "{:?} indices for {:?} updates",
            indices.shape(),
            updates.shape()
        )));
    }
    let places = element_offsets(data.shape(), indices, axis)?;
    let combine = Reduction::of(ctx.node)?.combine(data.dtype())?;
    let out = move_elements(ctx, &[data, updates], data.shape().to_vec(), |inputs, out, size| {
        out.copy_from_slice(inputs[0]);
        for (&place, update) in places.iter().zip(inputs[1].chunks_exact(size)) {
            let slot = &mut out[place * size..][..size];
            match combine {
                Some(combine) => combine(slot, update),
                None => slot.copy_from_slice(update),
            }
        }
        Ok(())
    })?;
    Ok(vec![out])
}
