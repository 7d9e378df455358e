//! `Reshape` and `Flatten`: the same elements under another shape.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use crate::ops::params::{Known, all_known, ints, known_ints, like_input, open};
use fewbit_core::{Dim, Error, Result, Tensor, ValueType, element_count};

pub(super) const RESHAPE: OpDef =
    OpDef::new("Reshape", infer_reshape, eval_reshape).role(Role::SameScale);
pub(super) const FLATTEN: OpDef =
    OpDef::new("Flatten", infer_flatten, eval_flatten).role(Role::SameScale);

fn eval_reshape(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let target =
        ints(ctx, "shape", 1)?.ok_or_else(|| Error::bad_input("the target shape is missing"))?;
    let keep_zeros = ctx.int("allowzero", 0)? != 0;
    let input = ctx.take(0)?;
    let shape = target_shape(input.shape(), &target, keep_zeros)?;
    Ok(vec![input.reshape(shape)?])
}

/// Resolves 0 (copy the input's dimension, unless zeros are meant literally) and -1 (whatever
/// is left).
fn target_shape(input: &[usize], target: &[i64], keep_zeros: bool) -> Result<Vec<usize>> {
    let mut shape = Vec::with_capacity(target.len());
    let mut open = None;
    for (axis, &d) in target.iter().enumerate() {
        shape.push(match d {
            0 if !keep_zeros => copied(input, axis)?,
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            _ => usize::try_from(d).map_err(|_| bad_target(target))?,
        });
    }
    if let Some(axis) = open {
        shape[axis] = remaining(element_count(input), element_count(&shape))
            .ok_or_else(|| Error::bad_input(format!("cannot reshape {input:?} to {target:?}")))?;
    }
    Ok(shape)
}

fn copied(input: &[usize], axis: usize) -> Result<usize> {
    input.get(axis).copied().ok_or_else(|| {
        Error::bad_input(format!("dimension {axis} is 0 (copy), but the input has {input:?}"))
    })
}

fn bad_target(target: &[i64]) -> Error {
    Error::bad_input(format!("{target:?} is no shape: one -1 is allowed, nothing below it"))
}

fn remaining(total: Option<usize>, taken: Option<usize>) -> Option<usize> {
    let (total, taken) = (total?, taken?);
    match taken {
        0 => (total == 0).then_some(0),
        _ => total.is_multiple_of(taken).then(|| total / taken),
    }
}

fn infer_reshape(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Known::Value(target) = known_ints(ctx, "shape", 1)? else {
        // The length of the shape input is the rank of the output.
        let rank = ctx.shape(1).and_then(|s| s.first()).and_then(Dim::known);
        return Ok(like_input(ctx, rank.filter(|&r| r <= 64).map(open)));
    };
    let keep_zeros = ctx.node.int("allowzero")?.unwrap_or(0) != 0;
    let Some(input) = ctx.shape(0) else {
        let known = |&d: &i64| match usize::try_from(d) {
            Ok(n) if n > 0 || keep_zeros => Dim::Known(n),
            _ => Dim::Unknown,
        };
        return Ok(like_input(ctx, Some(target.iter().map(known).collect())));
    };
    if let Some(fixed) = all_known(input) {
        let shape = target_shape(&fixed, &target, keep_zeros)?;
        return Ok(like_input(ctx, Some(crate::ops::params::fixed(&shape))));
    }
    Ok(like_input(ctx, Some(symbolic_target(input, &target, keep_zeros))))
}

/// As [`target_shape`] with named dimensions: what is copied cancels out of what -1 stands for.
fn symbolic_target(input: &[Dim], target: &[i64], keep_zeros: bool) -> Vec<Dim> {
    let mut left: Vec<Dim> = input.to_vec();
    let mut taken = 1usize;
    let mut shape: Vec<Dim> = Vec::with_capacity(target.len());
    for (axis, &d) in target.iter().enumerate() {
        shape.push(match (d, input.get(axis)) {
            (0, Some(dim)) if !keep_zeros => {
                left[axis] = Dim::Known(1);
                dim.clone()
            }
            (1.., _) => {
                taken = taken.saturating_mul(d as usize);
                Dim::Known(d as usize)
            }
            _ => Dim::Unknown,
        });
    }
    if let Some(axis) = target.iter().position(|&d| d == -1) {
        shape[axis] = quotient(&left, taken);
    }
    shape
}

/// The product of `dims` divided by `taken`, where at most one dimension is not fixed.
fn quotient(dims: &[Dim], taken: usize) -> Dim {
    let fixed: Vec<usize> = dims.iter().filter_map(Dim::known).collect();
    let mut others = dims.iter().filter(|d| d.known().is_none());
    let total = element_count(&fixed);
    match (others.next(), others.next()) {
        (None, _) => remaining(total, Some(taken)).map_or(Dim::Unknown, Dim::Known),
        (Some(only), None) if total == Some(taken) => only.clone(),
        _ => Dim::Unknown,
    }
}

fn eval_flatten(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.take(0)?;
    let axis = flatten_axis(ctx.int("axis", 1)?, input.rank())?;
    let (rows, columns) = input.shape().split_at(axis);
    let size = |dims| element_count(dims).ok_or_else(|| Error::bad_input("shape overflows"));
    let shape = vec![size(rows)?, size(columns)?];
    Ok(vec![input.reshape(shape)?])
}

/// Unlike other axes this one may equal the rank.
fn flatten_axis(axis: i64, rank: usize) -> Result<usize> {
    let signed = rank as i64;
    if !(-signed..=signed).contains(&axis) {
        return Err(Error::bad_input(format!("axis {axis} is outside -{rank}..={rank}")));
    }
    Ok(if axis < 0 { axis + signed } else { axis } as usize)
}

fn infer_flatten(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(input) = ctx.shape(0) else {
        return Ok(like_input(ctx, Some(open(2))));
    };
    let axis = flatten_axis(ctx.node.int("axis")?.unwrap_or(1), input.len())?;
    let (rows, columns) = input.split_at(axis);
    Ok(like_input(ctx, Some(vec![quotient(rows, 1), quotient(columns, 1)])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_resolved_as_specified() {
        let shape = |target: &[i64], keep| target_shape(&[2, 3, 4], target, keep).ok();
        assert_eq!(shape(&[4, -1], false), Some(vec![4, 6]));
        assert_eq!(shape(&[0, 0, 2, 2], false), Some(vec![2, 3, 2, 2]));
        assert_eq!(shape(&[-1, 0], false), Some(vec![8, 3]));
        assert_eq!(shape(&[-1, -1], false), None);
        assert_eq!(shape(&[5, -1], false), None);
        assert_eq!(shape(&[2, 3, 4, 0], false), None);
        assert_eq!(shape(&[-2, 3], false), None);
        assert_eq!(shape(&[0, 7], true), Some(vec![0, 7]));
        assert_eq!(target_shape(&[0, 4], &[-1, 0], false).unwrap(), [0, 4]);
        assert!(target_shape(&[2], &[i64::MAX, i64::MAX, -1], false).is_err());
    }

    #[test]
    fn a_named_batch_survives() {
        let input = [Dim::Named("n".into()), Dim::Known(8), Dim::Known(2)];
        assert_eq!(symbolic_target(&input, &[0, -1], false), [input[0].clone(), Dim::Known(16)]);
        assert_eq!(symbolic_target(&input, &[-1, 16], false), [input[0].clone(), Dim::Known(16)]);
        assert_eq!(symbolic_target(&input, &[-1, 4], false)[0], Dim::Unknown);
    }
}
