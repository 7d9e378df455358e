//! `Attention`: scaled dot products, with grouped heads, masks and a cache of keys and values.

use super::bias::Bias;
use super::heads::Heads;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::half::through_f32;
use crate::ops::number::unsupported_dtype;
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};
use fewbit_kernels::gemm::{Epilogue, Matrix, PackedF32, gemm_f32};
use fewbit_kernels::math;
use fewbit_kernels::softmax::softmax_f32;

pub(super) const DEF: OpDef = OpDef::new("Attention", infer, eval).since(23);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = vec![only_dtype(ctx.dtype(0)); ctx.node.outputs.len().max(1)];
    if let (Some(q), Some([.., size])) = (ctx.shape(0), ctx.shape(2)) {
        let mut dims = q.to_vec();
        if let Some(last) = dims.last_mut() {
            *last = match (q.len(), packed_size(ctx, size)?) {
                (4, _) => size.clone(),
                (_, Some(size)) => Dim::Known(size),
                _ => Dim::Unknown,
            };
        }
        types[0] = typed(ctx.dtype(0), Some(dims));
    }
    Ok(types)
}

/// Last dimension of the packed output: the heads of the queries with the size of the values.
fn packed_size(ctx: &InferCtx, hidden: &Dim) -> Result<Option<usize>> {
    let heads = |name| -> Result<Option<usize>> {
        Ok(ctx.node.int(name)?.and_then(|n| usize::try_from(n).ok()))
    };
    let (q, kv) = (heads("q_num_heads")?, heads("kv_num_heads")?.filter(|&n| n > 0));
    Ok(q.zip(kv).zip(hidden.known()).and_then(|((q, kv), hidden)| (hidden / kv).checked_mul(q)))
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    for index in 0..3 {
        let dtype = ctx.input(index)?.dtype();
        if dtype != DType::F32 {
            return Err(unsupported_dtype(dtype));
        }
    }
    Attention::new(ctx)?.run(ctx)
}

/// The stages that `qk_matmul_output_mode` can ask for.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Product,
    Capped,
    Biased,
    Softmax,
}

struct Attention {
    q: Heads,
    /// Keys and values with the cache before them, `[batch, heads, rows, size]`.
    keys: Tensor,
    values: Tensor,
    scale: f32,
    softcap: f32,
    bias: Bias,
    shown: Option<Stage>,
}

impl Attention {
    fn new(ctx: &EvalCtx) -> Result<Attention> {
        let (qn, kvn) = (ctx.int("q_num_heads", 0)?, ctx.int("kv_num_heads", 0)?);
        let q = Heads::of(ctx.input(0)?.shape(), qn)?;
        let k = Heads::of(ctx.input(1)?.shape(), kvn)?;
        let v = Heads::of(ctx.input(2)?.shape(), kvn)?;
        check(&q, &k, &v)?;
        let keys = with_past(ctx, ctx.input(1)?, k, ctx.opt(4))?;
        let values = with_past(ctx, ctx.input(2)?, v, ctx.opt(5))?;
        let total = keys.shape()[2];
        if values.shape()[2] != total {
            return Err(Error::bad_input("the caches of keys and values differ in length"));
        }
        let default = 1.0 / (q.size as f32).sqrt();
        Ok(Attention {
            bias: Bias::new(ctx, [q.batch, q.count, q.rows, total], total - k.rows)?,
            scale: ctx.node.float("scale")?.unwrap_or(default),
            softcap: ctx.float("softcap", 0.0)?,
            shown: shown_stage(ctx)?,
            q,
            keys,
            values,
        })
    }

