//! `LinearAttention`: a recurrent state of outer products in place of a cache of keys.

use super::heads::Heads;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype};
use crate::ops::half::widen;
use fewbit_core::{DType, Error, Result, Tensor, ValueType};
use fewbit_kernels::math;

pub(super) const DEF: OpDef = OpDef::new("LinearAttention", infer, eval).since(27);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![only_dtype(ctx.dtype(0)), only_dtype(ctx.dtype(if ctx.has(3) { 3 } else { 0 }))])
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let out = ctx.input(0)?.dtype();
    let state = ctx.opt(3).map_or(out, Tensor::dtype);
    widen(ctx)?;
    let mut rule = Recurrence::new(ctx)?;
    let y = rule.run(ctx)?;
    let present = Tensor::from_slice(rule.state_shape(), &rule.state)?;
    Ok(vec![y.cast(out)?, present.cast(state)?])
}

/// The rule of one node and its state `[batch, kv_heads, k size, v size]`.
struct Recurrence {
    q: Heads,
    k: Heads,
    v: Heads,
    scale: f32,
    /// Logarithms by which the state fades, and how many of them a head has.
    decay: Option<(Vec<f32>, usize)>,
    /// Update rates, and how many of them a position has.
    beta: Option<(Vec<f32>, usize)>,
    state: Vec<f32>,
}

impl Recurrence {
    fn new(ctx: &EvalCtx) -> Result<Recurrence> {
        let heads = |name| ctx.node.int(name).map(|n| n.unwrap_or(0));
        let (qn, kvn) = (heads("q_num_heads")?, heads("kv_num_heads")?);
        let q = packed(ctx.input(0)?, qn)?;
        let (k, v) = (packed(ctx.input(1)?, kvn)?, packed(ctx.input(2)?, kvn)?);
        let same = |a: &Heads, b: &Heads| (a.batch, a.rows) == (b.batch, b.rows);
        if !same(&q, &k) || !same(&k, &v) || q.size != k.size || q.count % k.count != 0 {
            let [q, k, v] = [q, k, v].map(|h| h.shape());
            return Err(Error::bad_input(format!("queries {q:?}, keys {k:?}, values {v:?}")));
        }
        let (gated, delta) = match ctx.string("update_rule", "gated_delta")? {
            "linear" => (false, false),
            "gated" => (true, false),
            "delta" => (false, true),
            "gated_delta" => (true, true),
            other => return Err(Error::unsupported(format!("update rule `{other}`"))),
        };
        let mut rule = Recurrence {
            scale: match ctx.float("scale", 0.0)? {
                0.0 => 1.0 / (k.size as f32).sqrt(),
                scale => scale,
            },
            decay: gate(ctx, 4, gated, &k, [k.count, k.count * k.size])?,
            beta: gate(ctx, 5, delta, &k, [k.count, 1])?,
            state: Vec::new(),
            q,
            k,
            v,
        };
        rule.decay = rule.decay.map(|(values, n)| (values, n / k.count));
        rule.state = rule.first_state(ctx)?;
        Ok(rule)
    }

    fn state_shape(&self) -> Vec<usize> {
        vec![self.k.batch, self.k.count, self.k.size, self.v.size]
    }

    fn first_state(&self, ctx: &EvalCtx) -> Result<Vec<f32>> {
        match ctx.opt(3) {
            None => Tensor::zeros(DType::F32, self.state_shape())?.to_vec(),
            Some(past) if past.shape() == self.state_shape() => past.to_vec(),
            Some(past) => Err(Error::bad_input(format!(
                "past state {:?}, expected {:?}",
                past.shape(),
                self.state_shape()
            ))),
        }
    }

