//! `Squeeze` and `Unsqueeze`: dimensions of size 1 removed or inserted.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use crate::ops::params::{Known, distinct_axes, ints, known_ints, like_input, open};
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const SQUEEZE: OpDef =
    OpDef::new("Squeeze", infer_squeeze, eval_squeeze).role(Role::SameScale);
pub(super) const UNSQUEEZE: OpDef =
    OpDef::new("Unsqueeze", infer_unsqueeze, eval_unsqueeze).role(Role::SameScale);

fn eval_squeeze(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let axes = ints(ctx, "axes", 1)?;
    let input = ctx.take(0)?;
    let shape = match axes {
        None => input.shape().iter().copied().filter(|&n| n != 1).collect(),
        Some(axes) => {
            let dims: Vec<Dim> = crate::ops::params::fixed(input.shape());
            squeezed(&dims, &axes)?.iter().filter_map(Dim::known).collect()
        }
    };
    Ok(vec![input.reshape(shape)?])
}

fn squeezed(dims: &[Dim], axes: &[i64]) -> Result<Vec<Dim>> {
    let axes = distinct_axes(axes, dims.len())?;
    for &axis in &axes {
        if dims[axis].known().is_some_and(|n| n != 1) {
            return Err(Error::bad_input(format!(
                "axis {axis} of size {} cannot be squeezed",
                dims[axis]
            )));
        }
    }
    let kept = dims.iter().enumerate().filter(|(i, _)| !axes.contains(i));
    Ok(kept.map(|(_, d)| d.clone()).collect())
}

fn infer_squeeze(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shape = match (ctx.shape(0), known_ints(ctx, "axes", 1)?) {
        (Some(dims), Known::Value(axes)) => Some(squeezed(dims, &axes)?),
        (Some(dims), Known::Absent) if dims.iter().all(|d| d.known().is_some()) => {
            Some(dims.iter().filter(|d| **d != Dim::Known(1)).cloned().collect())
        }
        _ => None,
    };
    Ok(like_input(ctx, shape))
}

fn eval_unsqueeze(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let axes =
        ints(ctx, "axes", 1)?.ok_or_else(|| Error::bad_input("the axes to insert are missing"))?;
    let input = ctx.take(0)?;
    let shape = unsqueezed(input.shape(), &axes, 1)?;
    Ok(vec![input.reshape(shape)?])
}

fn unsqueezed<T: Clone>(dims: &[T], axes: &[i64], one: T) -> Result<Vec<T>> {
    let rank = dims.len() + axes.len();
    let axes = distinct_axes(axes, rank)?;
    let mut old = dims.iter().cloned();
    let slots = (0..rank).map(|i| if axes.contains(&i) { Some(one.clone()) } else { old.next() });
    Ok(slots.flatten().collect())
}

fn infer_unsqueeze(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shape = match (ctx.shape(0), known_ints(ctx, "axes", 1)?) {
        (Some(dims), Known::Value(axes)) => Some(unsqueezed(dims, &axes, Dim::Known(1))?),
        (Some(dims), _) => {
            let count = ctx.shape(1).and_then(|s| s.first()).and_then(Dim::known);
            count.filter(|&n| n <= 64).map(|n| open(dims.len() + n))
        }
        _ => None,
    };
    Ok(like_input(ctx, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_count_in_the_larger_rank() {
        assert_eq!(unsqueezed(&[3, 4], &[0, -1], 1).unwrap(), [1, 3, 4, 1]);
        assert_eq!(unsqueezed(&[5], &[2, 1], 1).unwrap(), [5, 1, 1]);
        assert!(unsqueezed(&[3, 4], &[0, -4], 1).is_err());
        assert!(unsqueezed(&[3], &[2], 1).is_err());
    }

    #[test]
    fn only_ones_can_be_squeezed() {
        let dims = [Dim::Known(1), Dim::Known(3), Dim::Named("n".into())];
        assert_eq!(squeezed(&dims, &[0]).unwrap(), dims[1..]);
        assert_eq!(squeezed(&dims, &[-1, 0]).unwrap(), dims[1..2]);
        assert!(squeezed(&dims, &[1]).is_err());
        assert!(squeezed(&dims, &[0, -3]).is_err());
    }
}
