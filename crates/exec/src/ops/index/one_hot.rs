//! `OneHot`: one value at each index, another everywhere else.

use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, typed};
use crate::ops::movement::{fill, move_elements};
use crate::ops::params::{scalar, size};
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("OneHot", infer, eval);

fn depth(tensor: &Tensor) -> Result<usize> {
    size(scalar(tensor)? as i64, "the depth")
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (indices, values) = (ctx.input(0)?, ctx.input(2)?);
    let depth = depth(ctx.input(1)?)?;
    let axis = axis_index(ctx.int("axis", -1)?, indices.rank() + 1)?;
    if values.len() != 2 {
        return Err(Error::bad_input(format!("{} values; off and on are two", values.len())));
    }
    let mut shape = indices.shape().to_vec();
    shape.insert(axis, depth);
    let hot: Vec<i64> = match indices.dtype().is_float() {
        true => indices.to_f64()?.into_iter().map(|v| v as i64).collect(),
        false => indices.to_i64()?,
    };
    let inner: usize = indices.shape()[axis..].iter().product();
    let out = move_elements(ctx, &[values], shape, |inputs, out, size| {
        let (off, on) = inputs[0].split_at(size);
        fill(out, off);
        for (i, &index) in hot.iter().enumerate() {
            // Indices outside -depth..depth switch nothing on.
            if let Ok(index) = super::wrap_index(index, depth) {
                let at = (i / inner * depth + index) * inner + i % inner;
                out[at * size..][..size].copy_from_slice(on);
            }
        }
        Ok(())
    })?;
    Ok(vec![out])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(indices) = ctx.shape(0) else {
        return Ok(vec![typed(ctx.dtype(2), None)]);
    };
    let axis = axis_index(ctx.node.int("axis")?.unwrap_or(-1), indices.len() + 1)?;
    let size = ctx.constant(1).map(depth).transpose()?.map_or(Dim::Unknown, Dim::Known);
    let mut shape = indices.to_vec();
    shape.insert(axis, size);
    Ok(vec![typed(ctx.dtype(2), Some(shape))])
}
