//! Self-attention of a layer: projections, rotation, cache, scaled products.

use super::builder::Builder;
use super::norm::Norm;
use fewbit_core::{Attr, Error, Node, Result, ValueId};

/// Number and size of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub queries: usize,
    /// Heads of keys and values; each serves `queries / keys` query heads.
    pub keys: usize,
    /// Elements of a head.
    pub size: usize,
}

impl HeadShape {
    /// Checks that the numbers make sense together.
    ///
    /// # Errors
    /// When heads are missing or do not divide.
    pub fn check(self) -> Result<HeadShape> {
        let HeadShape { queries, keys, size } = self;
        if queries == 0 || keys == 0 || size == 0 || queries % keys != 0 {
            let what = format!("{queries} query heads and {keys} key heads of {size} elements");
            return Err(Error::bad_input(what).code("FB-3703"));
        }
        Ok(self)
    }
}

/// Queries, keys and values of one layer, heads side by side.
pub(super) struct Projected {
    pub q: ValueId,
    pub k: ValueId,
    pub v: ValueId,
}

/// Projects hidden states; the three matrices may be one (`attn_qkv`).
pub(super) fn project(
    b: &mut Builder,
    prefix: &str,
    x: ValueId,
    hidden: usize,
    heads: HeadShape,
) -> Result<Projected> {
    let widths = [heads.queries, heads.keys, heads.keys].map(|n| n * heads.size);
    let joined = format!("{prefix}.attn_qkv");
    if b.has(&format!("{joined}.weight"))? {
        let (qkv, width) = b.linear(&joined, x, hidden)?;
        expect(&joined, width, widths.iter().sum())?;
        let parts = b.split(&format!("{prefix}.attn_parts"), qkv, &widths)?;
        return Ok(Projected { q: parts[0], k: parts[1], v: parts[2] });
    }
    let mut part = |which: &str, expected: usize| -> Result<ValueId> {
        let name = format!("{prefix}.attn_{which}");
        let (y, width) = b.linear(&name, x, hidden)?;
        expect(&name, width, expected)?;
        Ok(y)
    };
    Ok(Projected { q: part("q", widths[0])?, k: part("k", widths[1])?, v: part("v", widths[2])? })
}

fn expect(name: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let what = format!("{found} rows where the configuration asks for {expected}");
    Err(Error::bad_input(what).code("FB-3702").at(format!("tensor `{name}.weight`")))
}

/// Normalizes each head of `x` on its own (Qwen3, Gemma 3).
pub(super) fn norm_heads(
    b: &mut Builder,
    name: &str,
    x: ValueId,
    norm: Norm,
    [heads, size]: [usize; 2],
) -> Result<ValueId> {
    let apart = b.reshape(&format!("{name}.heads"), x, &[0, 0, heads as i64, size as i64])?;
    let normed = norm.apply(b, name, apart, size)?;
    b.reshape(&format!("{name}.joined"), normed, &[0, 0, (heads * size) as i64])
}

/// What the products of queries and keys go through.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    pub heads: HeadShape,
    pub scale: f32,
    pub cap: Option<f32>,
    pub causal: bool,
    /// Additive or boolean mask, and the number of valid keys of each sample.
    pub mask: Option<ValueId>,
    pub valid: Option<ValueId>,
}

/// The attention node.
pub(super) fn attend(
    b: &mut Builder,
    name: String,
    [q, k, v]: [ValueId; 3],
    scores: Scores,
) -> Result<ValueId> {
    let mut node = Node::new("Attention", name, &[q, k, v], &[])
        .with("q_num_heads", Attr::Int(scores.heads.queries as i64))
        .with("kv_num_heads", Attr::Int(scores.heads.keys as i64))
        .with("scale", Attr::Float(scores.scale))
        .with("is_causal", Attr::Int(i64::from(scores.causal)));
    if let Some(cap) = scores.cap {
        node.set_attr("softcap", Attr::Float(cap));
    }
    if scores.mask.is_some() || scores.valid.is_some() {
        node.inputs.push(scores.mask);
    }
    if scores.valid.is_some() {
        node.inputs.extend([None, None, scores.valid]);
    }
    b.op(node)
}
