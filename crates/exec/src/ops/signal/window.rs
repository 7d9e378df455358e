//! `HannWindow`, `HammingWindow` and `BlackmanWindow`.

use super::precise::turn;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::cast::target;
use crate::ops::params::{scalar_int, size};
use fewbit_core::{DType, Dim, Node, Result, Tensor, ValueType};

pub(super) fn hann(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    window(ctx, &[0.5, -0.5])
}

/// The specification has these fractions where others have 0.54 and 0.46.
pub(super) fn hamming(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    window(ctx, &[25.0 / 46.0, 25.0 / 46.0 - 1.0])
}

pub(super) fn blackman(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    window(ctx, &[0.42, -0.5, 0.08])
}

fn dtype(node: &Node) -> Result<DType> {
    target(node.int("output_datatype")?.unwrap_or(1))
}

/// A sum of cosines over one period, from the constant term on.
fn window(ctx: &EvalCtx, terms: &[f64]) -> Result<Vec<Tensor>> {
    let len = size(scalar_int(ctx.input(0)?)?, "the size of the window")?;
    let dtype = dtype(ctx.node)?;
    let period = match ctx.int("periodic", 1)? {
        0 => len.saturating_sub(1).max(1),
        _ => len.max(1),
    };
    let value = |i: usize| -> f64 {
        let term = |(k, factor): (usize, &f64)| factor * turn((i % period) * k, period).0;
        terms.iter().enumerate().map(term).sum()
    };
    // A size that no tensor can have is refused before it is filled.
    let mut wide = ctx.alloc(DType::F64, vec![len])?;
    wide.as_mut_slice()?.iter_mut().enumerate().for_each(|(i, slot)| *slot = value(i));
    Ok(vec![wide.cast(dtype)?])
}

pub(super) fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let len = match ctx.constant(0) {
        Some(len) => Dim::Known(size(scalar_int(len)?, "the size of the window")?),
        None => Dim::Unknown,
    };
    Ok(vec![typed(Some(dtype(ctx.node)?), Some(vec![len]))])
}
