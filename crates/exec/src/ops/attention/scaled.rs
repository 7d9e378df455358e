//! `Attention`: scaled dot products, with grouped heads, masks and a cache of keys and values.

use super::bias::Bias;
use super::cached::{Form, Kept};
use super::heads::Heads;
use super::operands::Operands;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::half::through_f32;
use crate::ops::number::unsupported_dtype;
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};
use fewbit_kernels::gemm::Matrix;
use fewbit_kernels::softmax::softmax_f32;
use fewbit_kernels::{Ctx, math};
use std::cell::Cell;
use std::mem::replace;
use std::ops::Range;

pub(in crate::ops) const DEF: OpDef = OpDef::new("Attention", infer, eval).since(23);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = vec![only_dtype(ctx.dtype(0)); ctx.node.outputs.len().max(1)];
    if let (Some(q), Some(v @ [.., size])) = (ctx.shape(0), ctx.shape(2)) {
        let mut dims = q.to_vec();
        if let Some(last) = dims.last_mut() {
            *last = match q.len() {
                4 => size.clone(),
                _ => packed_size(ctx, size, v.len() == 4)?.map_or(Dim::Unknown, Dim::Known),
            };
        }
        types[0] = typed(ctx.dtype(0), Some(dims));
    }
    Ok(types)
}

/// Last dimension of the packed output: the heads of the queries with the size of the values, whose
/// last dimension is that of one head where they lie `apart`.
fn packed_size(ctx: &InferCtx, last: &Dim, apart: bool) -> Result<Option<usize>> {
    let heads = |name| -> Result<Option<usize>> {
        Ok(ctx.node.int(name)?.and_then(|n| usize::try_from(n).ok()))
    };
    let (q, kv) = (heads("q_num_heads")?, heads("kv_num_heads")?.filter(|&n| n > 0));
    let kv = if apart { Some(1) } else { kv };
    Ok(q.zip(kv).zip(last.known()).and_then(|((q, kv), last)| (last / kv).checked_mul(q)))
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
    attend(ctx, [Form::Floats; 2])
}

/// Queries that are looked at together: their scores fit the caches.
const QUERIES: usize = 128;

thread_local! {
    /// Scores and weights of the queries that this thread looked at last: new ones for each group
    /// of heads would cost one query as much as its softmax.
    static BUFFERS: Cell<[Vec<f32>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// Elements of the longest buffer that a thread keeps.
const MOST_KEPT: usize = 1 << 16;

/// The stages that `qk_matmul_output_mode` can ask for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Stage {
    Product,
    Capped,
    Biased,
    Softmax,
}

pub(super) struct Attention<'a> {
    q: Kept<'a>,
    pub keys: Kept<'a>,
    pub values: Kept<'a>,
    scale: f32,
    softcap: f32,
    bias: Bias,
    shown: Option<Stage>,
}

/// Runs the attention of a node, whose keys and values are stored in `forms`; those of a past that
/// grows are floats.
pub(super) fn attend(ctx: &EvalCtx, forms: [Form; 2]) -> Result<Vec<Tensor>> {
    let (qn, kvn) = (ctx.int("q_num_heads", 0)?, ctx.int("kv_num_heads", 0)?);
    let q = Heads::of(ctx.input(0)?.shape(), qn)?;
    let mut k = Heads::of(&forms[0].shape(ctx.input(1)?)?, kvn)?;
    let mut v = Heads::of(&forms[1].shape(ctx.input(2)?)?, kvn)?;
    check(&q, &k, &v)?;
    let before = ctx.opt(4).map(|past| past.shape().get(2).copied().unwrap_or(0));
    // Without a past that grows, keys and values are read where they lie.
    let grows = ctx.node.outputs.len() > 1 || ctx.opt(4).is_some() || ctx.opt(5).is_some();
    let (mut keys, mut values) = (ctx.input(1)?.clone(), ctx.input(2)?.clone());
    if grows {
        keys = with_past(ctx, &keys, k, ctx.opt(4))?;
        values = with_past(ctx, &values, v, ctx.opt(5))?;
        (k, v) = (Heads::of(keys.shape(), 0)?, Heads::of(values.shape(), 0)?);
    }
    if k.rows != v.rows {
        return Err(Error::bad_input("the caches of keys and values differ in length"));
    }
    let bias = Bias::new(ctx, [q.batch, q.count, q.rows, k.rows], before)?;
    let shown = shown_stage(ctx)?;
    let attention = Attention {
        scale: ctx.node.float("scale")?.unwrap_or(1.0 / (q.size as f32).sqrt()),
        softcap: ctx.float("softcap", 0.0)?,
        q: Kept::of(ctx.input(0)?, q, Form::Floats)?,
        keys: Kept::of(&keys, k, forms[0])?,
        values: Kept::of(&values, v, forms[1])?,
        bias,
        shown,
    };
    let (y, seen) = attention.run(ctx)?;
    drop(attention);
    let mut outputs = vec![y];
    if grows {
        outputs.extend([keys, values]);
        outputs.extend(seen);
    }
    Ok(outputs)
}

