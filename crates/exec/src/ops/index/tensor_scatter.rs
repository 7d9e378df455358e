//! `TensorScatter`: new entries written into a key-value cache.

use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::same_as_input;
use crate::ops::movement::move_elements;
use fewbit_core::{Error, Result, Tensor};

pub(super) const DEF: OpDef = OpDef::new("TensorScatter", same_as_input, eval).since(24);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (cache, update) = (ctx.input(0)?, ctx.input(1)?);
    let axis = axis_index(ctx.int("axis", -2)?, cache.rank())?;
    let (shape, new) = (cache.shape(), update.shape());
    let fits = |i: usize| if i == axis { new[i] <= shape[i] } else { new[i] == shape[i] };
    if axis == 0 || new.len() != shape.len() || !(0..shape.len()).all(fits) {
        return Err(Error::bad_input(format!(
            "an update of shape {new:?} does not fit a cache of shape {shape:?} along axis {axis}"
        )));
    }
    let circular = match ctx.string("mode", "linear")? {
        "linear" => false,
        "circular" => true,
        other => {
            return Err(Error::bad_input(format!("unknown mode `{other}`")).at("attribute `mode`"));
        }
    };
    let starts = starts(ctx.opt(2), shape[0])?;
    let (dim, count) = (shape[axis], new[axis]);
    let out = move_elements(ctx, &[cache, update], shape.to_vec(), |inputs, out, size| {
        out.copy_from_slice(inputs[0]);
        let block = shape[axis + 1..].iter().product::<usize>() * size;
        let per_batch: usize = shape[1..axis].iter().product();
        if inputs[1].is_empty() {
            return Ok(());
        }
        for (i, entry) in inputs[1].chunks_exact(block).enumerate() {
            let (row, step) = (i / count, i % count);
            let place = slot(starts[row / per_batch], step, dim, circular)?;
            out[(row * dim + place) * block..][..block].copy_from_slice(entry);
        }
        Ok(())
    })?;
    Ok(vec![out])
}

fn starts(indices: Option<&Tensor>, batch: usize) -> Result<Vec<i64>> {
    let Some(indices) = indices else {
        return Ok(vec![0; batch]);
    };
    let starts = indices.to_i64()?;
    if starts.len() != batch {
        return Err(Error::bad_input(format!("{} indices for a batch of {batch}", starts.len())));
    }
    Ok(starts)
}

fn slot(start: i64, step: usize, dim: usize, circular: bool) -> Result<usize> {
    let at = start as i128 + step as i128;
    let at = if circular { at.rem_euclid(dim as i128) } else { at };
    usize::try_from(at).ok().filter(|&at| at < dim).ok_or_else(|| {
        Error::bad_input(format!("entry {at} is outside a cache of {dim} entries")).code("FB-3204")
    })
}