    fn run(&mut self, ctx: &EvalCtx) -> Result<Tensor> {
        let [q, k, v] = [0, 1, 2].map(|i| ctx.input(i).and_then(|t| t.cow::<f32>()));
        let (q, k, v) = (q?, k?, v?);
        let out_heads = self.q.with_size(self.v.size);
        ctx.output(out_heads.shape(), |out: &mut [f32]| {
            let (heads, (samples, rows)) =
                (self.q.count / self.k.count, (self.k.batch, self.k.rows));
            for (b, t) in (0..samples).flat_map(|b| (0..rows).map(move |t| (b, t))) {
                for head in 0..self.k.count {
                    let key = row(&self.k, &k, b, head, t);
                    self.update(b, head, t, key, row(&self.v, &v, b, head, t));
                    for head in head * heads..(head + 1) * heads {
                        let at = out_heads.start(b, head) + t * out_heads.stride();
                        let state = self.state_of(b, head / heads);
                        let query = row(&self.q, &q, b, head, t);
                        self.read(query, state, &mut out[at..at + self.v.size]);
                    }
                }
            }
            Ok(())
        })
    }

    fn state_of(&self, batch: usize, head: usize) -> std::ops::Range<usize> {
        let len = self.k.size * self.v.size;
        let at = (batch * self.k.count + head) * len;
        at..at + len
    }

    /// Fades the state of a head and adds one position to it.
    fn update(&mut self, batch: usize, head: usize, t: usize, key: &[f32], value: &[f32]) {
        let position = batch * self.k.rows + t;
        let (range, width) = (self.state_of(batch, head), self.v.size.max(1));
        let state = &mut self.state[range];
        if let Some((decay, each)) = &self.decay {
            let gates = &decay[(position * self.k.count + head) * each..][..*each];
            for (i, row) in state.chunks_exact_mut(width).enumerate() {
                let fade = math::exp(gates[i % each]);
                row.iter_mut().for_each(|s| *s *= fade);
            }
        }
        let mut value = value.to_vec();
        if let Some((beta, each)) = &self.beta {
            let rate = beta[position * each + head % each];
            for (m, v) in value.iter_mut().enumerate() {
                let known = key.iter().zip(state.chunks_exact(width)).map(|(k, s)| k * s[m]);
                *v = rate * (*v - known.sum::<f32>());
            }
        }
        for (k, row) in key.iter().zip(state.chunks_exact_mut(width)) {
            row.iter_mut().zip(&value).for_each(|(s, v)| *s += k * v);
        }
    }

    fn read(&self, query: &[f32], state: std::ops::Range<usize>, out: &mut [f32]) {
        out.fill(0.0);
        let rows = self.state[state].chunks_exact(self.v.size.max(1));
        for (q, row) in query.iter().zip(rows) {
            out.iter_mut().zip(row).for_each(|(o, s)| *o += q * s);
        }
        out.iter_mut().for_each(|o| *o *= self.scale);
    }
}

fn row<'a>(heads: &Heads, data: &'a [f32], b: usize, head: usize, t: usize) -> &'a [f32] {
    &data[heads.start(b, head) + t * heads.stride()..][..heads.size]
}

fn packed(tensor: &Tensor, count: i64) -> Result<Heads> {
    let heads = Heads::of(tensor.shape(), count)?;
    match heads.packed {
        true => Ok(heads),
        false => Err(Error::bad_input(format!("expected rank 3, found {:?}", tensor.shape()))),
    }
}

/// A gate input that the rule needs, or must not have, with one of two sizes per position.
fn gate(
    ctx: &EvalCtx,
    index: usize,
    needed: bool,
    heads: &Heads,
    sizes: [usize; 2],
) -> Result<Option<(Vec<f32>, usize)>> {
    match (ctx.opt(index), needed) {
        (None, false) => Ok(None),
        (Some(_), false) => Err(Error::bad_input(format!("input {index} has no use in this rule"))),
        (None, true) => ctx.input(index).map(|_| None),
        (Some(gate), true) => match *gate.shape() {
            [b, t, n] if (b, t) == (heads.batch, heads.rows) && sizes.contains(&n) => {
                Ok(Some((gate.to_f32()?, n)))
            }
            ref shape => Err(Error::bad_input(format!("input {index} has shape {shape:?}"))),
        },
    }
}
