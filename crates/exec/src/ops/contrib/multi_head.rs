//! `MultiHeadAttention`: attention with a bias of its projections, padding and a past.

use super::MICROSOFT;
use super::gelu::plus;
use super::padding::added;
use super::standard::{attention, refuse};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::half::through_f32;
use fewbit_core::{Attr, Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("MultiHeadAttention", infer, eval).domain(MICROSOFT);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = vec![only_dtype(ctx.dtype(0)); ctx.node.outputs.len().max(1)];
    let width = match ctx.shape(2) {
        Some([_, _, width]) => width.clone(),
        Some([_, heads, _, size]) => {
            let product = heads.known().zip(size.known()).and_then(|(n, h)| n.checked_mul(h));
            product.map_or(Dim::Unknown, Dim::Known)
        }
        _ => Dim::Unknown,
    };
    if let Some([batch, rows, _]) = ctx.shape(0) {
        types[0] = typed(ctx.dtype(0), Some(vec![batch.clone(), rows.clone(), width]));
    }
    Ok(types)
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    if ctx.opt(8).is_some() || ctx.opt(9).is_some() {
        return Err(refuse("input 8", "a past that shares its buffer with the present"));
    }
    if ctx.node.output(3).is_some() {
        return Err(refuse("output 3", "scores as an output"));
    }
    let (Some(key), Some(value), 3) = (ctx.opt(1), ctx.opt(2), ctx.input(0)?.rank()) else {
        return Err(refuse("input 0", "queries, keys and values packed as one"));
    };
    let &[batch, rows, hidden] = ctx.input(0)?.shape() else {
        return Err(Error::bad_input("queries are not of rank 3"));
    };
    let q = plus_part(ctx, ctx.input(0)?, 0)?;
    let (k, v) = match key.rank() {
        3 => (plus_part(ctx, key, hidden)?, plus_part(ctx, value, hidden.saturating_mul(2))?),
        _ => (key.clone(), value.clone()),
    };
    let (&[_, new, _] | &[_, _, new, _]) = k.shape() else {
        return Err(Error::bad_input(format!("keys of shape {:?}", k.shape())));
    };
    let past = ctx.opt(6).and_then(|past| past.shape().get(2)).copied().unwrap_or(0);
    let mask = added(ctx, ctx.opt(4), ctx.opt(5), [batch, rows, past.saturating_add(new)])?;
    let causal = rows > 1 && ctx.int("unidirectional", 0)? != 0;
    if causal && new != rows {
        return Err(refuse("attribute `unidirectional`", "an order between unlike texts"));
    }
    let heads = ctx.int("num_heads", 0)?;
    let mut attrs = vec![
        ("q_num_heads", Attr::Int(heads)),
        ("kv_num_heads", Attr::Int(heads)),
        ("is_causal", Attr::Int(causal.into())),
    ];
    attrs.extend(scale(ctx)?);
    let (keys, values) = (ctx.opt(6).cloned(), ctx.opt(7).cloned());
    let inputs = vec![Some(q), Some(k), Some(v), mask, keys, values];
    attention(ctx, &attrs, inputs, ctx.node.outputs.len())
}

/// The factor of the scores, where the node gives one; 0 means that it does not.
pub(super) fn scale(ctx: &EvalCtx) -> Result<Option<(&'static str, Attr)>> {
    let scale = ctx.float("scale", 0.0)?;
    Ok((scale != 0.0).then_some(("scale", Attr::Float(scale))))
}

/// `x` plus the part of the bias (input 3) that begins at `start`.
fn plus_part(ctx: &EvalCtx, x: &Tensor, start: usize) -> Result<Tensor> {
    let Some(bias) = ctx.opt(3) else { return Ok(x.clone()) };
    let width = x.shape().last().copied().unwrap_or(0);
    let values = bias.cow::<f32>()?;
    let Some(part) = values.get(start..).and_then(|rest| rest.get(..width)) else {
        let (given, needed) = (values.len(), start.saturating_add(width));
        return Err(Error::bad_input(format!("a bias of {given} numbers, fewer than {needed}")));
    };
    plus(ctx, x, &Tensor::vector(part))
}
