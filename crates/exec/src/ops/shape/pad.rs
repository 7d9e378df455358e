//! `Pad`: a border of constant, edge, mirrored or wrapped elements; negative pads crop.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use crate::ops::movement::{by_size, fill, move_elements};
use crate::ops::params::{Known, distinct_axes, ints, known_ints, like_input};
use crate::ops::strided::{axes, copy, strides};
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("Pad", infer, eval).role(Role::SameScale);

/// Elements added before and after each axis (removed, where negative).
type Border = Vec<(i64, i64)>;

/// The border that `pads` mean: those before all axes, then those after them.
///
/// # Errors
/// When they do not fit the axes.
pub(crate) fn border(pads: &[i64], axes: Option<&[i64]>, rank: usize) -> Result<Border> {
    let axes = match axes {
        Some(axes) => distinct_axes(axes, rank)?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(Error::bad_input(format!("{} pads for {} axes", pads.len(), axes.len()))
            .hint("give the pads before all axes, then the pads after all axes"));
    }
    let mut border = vec![(0, 0); rank];
    for (i, &axis) in axes.iter().enumerate() {
        border[axis] = (pads[i], pads[i + axes.len()]);
    }
    Ok(border)
}

fn padded(dim: usize, (before, after): (i64, i64)) -> Result<usize> {
    let total = dim as i128 + before as i128 + after as i128;
    usize::try_from(total)
        .map_err(|_| Error::bad_input(format!("pads {before} and {after} on an axis of {dim}")))
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let pads = match ctx.node.ints("paddings")? {
        Some(old) => old.to_vec(),
        None => ints(ctx, "pads", 1)?.ok_or_else(|| Error::bad_input("the pads are missing"))?,
    };
    let axes = ctx.opt(3).map(Tensor::to_i64).transpose()?;
    let border = border(&pads, axes.as_deref(), input.rank())?;
    let shape = input.shape().iter().zip(&border).map(|(&n, &b)| padded(n, b));
    let shape: Vec<usize> = shape.collect::<Result<_>>()?;
    let out = match ctx.string("mode", "constant")? {
        "constant" => constant(ctx, input, shape, &border)?,
        "edge" => mapped(ctx, input, shape, &border, edge)?,
        "reflect" => mapped(ctx, input, shape, &border, reflect)?,
        "wrap" => mapped(ctx, input, shape, &border, wrap)?,
        other => {
            return Err(Error::bad_input(format!("unknown mode `{other}`")).at("attribute `mode`"));
        }
    };
    Ok(vec![out])
}

/// The padding value as a tensor of one element.
fn padding_value(ctx: &EvalCtx, dtype: DType) -> Result<Tensor> {
    match ctx.opt(2) {
        Some(value) if value.len() == 1 && value.dtype() == dtype => Ok(value.clone()),
        Some(value) if !value.is_empty() => Err(Error::bad_input(format!(
            "the padding value is {value:?}; one element of {dtype} is expected"
        ))),
        _ if dtype == DType::String => Tensor::zeros(dtype, vec![1]),
        _ if matches!(dtype, DType::C64 | DType::C128) => Tensor::zeros(dtype, vec![1]),
        _ => Tensor::from_f64(dtype, vec![1], &[ctx.float("value", 0.0)? as f64]),
    }
}

fn constant(ctx: &EvalCtx, input: &Tensor, shape: Vec<usize>, border: &Border) -> Result<Tensor> {
    let value = padding_value(ctx, input.dtype())?;
    let (from, to) = (strides(input.shape()), strides(&shape));
    let (mut first_in, mut first_out) = (0usize, 0usize);
    let mut kept = Vec::with_capacity(shape.len());
    for (axis, &(before, after)) in border.iter().enumerate() {
        let cropped = before.min(0).unsigned_abs() as usize;
        let dim = input.shape()[axis];
        kept.push(dim.saturating_sub(cropped).saturating_sub(after.min(0).unsigned_abs() as usize));
        first_in = first_in.wrapping_add(cropped.wrapping_mul(from[axis] as usize));
        first_out =
            first_out.wrapping_add((before.max(0) as usize).wrapping_mul(to[axis] as usize));
    }
    let walk = axes(&kept, &to, &from);
    move_elements(ctx, &[input, &value], shape, |inputs, out, size| {
        fill(out, &inputs[1][..size]);
        copy(size, (out, first_out), (inputs[0], first_in), &walk);
        Ok(())
    })
}

/// A position counted from the first kept element, mapped into `0..len`.
type Rule = fn(i64, i64) -> i64;

fn edge(at: i64, len: i64) -> i64 {
    at.clamp(0, len - 1)
}

