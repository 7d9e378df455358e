//! `TopK`: the largest or smallest elements along an axis, and where they stand.

use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, typed};
use crate::ops::movement::{by_size, move_elements};
use crate::ops::params::{scalar_int, size};
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};
use std::cmp::Ordering;

pub(super) const DEFS: &[OpDef] = &[OpDef::new("TopK", infer, eval)];

enum Keys {
    Floats(Vec<f64>),
    Integers(Vec<i64>),
}

impl Keys {
    fn of(tensor: &Tensor) -> Result<Keys> {
        Ok(match tensor.dtype() {
            dtype if dtype.is_float() => Keys::Floats(tensor.to_f64()?),
            // Flipping the sign bit makes the signed order that of the unsigned values.
            DType::U64 => {
                Keys::Integers(tensor.to_i64()?.into_iter().map(|v| v ^ i64::MIN).collect())
            }
            _ => Keys::Integers(tensor.to_i64()?),
        })
    }

    /// NaN counts as the largest value, as in numpy's order.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Keys::Integers(v) => v[a].cmp(&v[b]),
            Keys::Floats(v) => {
                v[a].partial_cmp(&v[b]).unwrap_or_else(|| v[a].is_nan().cmp(&v[b].is_nan()))
            }
        }
    }
}

fn count(ctx: &EvalCtx) -> Result<usize> {
    let k = match ctx.node.int("k")? {
        Some(k) => k,
        None => scalar_int(ctx.input(1)?)?,
    };
    size(k, "K")
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, k) = (ctx.input(0)?, count(ctx)?);
    let axis = axis_index(ctx.int("axis", -1)?, input.rank())?;
    let (mut shape, dim) = (input.shape().to_vec(), input.shape()[axis]);
    if k > dim {
        return Err(Error::bad_input(format!("the top {k} of {dim} elements")));
    }
    let inner: usize = shape[axis + 1..].iter().product();
    shape[axis] = k;
    let largest = ctx.int("largest", 1)? != 0;
    let picked = pick(&Keys::of(input)?, input.len(), (dim, inner, k), largest);
    let values = move_elements(ctx, &[input], shape.clone(), |inputs, out, size| {
        by_size!(size, gather(out, inputs[0], &picked));
        Ok(())
    })?;
    let positions: Vec<i64> = picked.iter().map(|&at| (at / inner % dim) as i64).collect();
    Ok(vec![values, Tensor::from_slice(shape, &positions)?])
}

fn gather<const N: usize>(out: &mut [u8], input: &[u8], sources: &[usize]) {
    let (input, _) = input.as_chunks::<N>();
    let slots = out.as_chunks_mut::<N>().0.iter_mut();
    slots.zip(sources).for_each(|(slot, &source)| *slot = input[source]);
}

/// The elements of the output, in its order; of equal ones the first come first.
fn pick(
    keys: &Keys,
    len: usize,
    (dim, inner, k): (usize, usize, usize),
    largest: bool,
) -> Vec<usize> {
    if len == 0 || k == 0 {
        return Vec::new();
    }
    let outer = len / (dim * inner);
    let mut picked = vec![0; outer * k * inner];
    let mut order: Vec<usize> = Vec::with_capacity(dim);
    let before = |a: &usize, b: &usize| match largest {
        true => keys.compare(*b, *a).then(a.cmp(b)),
        false => keys.compare(*a, *b).then(a.cmp(b)),
    };
    for line in 0..outer * inner {
        let (block, column) = (line / inner, line % inner);
        order.clear();
        order.extend((0..dim).map(|row| (block * dim + row) * inner + column));
        if k < dim {
            order.select_nth_unstable_by(k - 1, before);
        }
        order[..k].sort_unstable_by(before);
        for (row, &source) in order[..k].iter().enumerate() {
            picked[(block * k + row) * inner + column] = source;
        }
    }
    picked
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let k = match (ctx.node.int("k")?, ctx.constant(1)) {
        (Some(k), _) => Dim::Known(size(k, "K")?),
        (None, Some(k)) => Dim::Known(size(scalar_int(k)?, "K")?),
        (None, None) => Dim::Unknown,
    };
    let mut shape = ctx.shape(0).map(<[Dim]>::to_vec);
    if let Some(shape) = &mut shape {
        let axis = axis_index(ctx.node.int("axis")?.unwrap_or(-1), shape.len())?;
        shape[axis] = k;
    }
    Ok(vec![typed(ctx.dtype(0), shape.clone()), typed(Some(DType::I64), shape)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_elements_keep_their_order() {
        let keys = Keys::Integers(vec![1, 3, 3, 2, 3]);
        assert_eq!(pick(&keys, 5, (5, 1, 4), true), [1, 2, 4, 3]);
        assert_eq!(pick(&keys, 5, (5, 1, 2), false), [0, 3]);
    }

    #[test]
    fn nan_is_the_largest() {
        let keys = Keys::Floats(vec![1.0, f64::NAN, f64::INFINITY]);
        assert_eq!(pick(&keys, 3, (3, 1, 3), true), [1, 2, 0]);
    }
}
