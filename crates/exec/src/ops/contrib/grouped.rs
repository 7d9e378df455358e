//! `GroupQueryAttention`: causal attention of grouped heads over a cache, with rotary positions.

use super::MICROSOFT;
use super::multi_head::scale;
use super::padding::added;
use super::rotary::counted;
use super::standard::{attention, refuse, rotary};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::broadcast::{broadcast_shapes, broadcast_strides};
use crate::ops::half::through_f32;
use crate::ops::params::{scalar_int, size};
use fewbit_core::{Attr, DType, Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("GroupQueryAttention", infer, eval).domain(MICROSOFT);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = vec![only_dtype(ctx.dtype(0)); ctx.node.outputs.len().max(1)];
    if let Some([batch, rows, width]) = ctx.shape(0) {
        let (heads, groups) = (ctx.node.int("num_heads")?, ctx.node.int("kv_num_heads")?);
        let packed = !ctx.has(1);
        let heads = heads.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
        let groups = groups.and_then(|n| usize::try_from(n).ok());
        let of_queries = |width: usize| {
            let (heads, groups) = (heads?, groups?);
            let all = groups.checked_mul(2)?.checked_add(heads)?;
            (width / all).checked_mul(heads)
        };
        let width = match packed {
            true => width.known().and_then(of_queries).map_or(Dim::Unknown, Dim::Known),
            false => width.clone(),
        };
        types[0] = typed(ctx.dtype(0), Some(vec![batch.clone(), rows.clone(), width]));
    }
    Ok(types)
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    check(ctx)?;
    let sizes = Sizes::new(ctx)?;
    let [q, k, v] = projections(ctx, &sizes)?;
    let (q, k) = match ctx.int("do_rotary", 0)? {
        0 => (q, k),
        _ => (turned(ctx, q, sizes.heads, &sizes)?, turned(ctx, k, sizes.groups, &sizes)?),
    };
    let keys = present(ctx, &k, ctx.opt(3), &sizes)?;
    let values = present(ctx, &v, ctx.opt(4), &sizes)?;
    let bias = added(ctx, None, ctx.opt(10), [sizes.batch, sizes.rows, sizes.total])?;
    let window = ctx.int("local_window_size", -1)?;
    // Queries are the last of the valid keys, those of a first prompt the first of all.
    let valid = |more: usize| {
        let lengths = sizes.past.iter().map(|&past| (past + sizes.rows + more) as i64);
        Some(Tensor::vector(&lengths.collect::<Vec<i64>>()))
    };
    let mut inputs = vec![Some(q)];
    let window = match sinks(ctx, &sizes)? {
        None => {
            inputs.extend([Some(keys.clone()), Some(values.clone()), bias, None, None, valid(0)]);
            window
        }
        Some(sinks) => {
            let mask = with_sinks(ctx, bias.as_ref(), &sinks, window, &sizes)?;
            let (keys, values) = (behind_zeros(ctx, &keys)?, behind_zeros(ctx, &values)?);
            inputs.extend([Some(keys), Some(values), Some(mask), None, None, valid(1)]);
            -1
        }
    };
    let mut attrs = vec![
        ("q_num_heads", Attr::Int(sizes.heads as i64)),
        ("kv_num_heads", Attr::Int(sizes.groups as i64)),
        ("is_causal", Attr::Int(1)),
        ("softcap", Attr::Float(ctx.float("softcap", 0.0)?)),
        // The query's own key is one of the window.
        ("left_window_size", Attr::Int(if window > 0 { window - 1 } else { -1 })),
    ];
    attrs.extend(scale(ctx)?);
    let mut outputs = attention(ctx, &attrs, inputs, 1)?;
    if ctx.node.outputs.len() > 1 {
        outputs.extend([keys, values]);
    }
    Ok(outputs)
}

/// What each further input is for that would change the result.
const UNKNOWN_INPUTS: [(usize, &str); 5] = [
    (12, "a quantized cache"),
    (13, "a quantized cache"),
    (14, "normalized queries"),
    (15, "normalized keys"),
    (16, "padded chunks of queries"),
];

/// Refuses what is not computed.
fn check(ctx: &EvalCtx) -> Result<()> {
    if let Some((index, what)) = UNKNOWN_INPUTS.into_iter().find(|&(i, _)| ctx.opt(i).is_some()) {
        return Err(refuse(&format!("input {index}"), what));
    }
    let attribute = |name: &str, plain: &[i64], what| match ctx.int(name, plain[0])? {
        given if plain.contains(&given) => Ok(()),
        _ => Err(refuse(&format!("attribute `{name}`"), what)),
    };
    attribute("causal", &[1], "attention to later keys")?;
    attribute("sliding_window_cache", &[0], "a cache of the window alone")?;
    attribute("qk_output", &[0], "scores as an output")?;
    match ctx.int("local_window_size", -1)? {
        0 => Err(refuse("attribute `local_window_size`", "a window without keys")),
        _ => Ok(()),
    }
}

