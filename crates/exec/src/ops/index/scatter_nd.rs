//! `ScatterND`: slices placed by tuples of indices.

use super::place::tuple_offsets;
use super::reduction::Reduction;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::movement::move_elements;
use fewbit_core::{Error, Result, Tensor};

pub(super) const DEF: OpDef = OpDef::new("ScatterND", same_as_input, eval);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (data, indices, updates) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let depth = check_shapes(data.shape(), indices.shape(), updates.shape())?;
    let places = tuple_offsets(&indices.to_i64()?, depth, data.shape())?;
    let combine = Reduction::of(ctx.node)?.combine(data.dtype())?;
    let out = move_elements(ctx, &[data, updates], data.shape().to_vec(), |inputs, out, size| {
        out.copy_from_slice(inputs[0]);
        let block = data.shape()[depth..].iter().product::<usize>() * size;
        if block == 0 {
            return Ok(());
        }
        for (&place, update) in places.iter().zip(inputs[1].chunks_exact(block)) {
            let slot = &mut out[place * block..][..block];
            match combine {
                Some(combine) => combine(slot, update),
                None => slot.copy_from_slice(update),
            }
        }
        Ok(())
    })?;
    Ok(vec![out])
}

/// The number of indices in a tuple, once the three shapes are known to fit.
fn check_shapes(data: &[usize], indices: &[usize], updates: &[usize]) -> Result<usize> {
    let fits = match indices.split_last() {
        Some((&depth, outer)) if (1..=data.len()).contains(&depth) => {
            ([outer, &data[depth..]].concat() == updates).then_some(depth)
        }
        _ => None,
    };
    fits.ok_or_else(|| {
        Error::bad_input(format!(
            "updates of shape {updates:?} at indices of shape {indices:?} do not fit data of shape {data:?}"
        ))
    })
}