/// What one group of heads, those that share keys and values, writes.
struct Task<'t> {
    out: &'t mut [f32],
    shown: &'t mut [f32],
    result: Result<()>,
}

impl Attention<'_> {
    fn run(&self, ctx: &EvalCtx) -> Result<(Tensor, Option<Tensor>)> {
        let y_heads = self.q.heads.with_size(self.values.heads.size);
        let Heads { batch, count, rows, .. } = y_heads;
        let shape = vec![batch, count, rows, self.keys.heads.rows];
        let mut y = ctx.alloc(DType::F32, vec![batch, count, rows, y_heads.size])?;
        let mut shown = self.shown.map(|_| ctx.alloc(DType::F32, shape)).transpose()?;
        self.groups(ctx, &mut y, shown.as_mut())?;
        if y_heads.packed {
            let across = packed(ctx, &y, y_heads)?;
            ctx.arena.recycle(replace(&mut y, across));
        }
        Ok((y, shown))
    }

    fn groups(&self, ctx: &EvalCtx, y: &mut Tensor, shown: Option<&mut Tensor>) -> Result<()> {
        let groups = self.q.heads.batch * self.keys.heads.count;
        let y = y.as_mut_slice::<f32>()?;
        let shown = shown.map(Tensor::as_mut_slice::<f32>).transpose()?.unwrap_or_default();
        // Nothing to write, however many heads the shapes claim.
        if y.is_empty() && shown.is_empty() {
            return Ok(());
        }
        elements(self.q.heads.rows, self.keys.heads.rows)?;
        let (of_y, of_shown) = (y.len() / groups, shown.len() / groups);
        let (mut y, mut shown) = (y, shown);
        let mut tasks = Vec::with_capacity(groups);
        for _ in 0..groups {
            let (out, y_rest) = y.split_at_mut(of_y);
            let (seen, shown_rest) = shown.split_at_mut(of_shown);
            tasks.push(Task { out, shown: seen, result: Ok(()) });
            (y, shown) = (y_rest, shown_rest);
        }
        ctx.kernels.pool.for_each_chunk(&mut tasks, 1, |index, tasks| {
            for task in tasks {
                self.group(ctx.kernels, index, task);
            }
        });
        tasks.into_iter().try_for_each(|task| task.result)
    }

    /// All queries of one group, block by block: with a causal mask a block of queries sees no
    /// key behind its last row, in a window none long before its first.
    fn group(&self, ctx: &Ctx, index: usize, task: &mut Task) {
        let (groups, rows) = (self.keys.heads.count, self.q.heads.rows);
        let (batch, group) = (index / groups, index % groups);
        let heads = self.q.heads.count / groups;
        let step = if self.shown.is_some() { rows.max(1) } else { QUERIES };
        let mut buffers = BUFFERS.take();
        for first in (0..rows).step_by(step) {
            let block = first..rows.min(first + step);
            let seen = self.keys_of(batch, &block);
            let operands = Operands::new(self, ctx, [batch, group], block.len() * heads, &seen);
            // Single queries of neighbouring heads lie as rows of one matrix.
            let (blocks, count) = if rows == 1 { (1, heads) } else { (heads, block.len()) };
            for h in 0..blocks {
                let (first, across) = (block.start, rows == 1);
                let head = group * heads + h;
                let queries = Queries { batch, head, first, count, across };
                let work = Work { operands: &operands, keys: seen.clone(), queries };
                self.answer(ctx, work, (h, first), task, &mut buffers);
            }
        }
        if buffers.iter().all(|buffer| buffer.capacity() <= MOST_KEPT) {
            BUFFERS.set(buffers);
        }
    }

    /// Keys that a block of queries looks at; all of them where their scores are shown.
    fn keys_of(&self, batch: usize, block: &Range<usize>) -> Range<usize> {
        match self.shown {
            None => self.bias.keys_of(batch, block),
            Some(_) => 0..self.keys.heads.rows,
        }
    }

    /// Queries that are rows of one matrix.
    fn answer(
        &self,
        ctx: &Ctx,
        Work { operands, keys, queries }: Work,
        (h, first): (usize, usize),
        task: &mut Task,
        [scores, weights]: &mut [Vec<f32>; 2],
    ) {
        let (rows, count, looked_at) = (self.q.heads.rows, queries.count, keys.len());
        let size = self.values.heads.size;
        let of_shown = self.shown.map_or(0, |_| self.keys.heads.rows);
        let at = h * rows + first;
        let mut seen = Seen(self.shown, &mut task.shown[at * of_shown..][..count * of_shown]);
        let out = &mut task.out[at * size..][..count * size];
        out.fill(0.0);
        if keys.is_empty() {
            return;
        }
        scores.resize(count * looked_at, 0.0);
        weights.resize(count * looked_at, 0.0);
        let stride = self.q.heads.stride();
        let start = self.q.heads.start(queries.batch, queries.head) + first * stride;
        let stride = if queries.across { self.q.heads.size } else { stride };
        let q = Matrix { data: self.q.floats().get(start..).unwrap_or(&[]), stride };
        operands.scores(ctx, q, count, scores);
        self.bias_rows(&queries, &keys, scores, &mut seen);
        softmax_f32(*ctx, scores, looked_at, weights);
        for (row, weights) in weights.chunks_exact_mut(looked_at).enumerate() {
            // Who sees no key gets nothing, not NaN.
            if self.bias.hides(keys.clone(), queries.at(row)) {
                weights.fill(0.0);
            }
        }
        seen.keep(Stage::Softmax, weights);
        if !out.is_empty() {
            operands.weigh(ctx, weights, count, out);
        }
    }

    /// Scale, cap and mask.
    fn bias_rows(
        &self,
        queries: &Queries,
        keys: &Range<usize>,
        scores: &mut [f32],
        seen: &mut Seen,
    ) {
        scores.iter_mut().for_each(|s| *s *= self.scale);
        seen.keep(Stage::Product, scores);
        if self.softcap > 0.0 {
            scores.iter_mut().for_each(|s| *s = self.softcap * math::tanh(*s / self.softcap));
        }
        seen.keep(Stage::Capped, scores);
        for (row, scores) in scores.chunks_exact_mut(keys.len()).enumerate() {
            self.bias.add_to(scores, keys.start, queries.at(row));
        }
        seen.keep(Stage::Biased, scores);
    }
}

