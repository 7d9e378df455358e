//! Parameters that are attributes in old operator sets and inputs in newer ones, and checks
//! on what they say.

use crate::eval::{EvalCtx, axis_index};
use crate::infer::InferCtx;
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

/// What inference knows of a parameter.
#[derive(Debug, PartialEq)]
pub(crate) enum Known<T> {
    /// The node does not give it.
    Absent,
    /// It is computed by another node.
    Unknown,
    /// Its value.
    Value(T),
}

/// Integers from attribute `attr`, or else from input `index`; `None` when neither is given.
///
/// # Errors
/// When the attribute or the input holds no integers.
pub(crate) fn ints(ctx: &EvalCtx, attr: &str, index: usize) -> Result<Option<Vec<i64>>> {
    match ctx.node.ints(attr)? {
        Some(values) => Ok(Some(values.to_vec())),
        None => ctx.opt(index).map(Tensor::to_i64).transpose(),
    }
}

/// As [`ints`], while types are derived.
///
/// # Errors
/// As [`ints`].
pub(crate) fn known_ints(ctx: &InferCtx, attr: &str, index: usize) -> Result<Known<Vec<i64>>> {
    if let Some(values) = ctx.node.ints(attr)? {
        return Ok(Known::Value(values.to_vec()));
    }
    match ctx.constant(index) {
        Some(tensor) => Ok(Known::Value(tensor.to_i64()?)),
        None if ctx.has(index) => Ok(Known::Unknown),
        None => Ok(Known::Absent),
    }
}

/// The one number in an input.
///
/// # Errors
/// When the input does not hold exactly one number.
pub(crate) fn scalar(tensor: &Tensor) -> Result<f64> {
    match tensor.to_f64()?.as_slice() {
        [value] => Ok(*value),
        values => Err(Error::bad_input(format!("expected one number, found {}", values.len()))),
    }
}

/// The one integer in an input.
///
/// # Errors
/// When the input does not hold exactly one integer.
pub(crate) fn scalar_int(tensor: &Tensor) -> Result<i64> {
    match tensor.to_i64()?.as_slice() {
        [value] => Ok(*value),
        values => Err(Error::bad_input(format!("expected one integer, found {}", values.len()))),
    }
}

/// A size given as a signed number.
///
/// # Errors
/// When it is negative.
pub(crate) fn size(value: i64, what: &str) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::bad_input(format!("{what} is {value}, below 0")))
}

/// Maps axes to `0..rank`, each at most once.
///
/// # Errors
/// When one lies outside or is repeated.
pub(crate) fn distinct_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut found = Vec::with_capacity(axes.len().min(rank));
    for &axis in axes {
        let axis = axis_index(axis, rank)?;
        if found.contains(&axis) {
            return Err(Error::bad_input(format!("axis {axis} is given twice")));
        }
        found.push(axis);
    }
    Ok(found)
}

/// The shape of a value as fixed dimensions.
pub(crate) fn fixed(shape: &[usize]) -> Vec<Dim> {
    shape.iter().map(|&n| Dim::Known(n)).collect()
}

/// A shape of known rank with nothing known of its dimensions.
pub(crate) fn open(rank: usize) -> Vec<Dim> {
    vec![Dim::Unknown; rank]
}

/// All dimensions, if each is fixed.
pub(crate) fn all_known(dims: &[Dim]) -> Option<Vec<usize>> {
    dims.iter().map(Dim::known).collect()
}

/// One output with the element type of input 0 and a shape as far as it is known.
pub(crate) fn like_input(ctx: &InferCtx, shape: Option<Vec<Dim>>) -> Vec<ValueType> {
    vec![crate::infer::typed(ctx.dtype(0), shape)]
}
