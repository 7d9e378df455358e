//! Rotary position embedding: angles by position, and what stretches them for longer texts.

use super::builder::Builder;
use fewbit_core::{Attr, DType, Node, Result, Tensor, ValueId};

/// Rotation of queries and keys by their position (Su et al. 2021, "RoFormer").
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Turn per position of each pair of elements, in radians.
    pub frequencies: Vec<f32>,
    /// Cosines and sines are multiplied by this (YaRN, LongRoPE).
    pub magnitude: f32,
    /// Whether pairs are neighbours, rather than half a head apart.
    pub interleaved: bool,
    /// Where long texts turn in another way.
    pub long: Option<Long>,
}

/// How long texts turn (LongRoPE).
#[derive(Clone, Debug, PartialEq)]
pub struct Long {
    /// The most tokens of a text that is not long.
    pub beyond: usize,
    /// Turns as [`Rotary::frequencies`].
    pub frequencies: Vec<f32>,
}

impl Rotary {
    /// `theta^(-2i / size)` for the first `size` elements of a head, unscaled.
    pub fn plain(size: usize, theta: f64) -> Rotary {
        let exponent = |i: usize| -(2.0 * i as f64) / size as f64;
        let frequencies = (0..size / 2).map(|i| theta.powf(exponent(i)) as f32).collect();
        Rotary { frequencies, magnitude: 1.0, interleaved: false, long: None }
    }

    /// For texts of at most `longest` tokens.
    pub(super) fn for_texts(&self, longest: usize) -> Rotary {
        let mut rotary = self.clone();
        if let Some(long) = rotary.long.take_if(|long| longest > long.beyond) {
            rotary.frequencies = long.frequencies;
        }
        rotary
    }
}

/// Cosines and sines of all positions of a run, `[batch, sequence, pairs]`.
#[derive(Clone, Copy)]
pub(super) struct Angles {
    cos: ValueId,
    sin: ValueId,
}

/// Computes the angles once for all layers that share them.
pub(super) fn angles(
    b: &mut Builder,
    name: &str,
    rotary: &Rotary,
    positions: ValueId,
) -> Result<Angles> {
    let axis = b.integers("rotary.axis", &[-1])?;
    let mut numbers = |op: &str, name: String, inputs: &[ValueId]| b.simple(op, name, inputs);
    let column = numbers("Unsqueeze", format!("{name}.column"), &[positions, axis])?;
    let column = b.cast(&format!("{name}.position"), column, DType::F32)?;
    let shape = vec![1, 1, rotary.frequencies.len()];
    let turns = b.constant(&format!("{name}.frequencies"), || {
        Tensor::from_slice(shape, &rotary.frequencies)
    })?;
    let angle = b.simple("Mul", format!("{name}.angle"), &[column, turns])?;
    let mut part = |op: &str| -> Result<ValueId> {
        let value = b.simple(op, format!("{name}.{}", op.to_lowercase()), &[angle])?;
        if rotary.magnitude == 1.0 {
            return Ok(value);
        }
        let factor = b.number(&format!("{name}.magnitude"), rotary.magnitude)?;
        b.simple("Mul", format!("{name}.{}.scaled", op.to_lowercase()), &[value, factor])
    };
    Ok(Angles { cos: part("Cos")?, sin: part("Sin")? })
}

/// Turns `heads` heads of `size` elements that lie side by side.
pub(super) fn turn(
    b: &mut Builder,
    name: String,
    x: ValueId,
    angles: Angles,
    rotary: &Rotary,
    [heads, size]: [usize; 2],
) -> Result<ValueId> {
    let mut node = Node::new("RotaryEmbedding", name, &[x, angles.cos, angles.sin], &[])
        .with("num_heads", Attr::Int(heads as i64))
        .with("interleaved", Attr::Int(i64::from(rotary.interleaved)));
    let turned = 2 * rotary.frequencies.len();
    if turned != size {
        node.set_attr("rotary_embedding_dim", Attr::Int(turned as i64));
    }
    b.op(node)
}
