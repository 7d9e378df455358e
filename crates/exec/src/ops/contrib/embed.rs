//! `EmbedLayerNormalization`: the sum of word, position and segment embeddings, normalized; and
//! the same on codes.

use super::MICROSOFT;
use super::skip_norm::{normalize, row};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype};
use crate::ops::half::through_f32;
use crate::ops::number::unsupported_dtype;
use crate::ops::params::scalar;
use fewbit_core::{DType, Error, Result, Tensor, ValueType};
use std::borrow::Cow;

pub(super) const DEF: OpDef = OpDef::new("EmbedLayerNormalization", infer, eval).domain(MICROSOFT);

pub(super) const ON_CODES: OpDef =
    OpDef::new("QEmbedLayerNormalization", infer_on_codes, eval_on_codes).domain(MICROSOFT);

fn infer_on_codes(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let types = [only_dtype(Some(DType::F32)), only_dtype(Some(DType::I32))];
    Ok(types.into_iter().take(ctx.node.outputs.len().max(1)).collect())
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = ctx.dtype(2);
    let types = [only_dtype(dtype), only_dtype(Some(DType::I32)), only_dtype(dtype)];
    Ok(types.into_iter().take(ctx.node.outputs.len().max(1)).collect())
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let tables = Tables {
        words: Table::new(ctx.input(2)?)?,
        positions: Table::new(ctx.input(3)?)?,
        segments: ctx.opt(4).map(Table::new).transpose()?,
    };
    embed(ctx, tables, ctx.opt(8), [ctx.input(5)?, ctx.input(6)?])
}

fn eval_on_codes(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval_on_codes)? {
        return Ok(done);
    }
    let coded = |at: usize| Table::coded(ctx.input(at)?, scale(ctx, at)?, zero_point(ctx, at)?);
    let tables = Tables {
        words: coded(2)?,
        positions: coded(3)?,
        segments: ctx.opt(4).map(|_| coded(4)).transpose()?,
    };
    let parameter = |at: usize| -> Result<Tensor> {
        let (scale, zero) = (scale(ctx, at)?, zero_point(ctx, at)?);
        let numbers = ctx.input(at)?.to_f32()?.into_iter().map(|code| (code - zero) * scale);
        Tensor::from_slice(ctx.input(at)?.shape().to_vec(), &numbers.collect::<Vec<f32>>())
    };
    embed(ctx, tables, None, [&parameter(5)?, &parameter(6)?])
}

/// Scales of the inputs 2 to 6, which leave the mask (7) out, stand behind it.
fn scale(ctx: &EvalCtx, of: usize) -> Result<f32> {
    Ok(scalar(ctx.input(of + 6)?)? as f32)
}

fn zero_point(ctx: &EvalCtx, of: usize) -> Result<f32> {
    Ok(scalar(ctx.input(of + 11)?)? as f32)
}

struct Tables<'a> {
    words: Table<'a>,
    positions: Table<'a>,
    segments: Option<Table<'a>>,
}

/// The sum of rows of the tables, normalized; positions count from 0 where none are given.
fn embed(
    ctx: &EvalCtx,
    tables: Tables,
    positions: Option<&Tensor>,
    [gamma, beta]: [&Tensor; 2],
) -> Result<Vec<Tensor>> {
    let &[batch, len] = ctx.input(0)?.shape() else {
        return Err(Error::bad_input(format!("ids of shape {:?}", ctx.input(0)?.shape())));
    };
    let mut sum = ctx.alloc(DType::F32, vec![batch, len, tables.words.width])?;
    sum.as_mut_slice::<f32>()?.fill(0.0);
    tables.words.add(&ids(ctx.input(0)?, batch * len)?, &mut sum)?;
    let positions = match positions {
        Some(given) if given.len() == len => ids(given, len)?.repeat(batch),
        Some(given) => ids(given, batch * len)?,
        None => (0..batch * len).map(|i| (i % len) as i64).collect(),
    };
    tables.positions.add(&positions, &mut sum)?;
    if let (Some(segments), Some(table)) = (ctx.opt(1), &tables.segments) {
        table.add(&ids(segments, batch * len)?, &mut sum)?;
    }
    let (gamma, beta) = (row(&sum, gamma)?, row(&sum, beta)?);
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

enum Values<'a> {
    Floats(Cow<'a, [f32]>),
    Codes { codes: &'a [u8], signed: bool, scale: f32, zero: f32 },
}

/// Embeddings, `[rows, width]`.
struct Table<'a> {
    values: Values<'a>,
    rows: usize,
    width: usize,
}

impl<'a> Table<'a> {
    fn new(tensor: &'a Tensor) -> Result<Table<'a>> {
        Self::of(tensor, Values::Floats(tensor.cow()?))
    }

    /// Rows of 8-bit codes, decoded as they are read.
    fn coded(tensor: &'a Tensor, scale: f32, zero: f32) -> Result<Table<'a>> {
        let signed = match tensor.dtype() {
            DType::I8 => true,
            DType::U8 => false,
            other => return Err(unsupported_dtype(other)),
        };
        Self::of(tensor, Values::Codes { codes: tensor.bytes(), signed, scale, zero })
    }

    fn of(tensor: &Tensor, values: Values<'a>) -> Result<Table<'a>> {
        match *tensor.shape() {
            [rows, width] => Ok(Table { values, rows, width }),
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
            let at = row * self.width..(row + 1) * self.width;
            match &self.values {
                Values::Floats(values) => {
                    sum.iter_mut().zip(&values[at]).for_each(|(s, v)| *s += v);
                }
                &Values::Codes { codes, signed, scale, zero } => {
                    let code = |c: u8| if signed { f32::from(c as i8) } else { f32::from(c) };
                    let numbers = codes[at].iter().map(|&c| (code(c) - zero) * scale);
                    sum.iter_mut().zip(numbers).for_each(|(s, v)| *s += v);
                }
            }
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
