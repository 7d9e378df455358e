//! `EmbedLayerNormalization`: the sum of word, position and segment embeddings, normalized.

use super::MICROSOFT;
use super::skip_norm::{normalize, row};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype};
use crate::ops::half::through_f32;
use fewbit_core::{DType, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("EmbedLayerNormalization", infer, eval).domain(MICROSOFT);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = ctx.dtype(2);
    let types = [only_dtype(dtype), only_dtype(Some(DType::I32)), only_dtype(dtype)];
    Ok(types.into_iter().take(ctx.node.outputs.len().max(1)).collect())
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let &[batch, len] = ctx.input(0)?.shape() else {
        return Err(Error::bad_input(format!("ids of shape {:?}", ctx.input(0)?.shape())));
    };
    let words = Table::new(ctx.input(2)?)?;
    let mut sum = ctx.alloc(DType::F32, vec![batch, len, words.width])?;
    sum.as_mut_slice::<f32>()?.fill(0.0);
    words.add(&ids(ctx.input(0)?, batch * len)?, &mut sum)?;
    let positions = match ctx.opt(8) {
        Some(given) if given.len() == len => ids(given, len)?.repeat(batch),
        Some(given) => ids(given, batch * len)?,
        None => (0..batch * len).map(|i| (i % len) as i64).collect(),
    };
    Table::new(ctx.input(3)?)?.add(&positions, &mut sum)?;
    if let (Some(segments), Some(table)) = (ctx.opt(1), ctx.opt(4)) {
        Table::new(table)?.add(&ids(segments, batch * len)?, &mut sum)?;
    }
    let (gamma, beta) = (row(&sum, ctx.input(5)?)?, row(&sum, ctx.input(6)?)?);
    let y = normalize(ctx, &sum, &gamma, Some(&beta), true, 1e-12)?;
    Ok([y, mask_index(ctx, batch, len)?, sum]
        .into_iter()
        .take(ctx.node.outputs.len().max(1))
        .collect())
}

fn ids(tensor: &Tensor, count: usize) -> Result<Vec<i64>> {
    if tensor.len() != count {
        return Err(Error::bad_input(format!("{} ids for {count} positions", tensor.len())));
    }
    tensor.to_i64()
}

/// Embeddings, `[rows, width]`.
struct Table<'a> {
    values: std::borrow::Cow<'a, [f32]>,
    rows: usize,
    width: usize,
}

impl<'a> Table<'a> {
    fn new(tensor: &'a Tensor) -> Result<Table<'a>> {
        match *tensor.shape() {
            [rows, width] => Ok(Table { values: tensor.cow()?, rows, width }),
            ref shape => Err(Error::bad_input(format!("an embedding table of shape {shape:?}"))),
        }
    }

    fn add(&self, ids: &[i64], sum: &mut Tensor) -> Result<()> {
        if sum.shape().last() != Some(&self.width) {
            return Err(Error::bad_input("the embedding tables differ in width"));
        }
        let rows = sum.as_mut_slice::<f32>()?.chunks_exact_mut(self.width.max(1));
        for (&id, sum) in ids.iter().zip(rows) {
            let Some(row) = usize::try_from(id).ok().filter(|&row| row < self.rows) else {
                return Err(Error::bad_input(format!("id {id} in a table of {}", self.rows)));
            };
            let values = &self.values[row * self.width..][..self.width];
            sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
        }
        Ok(())
    }
}

/// How many positions of each sample the mask (input 7) keeps.
fn mask_index(ctx: &EvalCtx, batch: usize, len: usize) -> Result<Tensor> {
    let Some(mask) = ctx.opt(7) else {
        return Tensor::zeros(DType::I32, vec![batch]);
    };
    let mask = ids(mask, batch * len)?;
    let count = |sample: &[i64]| sample.iter().filter(|&&keep| keep != 0).count() as i32;
    let counts: Vec<i32> = mask.chunks(len.max(1)).map(count).collect();
    Tensor::from_slice(vec![batch], &counts)
}
