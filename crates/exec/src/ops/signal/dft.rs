//! `DFT`: Fourier transforms along an axis. The last axis holds the real part alone, or the real
//! and the imaginary part.

use super::fourier::{Complex, Plan};
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, typed};
use crate::ops::params::{scalar_int, size};
use fewbit_core::{DType, Dim, Error, Node, Result, Tensor, ValueType};

/// What a node asks for.
struct Kind {
    inverse: bool,
    onesided: bool,
}

impl Kind {
    fn of(node: &Node) -> Result<Kind> {
        let flag = |name| Ok(node.int(name)?.unwrap_or(0) != 0);
        Ok(Kind { inverse: flag("inverse")?, onesided: flag("onesided")? })
    }

    /// Elements along the axis, and numbers for each, that a transform of length `n` gives.
    fn output(&self, n: usize) -> (usize, usize) {
        match (self.inverse, self.onesided) {
            (true, true) => (n, 1),
            (false, true) => (n / 2 + 1, 2),
            _ => (n, 2),
        }
    }
}

/// The axis: an attribute that is 1 unless given, from opset 20 on an input that is -2.
fn axis(node: &Node, opset: i64, input: Option<&Tensor>, rank: usize) -> Result<usize> {
    let axis = match (opset < 20, input) {
        (true, _) => node.int("axis")?.unwrap_or(1),
        (false, Some(axis)) => scalar_int(axis)?,
        (false, None) => -2,
    };
    let axis = axis_index(axis, rank)?;
    match axis + 1 < rank {
        true => Ok(axis),
        false => Err(Error::bad_input("the last axis holds real and imaginary parts")),
    }
}

pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, kind) = (ctx.input(0)?, Kind::of(ctx.node)?);
    let mut shape = input.shape().to_vec();
    let axis = axis(ctx.node, ctx.opset, ctx.opt(2), shape.len())?;
    let (dim, parts) = (shape[axis], shape[shape.len() - 1]);
    let default = match kind.inverse && kind.onesided {
        true => 2 * dim.saturating_sub(1),
        false => dim,
    };
    let n = match ctx.opt(1) {
        Some(length) => size(scalar_int(length)?, "dft_length")?,
        None => default,
    };
    if !matches!(parts, 1 | 2) || n == 0 || (kind.onesided && !kind.inverse && parts == 2) {
        return Err(Error::bad_input(format!(
            "a transform of length {n} of {parts} numbers per element; the length must be 1 at \
             least, and there must be 1 or 2 numbers (1 for a one-sided transform)"
        )));
    }
    let (out_dim, out_parts) = kind.output(n);
    let inner: usize = shape[axis + 1..shape.len() - 1].iter().product();
    let last = shape.len() - 1;
    (shape[axis], shape[last]) = (out_dim, out_parts);
    let mut out = ctx.alloc(DType::F64, shape)?;
    let values = input.to_f64()?;
    let y = out.as_mut_slice::<f64>()?;
    if y.is_empty() {
        return Ok(vec![out.cast(input.dtype())?]);
    }
    let plan = Plan::new(n, kind.inverse);
    for line in 0..y.len() / (out_dim * inner * out_parts) * inner {
        let (outer, column) = (line / inner, line % inner);
        let at = |k: usize| ((outer * dim + k) * inner + column) * parts;
        let imaginary = |k: usize| if parts == 2 { values[at(k) + 1] } else { 0.0 };
        let mut elements: Vec<Complex> =
            (0..dim.min(n)).map(|k| (values[at(k)], imaginary(k))).collect();
        if kind.inverse && kind.onesided {
            mirror(&mut elements, n);
        }
        for (k, &(re, im)) in plan.run(&elements).iter().take(out_dim).enumerate() {
            let to = ((outer * out_dim + k) * inner + column) * out_parts;
            y[to..][..out_parts].copy_from_slice(&[re, im][..out_parts]);
        }
    }
    Ok(vec![out.cast(input.dtype())?])
}

/// Completes the first half of the spectrum of a real signal of length `n`.
fn mirror(half: &mut Vec<Complex>, n: usize) {
    half.resize(n / 2 + 1, (0.0, 0.0));
    half[0].1 = 0.0;
    if n.is_multiple_of(2) {
        half[n / 2].1 = 0.0;
    }
    for k in n / 2 + 1..n {
        let (re, im) = half[n - k];
        half.push((re, -im));
    }
}

pub(super) fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let (dtype, kind) = (ctx.dtype(0), Kind::of(ctx.node)?);
    let axis_known = ctx.opset < 20 || !ctx.has(2) || ctx.constant(2).is_some();
    let Some(dims) = ctx.shape(0).filter(|_| axis_known) else {
        return Ok(vec![typed(dtype, None)]);
    };
    let mut shape = dims.to_vec();
    let axis = axis(ctx.node, ctx.opset, ctx.constant(2), shape.len())?;
    let n = match (ctx.constant(1), ctx.has(1), kind.inverse && kind.onesided) {
        (Some(length), ..) => Some(size(scalar_int(length)?, "dft_length")?),
        (None, true, _) => None,
        (None, false, true) => dims[axis].known().map(|dim| 2 * dim.saturating_sub(1)),
        (None, false, false) => dims[axis].known(),
    };
    let last = shape.len() - 1;
    shape[axis] = n.map_or(Dim::Unknown, |n| Dim::Known(kind.output(n).0));
    shape[last] = Dim::Known(kind.output(1).1);
    Ok(vec![typed(dtype, Some(shape))])
}
