//! `Concat`: inputs joined along an axis.

use crate::def::{OpDef, Role};
use crate::eval::{EvalCtx, axis_index};
use crate::infer::InferCtx;
use crate::ops::movement::move_elements;
use crate::ops::params::like_input;
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("Concat", infer, eval).role(Role::JointScale);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let inputs = (0..ctx.input_count()).map(|i| ctx.input(i)).collect::<Result<Vec<_>>>()?;
    let axis = axis_index(ctx.int("axis", 1)?, inputs.first().map_or(0, |t| t.rank()))?;
    Ok(vec![join(ctx, &inputs, axis)?])
}

/// Joins tensors along an axis.
///
/// # Errors
/// When they differ in type or in another dimension.
pub(crate) fn join(ctx: &EvalCtx, inputs: &[&Tensor], axis: usize) -> Result<Tensor> {
    let shapes: Vec<&[usize]> = inputs.iter().map(|t| t.shape()).collect();
    let shape = joined_shape(&shapes, axis)?;
    let inner: Vec<usize> = shapes.iter().map(|s| s[axis..].iter().product()).collect();
    move_elements(ctx, inputs, shape, |inputs, out, size| {
        interleave(inputs, &inner, out, size);
        Ok(())
    })
}

/// Takes `inner[i]` elements from each input in turn until the output is full.
fn interleave(inputs: &[&[u8]], inner: &[usize], out: &mut [u8], size: usize) {
    let row: usize = inner.iter().sum::<usize>() * size;
    if row == 0 {
        return;
    }
    for (index, mut row) in out.chunks_exact_mut(row).enumerate() {
        for (input, &count) in inputs.iter().zip(inner) {
            let len = count * size;
            let (head, tail) = row.split_at_mut(len);
            head.copy_from_slice(&input[index * len..][..len]);
            row = tail;
        }
    }
}

fn joined_shape(shapes: &[&[usize]], axis: usize) -> Result<Vec<usize>> {
    let Some((first, others)) = shapes.split_first() else {
        return Err(Error::bad_input("nothing to join"));
    };
    let mut shape = first.to_vec();
    for other in others {
        let fits = other.len() == shape.len()
            && (0..shape.len()).all(|i| i == axis || other[i] == shape[i]);
        let sum = fits.then(|| shape[axis].checked_add(other[axis])).flatten();
        shape[axis] = sum.ok_or_else(|| mismatch(first, other, axis))?;
    }
    Ok(shape)
}

fn mismatch(first: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug, axis: usize) -> Error {
    Error::bad_input(format!("shapes {first:?} and {other:?} cannot be joined along axis {axis}"))
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shapes: Vec<Option<&[Dim]>> = (0..ctx.inputs.len()).map(|i| ctx.shape(i)).collect();
    Ok(like_input(ctx, joined_dims(&shapes, ctx.node.int("axis")?.unwrap_or(1))?))
}

/// The dimensions of joined tensors as far as they are known.
///
/// # Errors
/// When the ranks differ or the axis lies outside.
pub(crate) fn joined_dims(shapes: &[Option<&[Dim]>], axis: i64) -> Result<Option<Vec<Dim>>> {
    let Some(known) = shapes.iter().copied().flatten().next() else {
        return Ok(None);
    };
    let axis = axis_index(axis, known.len())?;
    let mut joined = known.to_vec();
    for other in shapes.iter().copied().flatten() {
        if other.len() != joined.len() {
            return Err(mismatch(&known, &other, axis));
        }
        for (dim, seen) in joined.iter_mut().zip(other) {
            // A fixed size says more than a name.
            if dim.known().is_none() && seen.known().is_some() {
                *dim = seen.clone();
            }
        }
    }
    let sizes: Option<Vec<usize>> =
        shapes.iter().map(|s| s.and_then(|s| s[axis].known())).collect();
    let sum = sizes.and_then(|s| s.iter().try_fold(0usize, |n, &d| n.checked_add(d)));
    joined[axis] = sum.map_or(Dim::Unknown, Dim::Known);
    Ok(Some(joined))
}
