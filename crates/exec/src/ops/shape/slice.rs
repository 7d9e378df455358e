//! `Slice`: every `step`-th element between `start` and `end` along some axes.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use crate::ops::movement::move_elements;
use crate::ops::params::{Known, distinct_axes, ints, known_ints, like_input};
use crate::ops::strided::{axes, copy, strides};
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("Slice", infer, eval).role(Role::SameScale);

/// What the parameters say about one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    axis: usize,
    start: i64,
    end: i64,
    step: i64,
}

impl Cut {
    /// First index and number of elements on an axis of `dim` elements.
    fn within(self, dim: usize) -> (usize, usize) {
        let dim = dim as i128;
        let wrap = |v: i64| if v < 0 { v as i128 + dim } else { v as i128 };
        let (low, high) = if self.step > 0 { (0, dim) } else { (-1, dim - 1) };
        let start = wrap(self.start).clamp(low.max(0), high.max(0));
        let end = wrap(self.end).clamp(low, high);
        let step = self.step as i128;
        let span = if step > 0 { end - start } else { start - end };
        let count = if dim == 0 || span <= 0 { 0 } else { (span - 1) / step.abs() + 1 };
        (start as usize, count as usize)
    }
}

/// The parameters: `starts`, `ends`, `axes`, `steps`.
type Given = (Vec<i64>, Vec<i64>, Option<Vec<i64>>, Option<Vec<i64>>);

fn cuts((starts, ends, axes, steps): Given, rank: usize) -> Result<Vec<Cut>> {
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(Error::bad_input(format!(
            "{} starts, {} ends, {} axes and {} steps",
            starts.len(),
            ends.len(),
            axes.len(),
            steps.len()
        )));
    }
    if steps.contains(&0) {
        return Err(Error::bad_input("a step of 0"));
    }
    let axes = distinct_axes(&axes, rank)?;
    let cut = |(i, axis)| Cut { axis, start: starts[i], end: ends[i], step: steps[i] };
    Ok(axes.into_iter().enumerate().map(cut).collect())
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let required =
        |v: Option<Vec<i64>>| v.ok_or_else(|| Error::bad_input("starts or ends missing"));
    let given = (
        required(ints(ctx, "starts", 1)?)?,
        required(ints(ctx, "ends", 2)?)?,
        ints(ctx, "axes", 3)?,
        ints(ctx, "steps", 4)?,
    );
    let input = ctx.input(0)?;
    let from = strides(input.shape());
    let (mut shape, mut steps, mut first) = (input.shape().to_vec(), from.clone(), 0usize);
    for cut in cuts(given, input.rank())? {
        let (start, count) = cut.within(shape[cut.axis]);
        shape[cut.axis] = count;
        first = first.wrapping_add(start.wrapping_mul(from[cut.axis] as usize));
        // A step past the end is never taken, so its distance may wrap.
        steps[cut.axis] = from[cut.axis].wrapping_mul(cut.step as isize);
    }
    let walk = axes(&shape, &strides(&shape), &steps);
    let out = move_elements(ctx, &[input], shape, |inputs, out, size| {
        copy(size, (out, 0), (inputs[0], first), &walk);
        Ok(())
    })?;
    Ok(vec![out])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(input) = ctx.shape(0) else {
        return Ok(like_input(ctx, None));
    };
    let mut shape = input.to_vec();
    let optional = |known: Known<Vec<i64>>| match known {
        Known::Absent => Some(None),
        Known::Unknown => None,
        Known::Value(values) => Some(Some(values)),
    };
    let starts = optional(known_ints(ctx, "starts", 1)?).flatten();
    let ends = optional(known_ints(ctx, "ends", 2)?).flatten();
    let axes = optional(known_ints(ctx, "axes", 3)?);
    let steps = optional(known_ints(ctx, "steps", 4)?);
    match (starts, ends, axes, steps) {
        (Some(starts), Some(ends), Some(axes), Some(steps)) => {
            for cut in cuts((starts, ends, axes, steps), shape.len())? {
                shape[cut.axis] = cut_dim(cut, &shape[cut.axis]);
            }
        }
        (_, _, Some(Some(axes)), _) => {
            for axis in distinct_axes(&axes, shape.len())? {
                shape[axis] = Dim::Unknown;
            }
        }
        _ => shape.fill(Dim::Unknown),
    }
    Ok(like_input(ctx, Some(shape)))
}

fn cut_dim(cut: Cut, dim: &Dim) -> Dim {
    match dim.known() {
        Some(dim) => Dim::Known(cut.within(dim).1),
        // "Everything", as exporters write it.
        None if cut.start == 0 && cut.step == 1 && cut.end >= i32::MAX as i64 => dim.clone(),
        None => Dim::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_clamped() {
        let cut = |start, end, step| Cut { axis: 0, start, end, step }.within(5);
        assert_eq!(cut(1, 4, 1), (1, 3));
        assert_eq!(cut(0, i64::MAX, 2), (0, 3));
        assert_eq!(cut(-2, 100, 1), (3, 2));
        assert_eq!(cut(4, 0, -1), (4, 4));
        assert_eq!(cut(-1, i64::MIN, -2), (4, 3));
        assert_eq!(cut(i64::MAX, i64::MIN, i64::MIN), (4, 1));
        assert_eq!(cut(9, 10, 1).1, 0);
        assert_eq!(cut(3, 1, 1).1, 0);
        assert_eq!(Cut { axis: 0, start: 0, end: 9, step: -1 }.within(0).1, 0);
    }
}