fn wrap(at: i64, len: i64) -> i64 {
    at.rem_euclid(len)
}

fn reflect(at: i64, len: i64) -> i64 {
    let period = (2 * (len - 1)).max(1);
    let at = at.rem_euclid(period);
    at.min(period - at).min(len - 1)
}

fn mapped(
    ctx: &EvalCtx,
    input: &Tensor,
    shape: Vec<usize>,
    border: &Border,
    rule: Rule,
) -> Result<Tensor> {
    let from = strides(input.shape());
    let sizes = shape.clone();
    move_elements(ctx, &[input], shape, |inputs, out, size| {
        if out.is_empty() {
            return Ok(());
        }
        let mut offsets = Vec::with_capacity(sizes.len());
        for (axis, &pads) in border.iter().enumerate() {
            offsets.push(sources(input.shape()[axis], sizes[axis], pads, rule, from[axis])?);
        }
        by_size!(size, pick(out, inputs[0], &offsets));
        Ok(())
    })
}

/// The input offset of every output position along an axis.
fn sources(
    dim: usize,
    len: usize,
    (before, after): (i64, i64),
    rule: Rule,
    stride: isize,
) -> Result<Vec<usize>> {
    let cropped = before.min(0).unsigned_abs() as usize;
    let kept = dim as i64 - cropped as i64 - after.min(0).unsigned_abs() as i64;
    if kept < 1 {
        return Err(Error::bad_input("an axis without elements has no edge to repeat"));
    }
    let start = before.max(0);
    let source = |o: usize| (rule(o as i64 - start, kept) as usize + cropped) * stride as usize;
    Ok((0..len).map(source).collect())
}

/// Writes the elements at the sums of one offset for each axis, in row-major order.
fn pick<const N: usize>(out: &mut [u8], input: &[u8], offsets: &[Vec<usize>]) {
    let (out, _) = out.as_chunks_mut::<N>();
    let (input, _) = input.as_chunks::<N>();
    let Some((inner, outer)) = offsets.split_last() else {
        return out.copy_from_slice(input);
    };
    let mut at = vec![0usize; outer.len()];
    for row in out.chunks_exact_mut(inner.len()) {
        let base: usize = at.iter().zip(outer).map(|(&i, axis)| axis[i]).sum();
        row.iter_mut().zip(inner).for_each(|(slot, &offset)| *slot = input[base + offset]);
        for axis in (0..at.len()).rev() {
            at[axis] += 1;
            if at[axis] < outer[axis].len() {
                break;
            }
            at[axis] = 0;
        }
    }
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(input) = ctx.shape(0) else {
        return Ok(like_input(ctx, None));
    };
    let pads = match ctx.node.ints("paddings")? {
        Some(old) => Known::Value(old.to_vec()),
        None => known_ints(ctx, "pads", 1)?,
    };
    let axes = known_ints(ctx, "", 3)?;
    let border = match (pads, axes) {
        (Known::Value(pads), Known::Absent) => border(&pads, None, input.len())?,
        (Known::Value(pads), Known::Value(axes)) => border(&pads, Some(&axes), input.len())?,
        _ => return Ok(like_input(ctx, Some(vec![Dim::Unknown; input.len()]))),
    };
    let dim = |(dim, b): (&Dim, (i64, i64))| match (dim.known(), b) {
        (Some(n), b) => padded(n, b).map(Dim::Known),
        (None, (0, 0)) => Ok(dim.clone()),
        _ => Ok(Dim::Unknown),
    };
    let shape = input.iter().zip(border).map(dim).collect::<Result<Vec<_>>>()?;
    Ok(like_input(ctx, Some(shape)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_map_positions_outside() {
        let map = |rule: Rule, len| (-4..5).map(|i| rule(i, len)).collect::<Vec<_>>();
        assert_eq!(map(edge, 3), [0, 0, 0, 0, 0, 1, 2, 2, 2]);
        assert_eq!(map(reflect, 3), [0, 1, 2, 1, 0, 1, 2, 1, 0]);
        assert_eq!(map(wrap, 3), [2, 0, 1, 2, 0, 1, 2, 0, 1]);
        assert_eq!(map(reflect, 1), [0; 9]);
    }

    #[test]
    fn pads_are_checked() {
        assert!(border(&[1, 2, 3], None, 2).is_err());
        assert_eq!(border(&[1, 2], Some(&[-1]), 2).unwrap(), [(0, 0), (1, 2)]);
        assert!(padded(3, (-2, -2)).is_err());
        assert!(padded(3, (i64::MAX, i64::MAX)).is_err() || usize::BITS == 64);
    }
}
