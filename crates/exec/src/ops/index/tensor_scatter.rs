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
    let rows = Rows {
        dim: shape[axis],
        count: new[axis],
        block: shape[axis + 1..].iter().product(),
        per_batch: shape[1..axis].iter().product(),
        starts,
        circular,
    };
    if update.is_empty() {
        return Ok(vec![ctx.take(0)?]);
    }
    // The cache is written where it lies, unless somebody else holds it too.
    if let (Some(size), true) = (cache.dtype().size(), cache.dtype() == update.dtype()) {
        let (mut cache, update) = (ctx.take(0)?, ctx.input(1)?);
        rows.write(update.bytes(), cache.bytes_mut(), size)?;
        return Ok(vec![cache]);
    }
    let out = move_elements(ctx, &[cache, update], shape.to_vec(), |inputs, out, size| {
        out.copy_from_slice(inputs[0]);
        rows.write(inputs[1], out, size)
    })?;
    Ok(vec![out])
}

/// Where the new entries go.
struct Rows {
    /// Entries of the cache along the axis.
    dim: usize,
    /// New entries along the axis.
    count: usize,
    /// Elements of one entry.
    block: usize,
    per_batch: usize,
    starts: Vec<i64>,
    circular: bool,
}

impl Rows {
    fn write(&self, update: &[u8], cache: &mut [u8], size: usize) -> Result<()> {
        let block = self.block * size;
        for (i, entry) in update.chunks_exact(block).enumerate() {
            let (row, step) = (i / self.count, i % self.count);
            let place = slot(self.starts[row / self.per_batch], step, self.dim, self.circular)?;
            cache[(row * self.dim + place) * block..][..block].copy_from_slice(entry);
        }
        Ok(())
    }
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