/// Sizes of the operands.
struct Sizes {
    batch: usize,
    rows: usize,
    heads: usize,
    groups: usize,
    size: usize,
    /// Keys of the longest sample.
    total: usize,
    /// Rows of the cache, before and after.
    before: usize,
    after: usize,
    /// Keys of each sample before this run.
    past: Vec<usize>,
    first_prompt: bool,
}

impl Sizes {
    fn new(ctx: &EvalCtx) -> Result<Sizes> {
        let &[batch, rows, width] = ctx.input(0)?.shape() else {
            return Err(Error::bad_input("queries are not of rank 3"));
        };
        let [heads, groups] = ["num_heads", "kv_num_heads"].map(|name| ctx.int(name, 0));
        let (heads, groups) = (size(heads?, "num_heads")?, size(groups?, "kv_num_heads")?);
        let shared = match ctx.opt(1) {
            Some(_) => Some(heads),
            None => groups.checked_mul(2).and_then(|n| n.checked_add(heads)),
        };
        let fits = width > 0 && groups > 0 && heads.is_multiple_of(groups);
        let size = match shared {
            Some(n) if fits && n > 0 && width.is_multiple_of(n) => width / n,
            _ => {
                let heads = format!("{heads} heads in {groups} groups");
                return Err(Error::bad_input(format!("{heads} do not divide {width}")));
            }
        };
        let total = crate::ops::params::size(scalar_int(ctx.input(6)?)?, "total_sequence_length")?;
        let before = ctx.opt(3).and_then(|past| past.shape().get(2)).copied().unwrap_or(0);
        let first_prompt = rows == total;
        let past = past_lengths(ctx, [batch, rows, total, before], first_prompt)?;
        let after = total.max(before);
        Ok(Sizes { batch, rows, heads, groups, size, total, before, after, past, first_prompt })
    }
}

/// Keys of each sample before this run: those that `seqlens_k` counts but one, less the new ones.
fn past_lengths(
    ctx: &EvalCtx,
    [batch, rows, total, before]: [usize; 4],
    first_prompt: bool,
) -> Result<Vec<usize>> {
    let last = ctx.input(5)?.to_i64()?;
    if last.len() != batch {
        return Err(Error::bad_input(format!("{} lengths for {batch} samples", last.len())));
    }
    let past = |last: i64| {
        let keys = usize::try_from(last).ok()?.checked_add(1).filter(|&keys| keys <= total)?;
        match first_prompt {
            true => Some(0),
            false => keys.checked_sub(rows).filter(|&past| past <= before),
        }
    };
    last.into_iter()
        .map(|last| {
            past(last).ok_or_else(|| {
                Error::bad_input(format!(
                    "{last} as the last of at most {total} keys, {before} of them cached and \
                     {rows} new"
                ))
                .at("input 5 (seqlens_k)")
            })
        })
        .collect()
}

/// Queries, keys and values, which may lie side by side in input 0.
fn projections(ctx: &EvalCtx, sizes: &Sizes) -> Result<[Tensor; 3]> {
    let &Sizes { batch, rows, heads, groups, size, .. } = sizes;
    if let Some(key) = ctx.opt(1) {
        let value = ctx.input(2)?;
        let needed = [batch, rows, groups * size];
        if key.shape() != needed || value.shape() != needed {
            let shapes = format!("{:?} and {:?}", key.shape(), value.shape());
            let what = format!("keys and values of shapes {shapes}, not {needed:?}");
            return Err(Error::bad_input(what));
        }
        return Ok([ctx.input(0)?.clone(), key.clone(), value.clone()]);
    }
    let all = ctx.input(0)?.cow::<f32>()?;
    let width = (heads + 2 * groups) * size;
    let part = |first: usize, count: usize| {
        ctx.output(vec![batch, rows, count * size], |out: &mut [f32]| {
            let to = out.chunks_exact_mut((count * size).max(1));
            for (to, from) in to.zip(all.chunks_exact(width.max(1))) {
                to.copy_from_slice(&from[first * size..][..count * size]);
            }
            Ok(())
        })
    };
    Ok([part(0, heads)?, part(heads, groups)?, part(heads + groups, groups)?])
}

/// Heads turned by the positions of their rows.
fn turned(ctx: &EvalCtx, x: Tensor, heads: usize, sizes: &Sizes) -> Result<Tensor> {
    let (cos, sin) = (ctx.input(7)?, ctx.input(8)?);
    let half = cos.shape().last().copied().unwrap_or(0) as i64;
    let attrs = [
        ("num_heads", Attr::Int(heads as i64)),
        ("rotary_embedding_dim", Attr::Int(half.saturating_mul(2))),
        ("interleaved", Attr::Int(ctx.int("rotary_interleaved", 0)?)),
    ];
    let ids = positions(ctx, sizes)?;
    rotary(ctx, &attrs, vec![Some(x), Some(cos.clone()), Some(sin.clone()), Some(ids)])
}

