//! `Unique`: different values or slices, with where each comes from.

use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, typed};
use fewbit_core::{DType, Dim, Result, Tensor, ValueType};
use std::cmp::Ordering;

pub(super) const DEF: OpDef = OpDef::new("Unique", infer, eval);

/// Slices of a tensor along an axis (single elements without one), in an order.
struct Slices {
    outer: usize,
    dim: usize,
    inner: usize,
    keys: Keys,
}

enum Keys {
    Numbers(Vec<f64>),
    Integers(Vec<i64>),
    Strings(Vec<Vec<u8>>),
}

impl Keys {
    fn of(tensor: &Tensor) -> Result<Self> {
        Ok(match tensor.strings() {
            Some(strings) => Keys::Strings(strings.to_vec()),
            None if tensor.dtype().is_float() => Keys::Numbers(tensor.to_f64()?),
            None if tensor.dtype() == DType::U64 => {
                // Flipping the sign bit makes the signed order that of the unsigned values.
                Keys::Integers(tensor.to_i64()?.into_iter().map(|v| v ^ i64::MIN).collect())
            }
            None => Keys::Integers(tensor.to_i64()?),
        })
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            // -0.0 and 0.0 are the same value; NaN comes last.
            Keys::Numbers(v) => {
                v[a].partial_cmp(&v[b]).unwrap_or_else(|| v[a].is_nan().cmp(&v[b].is_nan()))
            }
            Keys::Integers(v) => v[a].cmp(&v[b]),
            Keys::Strings(v) => v[a].cmp(&v[b]),
        }
    }
}

impl Slices {
    fn compare(&self, a: usize, b: usize) -> Ordering {
        for outer in 0..self.outer {
            let start = |slice: usize| (outer * self.dim + slice) * self.inner;
            for i in 0..self.inner {
                match self.keys.compare(start(a) + i, start(b) + i) {
                    Ordering::Equal => {}
                    different => return different,
                }
            }
        }
        Ordering::Equal
    }
}

/// The different slices: first occurrence and count of each, and for every slice its number.
#[derive(Debug, PartialEq)]
struct Groups {
    first: Vec<usize>,
    count: Vec<i64>,
    inverse: Vec<i64>,
}

fn groups(slices: &Slices, sorted: bool) -> Groups {
    let mut order: Vec<usize> = (0..slices.dim).collect();
    order.sort_by(|&a, &b| slices.compare(a, b));
    let mut members: Vec<Vec<usize>> = Vec::new();
    for slice in order {
        match members.last_mut() {
            Some(group) if slices.compare(group[0], slice) == Ordering::Equal => group.push(slice),
            _ => members.push(vec![slice]),
        }
    }
    if !sorted {
        members.sort_by_key(|group| group[0]);
    }
    let mut inverse = vec![0; slices.dim];
    for (number, group) in members.iter().enumerate() {
        group.iter().for_each(|&slice| inverse[slice] = number as i64);
    }
    let first = members.iter().map(|group| group[0]).collect();
    Groups { first, count: members.iter().map(|group| group.len() as i64).collect(), inverse }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let (shape, axis) = match ctx.node.int("axis")? {
        Some(axis) => (input.shape().to_vec(), axis_index(axis, input.rank())?),
        None => (vec![input.len()], 0),
    };
    let dim = shape[axis];
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let slices = Slices { outer, dim, inner, keys: Keys::of(input)? };
    let found = groups(&slices, ctx.int("sorted", 1)? != 0);
    let unique = super::picked(ctx, &input.reshape(shape)?, axis, &found.first)?;
    let first: Vec<i64> = found.first.iter().map(|&i| i as i64).collect();
    let [first, inverse, count] = [&first, &found.inverse, &found.count].map(|v| Tensor::vector(v));
    Ok(vec![unique, first, inverse, count])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shape = match (ctx.node.int("axis")?, ctx.shape(0)) {
        (None, _) => Some(vec![Dim::Unknown]),
        (Some(axis), Some(dims)) => {
            let mut shape = dims.to_vec();
            shape[axis_index(axis, dims.len())?] = Dim::Unknown;
            Some(shape)
        }
        _ => None,
    };
    let indices = typed(Some(DType::I64), Some(vec![Dim::Unknown]));
    Ok(vec![typed(ctx.dtype(0), shape), indices.clone(), indices.clone(), indices])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_sorted_or_in_order_of_appearance() {
        let keys = Keys::Integers(vec![2, 1, 1, 3, 4, 3]);
        let slices = Slices { outer: 1, dim: 6, inner: 1, keys };
        let sorted = groups(&slices, true);
        assert_eq!(sorted.first, [1, 0, 3, 4]);
        assert_eq!(sorted.inverse, [1, 0, 0, 2, 3, 2]);
        assert_eq!(groups(&slices, false).first, [0, 1, 3, 4]);
        assert_eq!(groups(&slices, false).count, [1, 2, 2, 1]);
    }
}
