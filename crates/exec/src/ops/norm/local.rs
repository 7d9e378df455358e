//! `LRN` (across neighbouring channels) and `LpNormalization` (along an axis).

use super::channels;
use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::same_as_input;
use crate::ops::half::through_f32;
use fewbit_core::{Error, Result, Tensor};

pub(in crate::ops) const LRN: OpDef = OpDef::new("LRN", same_as_input, lrn);
pub(in crate::ops) const LP: OpDef = OpDef::new("LpNormalization", same_as_input, lp);

/// Krizhevsky et al. 2012, section 3.3.
fn lrn(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, lrn)? {
        return Ok(done);
    }
    let size = usize::try_from(ctx.int("size", 0)?).unwrap_or(0);
    if size == 0 {
        return Err(Error::bad_input("size is not positive")
            .at("attribute `size`")
            .code("FB-3209"));
    }
    let (alpha, beta) = (ctx.float("alpha", 1e-4)? as f64, ctx.float("beta", 0.75)? as f64);
    let bias = ctx.float("bias", 1.0)? as f64;
    let x = ctx.input(0)?;
    let (count, inner) = channels(x.shape())?;
    let data = x.cow::<f32>()?;
    let output = ctx.output(x.shape().to_vec(), |out: &mut [f32]| {
        for (i, y) in out.iter_mut().enumerate() {
            let (c, first) = (i / inner % count, i / (inner * count) * count * inner + i % inner);
            let (low, high) =
                (c.saturating_sub((size - 1) / 2), c.saturating_add(size / 2).min(count - 1));
            let squares: f64 = (low..=high).map(|k| (data[first + k * inner] as f64).powi(2)).sum();
            *y = (data[i] as f64 / (bias + alpha / size as f64 * squares).powf(beta)) as f32;
        }
        Ok(())
    })?;
    Ok(vec![output])
}

fn lp(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, lp)? {
        return Ok(done);
    }
    let mut x = ctx.take(0)?;
    let axis = axis_index(ctx.int("axis", -1)?, x.rank())?;
    let p = ctx.int("p", 2)?;
    if p != 1 && p != 2 {
        return Err(Error::bad_input(format!("p is {p}, allowed are 1 and 2"))
            .at("attribute `p`")
            .code("FB-3209"));
    }
    let (len, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    for block in x.as_mut_slice::<f32>()?.chunks_exact_mut((len * inner).max(1)) {
        for offset in 0..inner {
            let row = || (0..len).map(|i| block[offset + i * inner] as f64);
            let norm = if p == 1 {
                row().map(f64::abs).sum()
            } else {
                row().map(|v| v * v).sum::<f64>().sqrt()
            };
            for i in 0..len {
                let value = &mut block[offset + i * inner];
                *value = if norm == 0.0 { 0.0 } else { (*value as f64 / norm) as f32 };
            }
        }
    }
    Ok(vec![x])
}
