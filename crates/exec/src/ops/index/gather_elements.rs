//! `GatherElements`: one element for each index, along an axis.

use super::place::index_values;
use crate::def::{OpDef, Role};
use crate::eval::{EvalCtx, axis_index};
use crate::infer::InferCtx;
use crate::ops::movement::{by_size, move_elements};
use crate::ops::params::like_input;
use crate::ops::strided::strides;
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("GatherElements", infer, eval).role(Role::SameScale);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (data, indices) = (ctx.input(0)?, ctx.input(1)?);
    let axis = axis_index(ctx.int("axis", 0)?, data.rank())?;
    let sources = element_offsets(data.shape(), indices, axis)?;
    let out = move_elements(ctx, &[data], indices.shape().to_vec(), |inputs, out, size| {
        by_size!(size, pick(out, inputs[0], &sources));
        Ok(())
    })?;
    Ok(vec![out])
}

fn pick<const N: usize>(out: &mut [u8], input: &[u8], sources: &[usize]) {
    let (input, _) = input.as_chunks::<N>();
    let slots = out.as_chunks_mut::<N>().0.iter_mut();
    slots.zip(sources).for_each(|(slot, &source)| *slot = input[source]);
}

/// For each index the element of `data` it stands for: its own position, with the coordinate
/// on `axis` replaced by the index.
pub(super) fn element_offsets(data: &[usize], indices: &Tensor, axis: usize) -> Result<Vec<usize>> {
    let shape = indices.shape();
    let fits = |i: usize| i == axis || shape[i] <= data[i];
    if shape.len() != data.len() || !(0..data.len()).all(fits) {
        return Err(Error::bad_input(format!(
            "indices of shape {shape:?} do not fit data of shape {data:?} along axis {axis}"
        )));
    }
    let mut steps = strides(data);
    let along = steps[axis] as usize;
    steps[axis] = 0;
    let mut offsets = index_values(indices, data[axis])?;
    let mut at = vec![0usize; shape.len()];
    for offset in &mut offsets {
        let base: usize = at.iter().zip(&steps).map(|(&i, &s)| i * s as usize).sum();
        *offset = base + *offset * along;
        advance(&mut at, shape);
    }
    Ok(offsets)
}

/// Moves to the next position in row-major order.
fn advance(at: &mut [usize], shape: &[usize]) {
    for axis in (0..at.len()).rev() {
        at[axis] += 1;
        if at[axis] < shape[axis] {
            return;
        }
        at[axis] = 0;
    }
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(like_input(ctx, ctx.shape(1).map(<[Dim]>::to_vec)))
}
