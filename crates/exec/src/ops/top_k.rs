//! `TopK`: the largest or smallest elements along an axis, and where they stand.

use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, typed};
use crate::ops::movement::{by_size, move_elements};
use crate::ops::params::{scalar_int, size};
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};

pub(super) const DEFS: &[OpDef] = &[OpDef::new("TopK", infer, eval)];

/// A number for each element, in the order in which `TopK` gives them, the smallest one first.
fn ranks(tensor: &Tensor, largest: bool) -> Result<Vec<u64>> {
    let mut ranks: Vec<u64> = match tensor.dtype() {
        dtype if dtype.is_float() => tensor.to_f64()?.into_iter().map(float_rank).collect(),
        DType::U64 => tensor.to_i64()?.into_iter().map(|v| v as u64).collect(),
        // Flipping the sign bit makes the unsigned order that of the signed values.
        _ => tensor.to_i64()?.into_iter().map(|v| (v ^ i64::MIN) as u64).collect(),
    };
    if largest {
        ranks.iter_mut().for_each(|rank| *rank = !*rank);
    }
    Ok(ranks)
}

/// Zeros are equal, and NaN counts as the largest value, as in numpy's order.
fn float_rank(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    match value.is_nan() {
        true => u64::MAX,
        false if value < 0.0 => !bits,
        false => bits | 1 << 63,
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
    let picked = pick(&ranks(input, largest)?, (dim, inner, k));
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
fn pick(ranks: &[u64], (dim, inner, k): (usize, usize, usize)) -> Vec<usize> {
    if ranks.is_empty() || k == 0 {
        return Vec::new();
    }
    let outer = ranks.len() / (dim * inner);
    let mut picked = vec![0; outer * k * inner];
    let mut order: Vec<(u64, usize)> = Vec::with_capacity(dim);
    for line in 0..outer * inner {
        let (block, column) = (line / inner, line % inner);
        let source = |row: usize| (block * dim + row) * inner + column;
        order.clear();
        order.extend((0..dim).map(|row| (ranks[source(row)], source(row))));
        if k < dim {
            order.select_nth_unstable(k - 1);
        }
        order[..k].sort_unstable();
        for (row, &(_, source)) in order[..k].iter().enumerate() {
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
    use fewbit_core::Element;

    fn picked<T: Element>(values: &[T], sizes: (usize, usize, usize), largest: bool) -> Vec<usize> {
        pick(&ranks(&Tensor::vector(values), largest).unwrap(), sizes)
    }

    #[test]
    fn equal_elements_keep_their_order() {
        let values = [1, 3, 3, 2, 3i64];
        assert_eq!(picked(&values, (5, 1, 4), true), [1, 2, 4, 3]);
        assert_eq!(picked(&values, (5, 1, 2), false), [0, 3]);
        assert_eq!(picked(&[0.0f32, -0.0, 0.0, -1.0], (4, 1, 3), true), [0, 1, 2]);
        assert_eq!(picked(&[0.0f32, -0.0, 0.0, -1.0], (4, 1, 3), false), [3, 0, 1]);
    }

    #[test]
    fn nan_is_the_largest() {
        for nan in [f64::NAN, -f64::NAN] {
            assert_eq!(picked(&[1.0, nan, f64::INFINITY], (3, 1, 3), true), [1, 2, 0]);
            assert_eq!(picked(&[1.0, nan, -f64::INFINITY], (3, 1, 3), false), [2, 0, 1]);
        }
    }

    #[test]
    fn integers_have_their_own_order() {
        assert_eq!(picked(&[-1, i64::MIN, i64::MAX, 0], (4, 1, 4), true), [2, 3, 0, 1]);
        assert_eq!(picked(&[1, u64::MAX, 1 << 63, 0], (4, 1, 4), true), [1, 2, 0, 3]);
    }

    #[test]
    fn few_of_many_are_the_first_of_all_sorted() {
        let (dim, inner, k) = (101, 3, 7);
        let values: Vec<f32> = (0..2 * dim * inner).map(|i| (i * 37 % 53) as f32 - 26.0).collect();
        let got = picked(&values, (dim, inner, k), true);
        for (at, &source) in got.iter().enumerate() {
            let (block, row, column) = (at / inner / k, at / inner % k, at % inner);
            let mut line: Vec<usize> =
                (0..dim).map(|row| (block * dim + row) * inner + column).collect();
            line.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
            assert_eq!(source, line[row]);
        }
    }
}
