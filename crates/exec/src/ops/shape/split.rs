//! `Split`: an input cut into parts along an axis.

use crate::def::{OpDef, Role};
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, typed};
use crate::ops::movement::move_elements;
use crate::ops::params::{Known, ints, known_ints};
use crate::ops::strided::{axes, copy, strides};
use fewbit_core::{Dim, Error, Node, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("Split", infer, eval).role(Role::SameScale);

/// Sizes of the parts: as given; or equal, the last one smaller when `num_outputs` allows it.
fn sizes(node: &Node, given: Option<&[i64]>, dim: usize) -> Result<Vec<usize>> {
    let parts = node.outputs.len();
    let sizes = match given {
        Some(sizes) => sizes
            .iter()
            .map(|&s| crate::ops::params::size(s, "the size of a part"))
            .collect::<Result<Vec<_>>>()?,
        None => even(node, parts, dim)?,
    };
    let sum = sizes.iter().try_fold(0usize, |n, &s| n.checked_add(s));
    if sizes.len() != parts || sum != Some(dim) {
        return Err(Error::bad_input(format!(
            "sizes {sizes:?} do not cut an axis of {dim} into {parts} outputs"
        )));
    }
    Ok(sizes)
}

fn even(node: &Node, parts: usize, dim: usize) -> Result<Vec<usize>> {
    let count = match node.int("num_outputs")? {
        Some(count) if count as usize != parts || count < 1 => {
            return Err(Error::bad_input(format!("{count}, but there are {parts} outputs"))
                .at("attribute `num_outputs`"));
        }
        Some(_) => parts,
        None if parts > 0 && dim.is_multiple_of(parts) => parts,
        None => {
            return Err(Error::bad_input(format!("{dim} elements cannot be cut into {parts}")));
        }
    };
    let size = dim.div_ceil(count);
    Ok((0..count).map(|i| size.min(dim.saturating_sub(i * size))).collect())
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let given = ints(ctx, "split", 1)?;
    let input = ctx.input(0)?;
    let axis = axis_index(ctx.int("axis", 0)?, input.rank())?;
    let sizes = sizes(ctx.node, given.as_deref(), input.shape()[axis])?;
    let from = strides(input.shape());
    let mut start = 0usize;
    let mut parts = Vec::with_capacity(sizes.len());
    for size in sizes {
        let mut shape = input.shape().to_vec();
        shape[axis] = size;
        let first = start.wrapping_mul(from[axis] as usize);
        let steps = axes(&shape, &strides(&shape), &from);
        parts.push(move_elements(ctx, &[input], shape, |inputs, out, size| {
            copy(size, (out, 0), (inputs[0], first), &steps);
            Ok(())
        })?);
        start += size;
    }
    Ok(parts)
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let outputs = ctx.node.outputs.len();
    let Some(input) = ctx.shape(0) else {
        return Ok(vec![typed(ctx.dtype(0), None); outputs]);
    };
    let axis = axis_index(ctx.node.int("axis")?.unwrap_or(0), input.len())?;
    let given = known_ints(ctx, "split", 1)?;
    let parts: Vec<Dim> = match (given, input[axis].known()) {
        (Known::Value(given), Some(dim)) => {
            sizes(ctx.node, Some(&given), dim)?.into_iter().map(Dim::Known).collect()
        }
        (Known::Absent, Some(dim)) => {
            sizes(ctx.node, None, dim)?.into_iter().map(Dim::Known).collect()
        }
        _ => vec![Dim::Unknown; outputs],
    };
    let part = |dim: Dim| {
        let mut shape = input.to_vec();
        shape[axis] = dim;
        typed(ctx.dtype(0), Some(shape))
    };
    Ok(parts.into_iter().map(part).collect())
}