/// The position of each row. A first prompt counts from the first position that is given.
fn positions(ctx: &EvalCtx, sizes: &Sizes) -> Result<Tensor> {
    let &Sizes { batch, rows, .. } = sizes;
    match ctx.opt(9) {
        Some(ids) if sizes.first_prompt => {
            counted(ctx, ids.to_i64()?.first().copied().unwrap_or(0), batch, rows)
        }
        Some(ids) if ids.len() == batch * rows => Ok(ids.clone()),
        Some(ids) => Err(Error::bad_input(format!(
            "positions of shape {:?} for {batch} samples of {rows} rows",
            ids.shape()
        ))),
        None => {
            let sample = |&past: &usize| (past..past + rows).map(|at| at as i64);
            let ids: Vec<i64> = sizes.past.iter().flat_map(sample).collect();
            Tensor::from_slice(vec![batch, rows], &ids)
        }
    }
}

/// What each head adds to the sum of its softmax, as the score of a key without a value.
fn sinks(ctx: &EvalCtx, sizes: &Sizes) -> Result<Option<Vec<f32>>> {
    match ctx.opt(11) {
        Some(sinks) if sinks.len() == sizes.heads => Ok(Some(sinks.to_vec()?)),
        Some(sinks) => {
            let what = format!("{} sinks for {} heads", sinks.len(), sizes.heads);
            Err(Error::bad_input(what))
        }
        None if ctx.int("smooth_softmax", -1)? == 1 => Ok(Some(vec![0.0; sizes.heads])),
        None => Ok(None),
    }
}

/// A cache behind a row of zeros in each head.
fn behind_zeros(ctx: &EvalCtx, cache: &Tensor) -> Result<Tensor> {
    let &[batch, groups, rows, size] = cache.shape() else {
        return Err(Error::internal("a cache is not of rank 4"));
    };
    let from = cache.cow::<f32>()?;
    ctx.output(vec![batch, groups, rows + 1, size], |out: &mut [f32]| {
        let heads = out.chunks_exact_mut(((rows + 1) * size).max(1));
        for (out, from) in heads.zip(from.chunks_exact((rows * size).max(1))) {
            let (zeros, rest) = out.split_at_mut(size);
            zeros.fill(0.0);
            rest.copy_from_slice(from);
        }
        Ok(())
    })
}

/// The mask for keys behind a sink: the score of the sink, then the bias. It hides what is before
/// the window, for the sink is seen from everywhere.
fn with_sinks(
    ctx: &EvalCtx,
    bias: Option<&Tensor>,
    sinks: &[f32],
    window: i64,
    sizes: &Sizes,
) -> Result<Tensor> {
    let &Sizes { batch, rows, heads, total, .. } = sizes;
    let front = [batch, heads, rows];
    let strides = match bias.map(|bias| &bias.shape()[..3]) {
        Some(shape) if broadcast_shapes(&[shape, &front])? != front => {
            return Err(Error::bad_input(format!("a bias for {shape:?}, not {front:?}")));
        }
        Some(shape) => broadcast_strides(shape, &front),
        None => vec![0; 3],
    };
    let values = bias.map(Tensor::cow::<f32>).transpose()?;
    ctx.output(vec![batch, heads, rows, total + 1], |out: &mut [f32]| {
        for (i, out) in out.chunks_exact_mut(total + 1).enumerate() {
            let at = [i / rows / heads, i / rows % heads, i % rows];
            let row: usize = strides.iter().zip(at).map(|(stride, at)| stride * at).sum();
            out[0] = sinks[at[1]];
            match &values {
                Some(values) => out[1..].copy_from_slice(&values[row * total..][..total]),
                None => out[1..].fill(0.0),
            }
            if let Ok(window @ 1..) = usize::try_from(window) {
                let first = (sizes.past[at[0]] + at[2] + 1).saturating_sub(window);
                out[1..=first].fill(f32::NEG_INFINITY);
            }
        }
        Ok(())
    })
}

/// The cache after this run, `[batch, groups, rows, size]`: the valid rows of each sample, its new
/// ones, then zeros.
fn present(ctx: &EvalCtx, new: &Tensor, past: Option<&Tensor>, sizes: &Sizes) -> Result<Tensor> {
    let &Sizes { batch, rows, groups, size, before, after, .. } = sizes;
    if let Some(past) = past
        && past.shape() != [batch, groups, before, size]
    {
        let needed = [batch, groups, before, size];
        let what = format!("a cache of shape {:?}, not {needed:?}", past.shape());
        return Err(Error::bad_input(what));
    }
    let old = past.map(Tensor::cow::<f32>).transpose()?.unwrap_or_default();
    let new = new.cow::<f32>()?;
    let mut cache = ctx.alloc(DType::F32, vec![batch, groups, after, size])?;
    let out = cache.as_mut_slice::<f32>()?;
    out.fill(0.0);
    for (i, out) in out.chunks_exact_mut((after * size).max(1)).enumerate() {
        let (sample, group) = (i / groups, i % groups);
        let (valid, rest) = out.split_at_mut(sizes.past[sample] * size);
        valid.copy_from_slice(&old[i * before * size..][..valid.len()]);
        for (row, out) in rest.chunks_exact_mut(size.max(1)).take(rows).enumerate() {
            let at = ((sample * rows + row) * groups + group) * size;
            out.copy_from_slice(&new[at..][..size]);
        }
    }
    Ok(cache)
}