    fn run(self, ctx: &EvalCtx) -> Result<Vec<Tensor>> {
        let size = self.values.shape()[3];
        let (y_heads, total) = (self.q.with_size(size), self.keys.shape()[2]);
        let mut y = ctx.alloc(DType::F32, y_heads.shape())?;
        let mut scores = vec![0.0; elements(self.q.rows, total)?];
        let shape = vec![self.q.batch, self.q.count, self.q.rows, total];
        let mut shown = self.shown.map(|_| ctx.alloc(DType::F32, shape)).transpose()?;
        let groups = self.keys.shape()[1];
        // Nothing to write, however many heads the shapes claim.
        let idle = y.is_empty() && shown.as_ref().is_none_or(Tensor::is_empty);
        for (batch, group) in
            (0..if idle { 0 } else { self.q.batch }).flat_map(|b| (0..groups).map(move |g| (b, g)))
        {
            let packed = self.pack(batch, group)?;
            let heads = self.q.count / groups;
            for head in group * heads..(group + 1) * heads {
                let mut keep = Keep::new(&mut shown, batch * self.q.count + head, scores.len());
                self.scores(ctx, (batch, head), &packed.0, &mut scores, &mut keep)?;
                let out = y.as_mut_slice::<f32>()?;
                let start = y_heads.start(batch, head).min(out.len());
                self.weigh(ctx, &scores, &packed.1, &mut out[start..], y_heads);
            }
        }
        Ok([Some(y), Some(self.keys), Some(self.values), shown].into_iter().flatten().collect())
    }

    /// Keys (transposed) and values of one head, ready for the products.
    fn pack(&self, batch: usize, group: usize) -> Result<(PackedF32, PackedF32)> {
        let [_, groups, total, size] = *self.keys.shape() else {
            return Err(Error::internal("keys without heads"));
        };
        let v_size = self.values.shape()[3];
        let (keys, values) = (self.keys.cow::<f32>()?, self.values.cow::<f32>()?);
        let at = (batch * groups + group) * total;
        let keys = PackedF32::new_transposed(size, total, &keys[at * size..][..total * size]);
        let values = PackedF32::new(total, v_size, &values[at * v_size..][..total * v_size]);
        Ok((keys, values))
    }

    /// Softmax of the scores of one head.
    fn scores(
        &self,
        ctx: &EvalCtx,
        (batch, head): (usize, usize),
        keys: &PackedF32,
        scores: &mut [f32],
        keep: &mut Keep,
    ) -> Result<()> {
        let (rows, total) = (self.q.rows, keys.n());
        if rows == 0 || total == 0 {
            return Ok(());
        }
        scores.fill(0.0);
        if self.q.size > 0 {
            let q = ctx.input(0)?.cow::<f32>()?;
            let a = Matrix { data: &q[self.q.start(batch, head)..], stride: self.q.stride() };
            let c = Matrix { data: &mut *scores, stride: total };
            gemm_f32(*ctx.kernels, rows, a, keys, Epilogue::default(), c);
        }
        scores.iter_mut().for_each(|s| *s *= self.scale);
        keep.at(self.shown, Stage::Product, scores)?;
        if self.softcap > 0.0 {
            scores.iter_mut().for_each(|s| *s = self.softcap * math::tanh(*s / self.softcap));
        }
        keep.at(self.shown, Stage::Capped, scores)?;
        for (row, scores) in scores.chunks_exact_mut(total).enumerate() {
            self.bias.add_to(scores, [batch, head, row]);
        }
        keep.at(self.shown, Stage::Biased, scores)?;
        // A row that is hidden as a whole becomes NaN, as in the specification's own expansion.
        let biased = scores.to_vec();
        softmax_f32(*ctx.kernels, &biased, total, scores);
        keep.at(self.shown, Stage::Softmax, scores)
    }

    /// The mean of the values, weighed by the softmax.
    fn weigh(
        &self,
        ctx: &EvalCtx,
        weights: &[f32],
        values: &PackedF32,
        out: &mut [f32],
        layout: Heads,
    ) {
        let (rows, total) = (self.q.rows, values.k());
        if rows == 0 || layout.size == 0 {
            return;
        }
        let c = Matrix { data: out, stride: layout.stride() };
        if total == 0 {
            return c.data.chunks_mut(c.stride).take(rows).for_each(|row| {
                row[..layout.size].fill(0.0);
            });
        }
        let a = Matrix { data: weights, stride: total };
        gemm_f32(*ctx.kernels, rows, a, values, Epilogue::default(), c);
    }
}

