//! `Expand` and `Tile`: elements repeated.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, broadcast_dims};
use crate::ops::movement::move_elements;
use crate::ops::params::{Known, fixed, known_ints, like_input, open, size};
use crate::ops::strided::{Axis, copy, strides};
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const EXPAND: OpDef =
    OpDef::new("Expand", infer_expand, eval_expand).role(Role::SameScale);
pub(super) const TILE: OpDef = OpDef::new("Tile", infer_tile, eval_tile).role(Role::SameScale);

fn eval_expand(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let target = target_dims(&ctx.input(1)?.to_i64()?)?;
    let dims = broadcast_dims(&fixed(input.shape()), &target)?;
    let shape: Vec<usize> = dims.iter().filter_map(Dim::known).collect();
    let from = strides(input.shape());
    let added = shape.len() - input.rank();
    let step = |axis: usize| match axis.checked_sub(added) {
        Some(a) if input.shape()[a] != 1 => from[a],
        _ => 0,
    };
    let to = strides(&shape);
    let walk: Vec<Axis> =
        (0..shape.len()).map(|a| Axis { size: shape[a], out: to[a], input: step(a) }).collect();
    let out = move_elements(ctx, &[input], shape, |inputs, out, size| {
        copy(size, (out, 0), (inputs[0], 0), &walk);
        Ok(())
    })?;
    Ok(vec![out])
}

fn target_dims(target: &[i64]) -> Result<Vec<Dim>> {
    target.iter().map(|&d| Ok(Dim::Known(size(d, "a dimension of the target shape")?))).collect()
}

fn infer_expand(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shape = match (ctx.shape(0), known_ints(ctx, "shape", 1)?) {
        (Some(input), Known::Value(target)) => Some(broadcast_dims(input, &target_dims(&target)?)?),
        (Some(input), _) => {
            let rank = ctx.shape(1).and_then(|s| s.first()).and_then(Dim::known);
            rank.filter(|&r| r <= 64).map(|r| open(r.max(input.len())))
        }
        _ => None,
    };
    Ok(like_input(ctx, shape))
}

fn repeats(given: &[i64], rank: usize) -> Result<Vec<usize>> {
    if given.len() != rank {
        return Err(Error::bad_input(format!("{} repeats for {rank} dimensions", given.len())));
    }
    given.iter().map(|&r| size(r, "a repeat")).collect()
}

fn eval_tile(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let repeats = repeats(&ctx.input(1)?.to_i64()?, input.rank())?;
    let shape = input.shape().iter().zip(&repeats).map(|(&n, &r)| n.checked_mul(r));
    let shape: Vec<usize> = shape.collect::<Option<_>>().ok_or_else(|| {
        Error::bad_input(format!("{:?} repeated {repeats:?} times overflows", input.shape()))
    })?;
    let (from, to) = (strides(input.shape()), strides(&shape));
    let mut walk = Vec::with_capacity(2 * shape.len());
    for (axis, &repeat) in repeats.iter().enumerate() {
        let size = input.shape()[axis];
        let block = to[axis].wrapping_mul(size as isize);
        walk.push(Axis { size: repeat, out: block, input: 0 });
        walk.push(Axis { size, out: to[axis], input: from[axis] });
    }
    let out = move_elements(ctx, &[input], shape, |inputs, out, size| {
        copy(size, (out, 0), (inputs[0], 0), &walk);
        Ok(())
    })?;
    Ok(vec![out])
}

fn infer_tile(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shape = match (ctx.shape(0), known_ints(ctx, "repeats", 1)?) {
        (Some(input), Known::Value(given)) => {
            let repeats = repeats(&given, input.len())?;
            Some(input.iter().zip(repeats).map(|(d, r)| repeated(d, r)).collect())
        }
        (Some(input), _) => Some(open(input.len())),
        _ => None,
    };
    Ok(like_input(ctx, shape))
}

fn repeated(dim: &Dim, repeat: usize) -> Dim {
    match (dim, repeat) {
        (dim, 1) => dim.clone(),
        (Dim::Known(n), _) => n.checked_mul(repeat).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    }
}