/// Queries, and the keys that they look at, which the operands hold.
struct Work<'w> {
    operands: &'w Operands<'w>,
    keys: Range<usize>,
    queries: Queries,
}

/// Queries of one head, or single queries of neighbouring heads.
struct Queries {
    batch: usize,
    head: usize,
    first: usize,
    count: usize,
    across: bool,
}

impl Queries {
    /// Sample, head and position of a row.
    fn at(&self, row: usize) -> [usize; 3] {
        match self.across {
            true => [self.batch, self.head + row, self.first],
            false => [self.batch, self.head, self.first + row],
        }
    }
}

/// Where the scores of a head are kept when the node asks for them.
struct Seen<'a>(Option<Stage>, &'a mut [f32]);

impl Seen<'_> {
    fn keep(&mut self, stage: Stage, scores: &[f32]) {
        if self.0 == Some(stage) {
            self.1.copy_from_slice(scores);
        }
    }
}

/// Heads of `[batch, heads, rows, size]` side by side: `[batch, rows, heads * size]`.
fn packed(ctx: &EvalCtx, y: &Tensor, heads: Heads) -> Result<Tensor> {
    let from = y.cow::<f32>()?;
    let size = heads.size;
    ctx.output(heads.shape(), |out: &mut [f32]| {
        for (i, row) in from.chunks_exact(size.max(1)).enumerate() {
            let (at, head) = (i % heads.rows, i / heads.rows);
            let (batch, head) = (head / heads.count, head % heads.count);
            out[heads.start(batch, head) + at * heads.stride()..][..size].copy_from_slice(row);
        }
        Ok(())
    })
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
