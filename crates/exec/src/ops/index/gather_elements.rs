//! `GatherElements`: one element for each index, along an axis.

use super::place::index_values;
use crate::def::{OpDef, Role};
use crate::eval::{EvalCtx, axis_index};
use crate::infer::InferCtx;
use crate::ops::broadcast::advance;
use crate::ops::movement::{by_size, move_elements};
use crate::ops::params::like_input;
use crate::ops::strided::strides;
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("GatherElements", infer, eval).role(Role::SameScale);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (data, indices) = (ctx.input(0)?, ctx.input(1)?);
    let axis = axis_index(ctx.int("axis", 0)?, data.rank())?;
    let sources = element_offsets(data.shape(), indices, axis)?;
    let out = move_elements(ctx, &[data], indices.shape().to_vec(), |inputs, out, size| {
        by_size!(size, pick(out, inputs[0], &sources));
        Ok(())
    })?;
    Ok(vec![out])
}

fn pick<const N: usize>(out: &mut [u8], input: &[u8], sources: &[usize]) {
    let (input, _) = input.as_chunks::<N>();
    let slots = out.as_chunks_mut::<N>().0.iter_mut();
    slots.zip(sources).for_each(|(slot, &source)| *slot = input[source]);
}

/// For each index the element of `data` it stands for: its own position, with the coordinate
/// on `axis` replaced by the index.
pub(super) fn element_offsets(data: &[usize], indices: &Tensor, axis: usize) -> Result<Vec<usize>> {
    let shape = indices.shape();
    let fits = |i: usize| i == axis || shape[i] <= data[i];
    if shape.len() != data.len() || !(0..data.len()).all(fits) {
        return Err(Error::bad_input(format!(
            "indices of shape {shape:?} do not fit data of shape {data:?} along axis {axis}"
        )));
    }
    let mut steps: Vec<usize> = strides(data).into_iter().map(|step| step as usize).collect();
    let along = std::mem::take(&mut steps[axis]);
    let mut offsets = index_values(indices, data[axis])?;
    let (Some((&len, outer)), Some(&step)) = (shape.split_last(), steps.last()) else {
        return Ok(offsets);
    };
    let (mut at, mut base) = (vec![0; outer.len()], 0);
    for row in offsets.chunks_exact_mut(len.max(1)) {
        for (column, offset) in row.iter_mut().enumerate() {
            *offset = base + *offset * along + column * step;
        }
        advance(&mut at, outer, |axis, forward| match forward {
            true => base += steps[axis],
            false => base -= steps[axis] * (outer[axis] - 1),
        });
    }
    Ok(offsets)
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(like_input(ctx, ctx.shape(1).map(<[Dim]>::to_vec)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_those_of_the_definition() {
        // Indices may reach less far than the data along other axes.
        for (data, shape) in [
            ([3, 4, 5], [3, 4, 5]),
            ([3, 4, 5], [2, 3, 4]),
            ([1, 6, 2], [1, 1, 1]),
            ([2, 2, 3], [2, 0, 3]),
        ] {
            for axis in 0..3 {
                let len: usize = shape.iter().product();
                let values: Vec<i64> = (0..len).map(|i| (i * 7 % data[axis]) as i64).collect();
                let indices = Tensor::from_slice(shape.to_vec(), &values).unwrap();
                let want = |i: usize| {
                    let mut at = [i / shape[2] / shape[1], i / shape[2] % shape[1], i % shape[2]];
                    at[axis] = values[i] as usize;
                    (at[0] * data[1] + at[1]) * data[2] + at[2]
                };
                let want: Vec<usize> = (0..len).map(want).collect();
                assert_eq!(
                    element_offsets(&data, &indices, axis).unwrap(),
                    want,
                    "{data:?} {axis}"
                );
            }
        }
    }
}
