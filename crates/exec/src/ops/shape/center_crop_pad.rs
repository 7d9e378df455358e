//! `CenterCropPad`: cropped or zero-padded to a given size, keeping the centre.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use crate::ops::movement::move_elements;
use crate::ops::params::{Known, distinct_axes, known_ints, like_input, size};
use crate::ops::strided::{axes, copy, strides};
use fewbit_core::{Dim, Error, Node, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("CenterCropPad", infer, eval).role(Role::SameScale);

/// The axes and their new sizes.
fn targets(node: &Node, target: &[i64], rank: usize) -> Result<Vec<(usize, usize)>> {
    let axes = match node.ints("axes")? {
        Some(axes) => distinct_axes(axes, rank)?,
        None => (0..rank).collect(),
    };
    if axes.len() != target.len() {
        return Err(Error::bad_input(format!("{} sizes for {} axes", target.len(), axes.len())));
    }
    let pair = |(axis, &n): (usize, &i64)| Ok((axis, size(n, "a target size")?));
    axes.into_iter().zip(target).map(pair).collect()
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let mut shape = input.shape().to_vec();
    for (axis, n) in targets(ctx.node, &ctx.input(1)?.to_i64()?, shape.len())? {
        shape[axis] = n;
    }
    let (from, to) = (strides(input.shape()), strides(&shape));
    let (mut first_in, mut first_out, mut kept) = (0usize, 0usize, Vec::new());
    for (axis, (&old, &new)) in input.shape().iter().zip(&shape).enumerate() {
        kept.push(old.min(new));
        first_in =
            first_in.wrapping_add((old.saturating_sub(new) / 2).wrapping_mul(from[axis] as usize));
        first_out =
            first_out.wrapping_add((new.saturating_sub(old) / 2).wrapping_mul(to[axis] as usize));
    }
    let walk = axes(&kept, &to, &from);
    let out = move_elements(ctx, &[input], shape, |inputs, out, size| {
        out.fill(0);
        copy(size, (out, first_out), (inputs[0], first_in), &walk);
        Ok(())
    })?;
    Ok(vec![out])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(input) = ctx.shape(0) else {
        return Ok(like_input(ctx, None));
    };
    let mut shape = input.to_vec();
    match known_ints(ctx, "", 1)? {
        Known::Value(target) => {
            for (axis, n) in targets(ctx.node, &target, shape.len())? {
                shape[axis] = Dim::Known(n);
            }
        }
        _ => shape.fill(Dim::Unknown),
    }
    Ok(like_input(ctx, Some(shape)))
}
