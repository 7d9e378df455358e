//! Normalization of hidden states.

use super::builder::Builder;
use fewbit_core::{Attr, Node, Result, ValueId};

/// How hidden states are normalized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// By the root of the mean square; the stored scale is `plus` less than what is multiplied.
    Rms {
        /// Added to the mean square.
        epsilon: f32,
        /// 1 where the checkpoint stores the scale less one (Gemma in safetensors).
        plus: f32,
    },
    /// By mean and variance, with a bias.
    Layer {
        /// Added to the variance.
        epsilon: f32,
    },
}

impl Norm {
    /// Normalizes the last axis, of `len` elements, with the parameters `name.weight` and
    /// `name.bias`.
    pub(super) fn apply(
        self,
        b: &mut Builder,
        name: &str,
        x: ValueId,
        len: usize,
    ) -> Result<ValueId> {
        let (op, epsilon, plus) = match self {
            Norm::Rms { epsilon, plus } => ("RMSNormalization", epsilon, plus),
            Norm::Layer { epsilon } => ("LayerNormalization", epsilon, 0.0),
        };
        let mut inputs = vec![x, b.vector_plus(&format!("{name}.weight"), len, plus)?];
        let bias = format!("{name}.bias");
        if matches!(self, Norm::Layer { .. }) && b.has(&bias)? {
            inputs.push(b.vector_plus(&bias, len, 0.0)?);
        }
        let node = Node::new(op, name, &inputs, &[]);
        b.op(node.with("axis", Attr::Int(-1)).with("epsilon", Attr::Float(epsilon)))
    }
}
