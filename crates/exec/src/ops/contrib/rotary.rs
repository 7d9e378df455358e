//! `RotaryEmbedding` of ONNX Runtime: positions before the caches, or one position to count from.

use super::MICROSOFT;
use super::standard::{refuse, rotary};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::half::through_f32;
use fewbit_core::{Attr, Error, Result, Tensor};

pub(super) const DEF: OpDef = OpDef::new("RotaryEmbedding", same_as_input, eval).domain(MICROSOFT);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    if ctx.int("is_packed_batching", 0)? != 0 {
        return Err(refuse(
            "attribute `is_packed_batching`",
            "samples without padding between them",
        ));
    }
    let x = ctx.take(0)?;
    let (batch, rows) = match *x.shape() {
        [batch, rows, _] | [batch, _, rows, _] => (batch, rows),
        ref shape => return Err(Error::bad_input(format!("an input of shape {shape:?}"))),
    };
    let turned = ctx.int("rotary_embedding_dim", 0)?;
    let heads = match (ctx.int("num_heads", 0)?, x.shape(), ctx.input(2)?.shape().last()) {
        // Heads are as wide as the caches say.
        (_, &[_, _, hidden], Some(&half)) if turned == 0 && half > 0 => {
            (hidden / half.saturating_mul(2)) as i64
        }
        (heads, ..) => heads,
    };
    let ids = positions(ctx, ctx.input(1)?, batch, rows)?;
    let attrs = [
        ("num_heads", Attr::Int(heads)),
        ("rotary_embedding_dim", Attr::Int(turned)),
        ("interleaved", Attr::Int(ctx.int("interleaved", 0)?)),
    ];
    let inputs = vec![Some(x), Some(ctx.input(2)?.clone()), Some(ctx.input(3)?.clone()), Some(ids)];
    Ok(vec![rotary(ctx, &attrs, inputs)?])
}

/// The position of each row: as given, or counted from the one that is.
fn positions(ctx: &EvalCtx, given: &Tensor, batch: usize, rows: usize) -> Result<Tensor> {
    let ids = given.to_i64()?;
    match (given.rank(), ids.as_slice()) {
        (0 | 1, &[first]) => counted(ctx, first, batch, rows),
        (2, _) if given.shape() == [batch, rows] => Ok(given.clone()),
        _ => Err(Error::bad_input(format!(
            "positions of shape {:?} for {batch} samples of {rows} rows",
            given.shape()
        ))),
    }
}

/// `[batch, rows]` positions, counted from `first` in each sample.
pub(super) fn counted(ctx: &EvalCtx, first: i64, batch: usize, rows: usize) -> Result<Tensor> {
    ctx.output(vec![batch, rows], |ids: &mut [i64]| {
        for (at, id) in ids.iter_mut().enumerate() {
            *id = first.saturating_add((at % rows) as i64);
        }
        Ok(())
    })
}
