//! `RotaryEmbedding`: turns pairs of elements by the angle of their position.

use super::heads::Heads;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::half::through_f32;
use crate::ops::params::size;
use fewbit_core::{Error, Result, Tensor};

pub(in crate::ops) const DEF: OpDef = OpDef::new("RotaryEmbedding", same_as_input, eval).since(23);

/// Cosines and sines by position, `half` of each in a row.
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    /// Row of each position of each sample.
    rows: Vec<usize>,
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let heads = Heads::of(ctx.input(0)?.shape(), ctx.int("num_heads", 0)?)?;
    let turned = match size(ctx.int("rotary_embedding_dim", 0)?, "rotary_embedding_dim")? {
        0 => heads.size,
        n => n,
    };
    if turned > heads.size || turned % 2 != 0 {
        return Err(Error::bad_input(format!("{turned} of {} elements to turn", heads.size)));
    }
    let angles = Angles::new(ctx, heads, turned / 2)?;
    let interleaved = ctx.int("interleaved", 0)? != 0;
    let mut x = ctx.take(0)?;
    let data = x.as_mut_slice::<f32>()?;
    for (b, h) in (0..heads.batch).flat_map(|b| (0..heads.count).map(move |h| (b, h))) {
        for row in 0..heads.rows {
            let at = heads.start(b, h) + row * heads.stride();
            angles.turn(&mut data[at..at + turned], b * heads.rows + row, interleaved);
        }
    }
    Ok(vec![x])
}

impl Angles {
    /// Reads the caches (inputs 1 and 2): by position with positions in input 3, or one row for
    /// each position of each sample.
    fn new(ctx: &EvalCtx, heads: Heads, half: usize) -> Result<Angles> {
        let (cos, sin) = (ctx.input(1)?, ctx.input(2)?);
        if cos.shape() != sin.shape() || cos.shape().last() != Some(&half) {
            let shapes = format!("{:?} and {:?}", cos.shape(), sin.shape());
            return Err(Error::bad_input(format!("caches {shapes} for {half} angles")));
        }
        let positions = heads.batch * heads.rows;
        let rows = match ctx.opt(3) {
            Some(ids) => ids
                .to_i64()?
                .into_iter()
                .map(|p| usize::try_from(p).unwrap_or(usize::MAX))
                .collect(),
            None => (0..positions).collect::<Vec<usize>>(),
        };
        let stored = cos.shape()[..cos.rank() - 1].iter().product();
        if rows.len() != positions || rows.iter().any(|&row| row >= stored) {
            return Err(Error::bad_input(format!(
                "{} positions in caches of {stored} rows, for {positions} positions of the input",
                rows.len()
            )));
        }
        Ok(Angles { cos: cos.to_vec()?, sin: sin.to_vec()?, half, rows })
    }

    fn turn(&self, x: &mut [f32], position: usize, interleaved: bool) {
        let at = self.rows[position] * self.half;
        let (cos, sin) = (&self.cos[at..][..self.half], &self.sin[at..][..self.half]);
        for i in 0..self.half {
            let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + self.half) };
            let (real, imaginary) = (x[a], x[b]);
            x[a] = cos[i] * real - sin[i] * imaginary;
            x[b] = sin[i] * real + cos[i] * imaginary;
        }
    }
}
