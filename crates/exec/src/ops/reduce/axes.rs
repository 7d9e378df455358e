//! Which axes a reduction removes. They are an attribute in old operator sets and input 1 in new
//! ones.

use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::params::{Known, ints, known_ints};
use fewbit_core::{Dim, Result, ValueType};

/// A shape with its reduced axes marked.
pub(super) struct Reduced {
    shape: Vec<usize>,
    reduced: Vec<bool>,
    /// The shape with reduced axes of length 1.
    pub kept: Vec<usize>,
    keep: bool,
}

impl Reduced {
    /// The axes that a node reduces in an input of `shape`.
    ///
    /// # Errors
    /// When an axis lies outside of the shape.
    pub fn new(ctx: &EvalCtx, shape: &[usize]) -> Result<Reduced> {
        let axes = ints(ctx, "axes", 1)?.unwrap_or_default();
        let idle = ctx.int("noop_with_empty_axes", 0)? != 0;
        Ok(Self::marked(marked(&axes, shape.len(), idle)?, shape, ctx.int("keepdims", 1)? != 0))
    }

    /// These axes, at least one.
    ///
    /// # Errors
    /// When an axis lies outside of the shape.
    pub fn of(axes: &[i64], shape: &[usize], keep: bool) -> Result<Reduced> {
        Ok(Self::marked(marked(axes, shape.len(), true)?, shape, keep))
    }

    fn marked(reduced: Vec<bool>, shape: &[usize], keep: bool) -> Reduced {
        let kept = shape.iter().zip(&reduced).map(|(&d, &r)| if r { 1 } else { d }).collect();
        Reduced { shape: shape.to_vec(), reduced, kept, keep }
    }

    /// The shape of the result.
    pub fn output_shape(&self) -> Vec<usize> {
        let axes = self.kept.iter().zip(&self.reduced);
        axes.filter(|(_, r)| self.keep || !**r).map(|(&d, _)| d).collect()
    }

    /// Elements that become one.
    pub fn count(&self) -> usize {
        self.axes(true).map(|axis| self.shape[axis]).product()
    }

    fn axes(&self, reduced: bool) -> impl Iterator<Item = usize> + '_ {
        (0..self.shape.len()).filter(move |&axis| self.reduced[axis] == reduced)
    }

    /// `[outer, len, inner]` if the reduced axes lie side by side, but for axes of length 1.
    pub fn as_one_run(&self) -> Option<[usize; 3]> {
        let mut real = self.axes(true).filter(|&axis| self.shape[axis] != 1);
        let Some(first) = real.next() else {
            return Some([self.shape.iter().product(), 1, 1]);
        };
        let last = real.last().unwrap_or(first);
        if (first..=last).any(|axis| !self.reduced[axis] && self.shape[axis] != 1) {
            return None;
        }
        let size = |axes: std::ops::Range<usize>| self.shape[axes].iter().product();
        Some([size(0..first), size(first..last + 1), size(last + 1..self.shape.len())])
    }

    /// The order of axes that brings the reduced ones to the end.
    pub fn kept_first(&self) -> Vec<usize> {
        self.axes(false).chain(self.axes(true)).collect()
    }
}

/// No axes means all, unless the node says that it means none.
fn marked(axes: &[i64], rank: usize, idle: bool) -> Result<Vec<bool>> {
    let mut reduced = vec![axes.is_empty() && !idle; rank];
    for &axis in axes {
        reduced[axis_index(axis, rank)?] = true;
    }
    Ok(reduced)
}

/// The output of a reduction.
pub(super) fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let axes = match known_ints(ctx, "axes", 1)? {
        Known::Value(axes) => axes,
        Known::Absent => Vec::new(),
        Known::Unknown => return Ok(vec![only_dtype(ctx.dtype(0))]),
    };
    let Some(shape) = ctx.shape(0) else {
        return Ok(vec![only_dtype(ctx.dtype(0))]);
    };
    let keep = ctx.node.int("keepdims")?.unwrap_or(1) != 0;
    let idle = ctx.node.int("noop_with_empty_axes")?.unwrap_or(0) != 0;
    let reduced = marked(&axes, shape.len(), idle)?;
    let dims = shape.iter().zip(&reduced).filter(|(_, r)| keep || !**r);
    let dims = dims.map(|(d, r)| if *r { Dim::Known(1) } else { d.clone() }).collect();
    Ok(vec![typed(ctx.dtype(0), Some(dims))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(shape: &[usize], axes: &[i64]) -> Option<[usize; 3]> {
        let reduced = marked(axes, shape.len(), true).unwrap();
        let kept = Vec::new();
        Reduced { shape: shape.to_vec(), reduced, kept, keep: true }.as_one_run()
    }

    #[test]
    fn neighbouring_axes_are_one_run() {
        assert_eq!(run(&[2, 3, 4, 5], &[2, -1]), Some([6, 20, 1]));
        assert_eq!(run(&[2, 3, 4, 5], &[1]), Some([2, 3, 20]));
        assert_eq!(run(&[2, 3, 1, 5], &[1, 3]), Some([2, 15, 1]));
        assert_eq!(run(&[2, 3, 4, 5], &[0, 2]), None);
        assert_eq!(run(&[2, 3], &[]), Some([6, 1, 1]));
        assert_eq!(run(&[], &[]), Some([1, 1, 1]));
        assert_eq!(run(&[2, 0, 4], &[1]), Some([2, 0, 4]));
    }
}