/// Where the scores of a head are kept when the node asks for them.
struct Keep<'a>(Option<&'a mut [u8]>);

impl<'a> Keep<'a> {
    fn new(shown: &'a mut Option<Tensor>, head: usize, len: usize) -> Keep<'a> {
        Keep(shown.as_mut().map(|t| &mut t.bytes_mut()[head * len * 4..][..len * 4]))
    }

    fn at(&mut self, shown: Option<Stage>, stage: Stage, scores: &[f32]) -> Result<()> {
        if let (true, Some(bytes)) = (shown == Some(stage), &mut self.0) {
            bytes.copy_from_slice(bytemuck::cast_slice(scores));
        }
        Ok(())
    }
}

fn shown_stage(ctx: &EvalCtx) -> Result<Option<Stage>> {
    if ctx.node.output(3).is_none() {
        return Ok(None);
    }
    match ctx.int("qk_matmul_output_mode", 0)? {
        0 => Ok(Some(Stage::Product)),
        1 => Ok(Some(Stage::Capped)),
        2 => Ok(Some(Stage::Biased)),
        3 => Ok(Some(Stage::Softmax)),
        mode => Err(Error::bad_input(format!("{mode} is not one of 0 to 3"))
            .at("attribute `qk_matmul_output_mode`")),
    }
}

fn check(q: &Heads, k: &Heads, v: &Heads) -> Result<()> {
    let fits = q.batch == k.batch
        && k.batch == v.batch
        && q.size == k.size
        && (k.count, k.rows) == (v.count, v.rows)
        && k.count > 0
        && q.count.is_multiple_of(k.count);
    if fits {
        return Ok(());
    }
    let [q, k, v] = [q, k, v].map(Heads::shape);
    Err(Error::bad_input(format!("queries {q:?}, keys {k:?} and values {v:?} do not fit")))
}

/// The cache followed by the new rows, unpacked.
fn with_past(ctx: &EvalCtx, new: &Tensor, heads: Heads, past: Option<&Tensor>) -> Result<Tensor> {
    let Heads { batch, count, rows, size, .. } = heads;
    let before = match past.map(Tensor::shape) {
        None => 0,
        Some(&[b, c, before, s]) if (b, c, s) == (batch, count, size) => before,
        Some(shape) => {
            let needed = [batch, count, 0, size];
            return Err(Error::bad_input(format!("a cache {shape:?} for {needed:?} new rows")));
        }
    };
    let past = past.map(|p| p.cow::<f32>()).transpose()?.unwrap_or_default();
    let new = new.cow::<f32>()?;
    ctx.output(vec![batch, count, before + rows, size], |out: &mut [f32]| {
        let heads_of = (0..batch).flat_map(|b| (0..count).map(move |c| (b, c)));
        let whole = ((before + rows) * size).max(1);
        for ((b, c), out) in heads_of.zip(out.chunks_exact_mut(whole)) {
            let (old, fresh) = out.split_at_mut(before * size);
            old.copy_from_slice(&past[(b * count + c) * before * size..][..before * size]);
            for (row, out) in fresh.chunks_exact_mut(size.max(1)).enumerate() {
                let at = heads.start(b, c) + row * heads.stride();
                out.copy_from_slice(&new[at..at + size]);
            }
        }
        Ok(())
    })
}

fn elements(rows: usize, columns: usize) -> Result<usize> {
    rows.checked_mul(columns)
        .filter(|&n| n <= fewbit_core::max_tensor_bytes() / 4)
        .ok_or_else(|| Error::resource(format!("scores of {rows} by {columns} are too large")))
}
