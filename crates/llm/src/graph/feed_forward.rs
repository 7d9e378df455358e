//! The feed-forward part of a layer.

use super::builder::Builder;
use fewbit_core::{Attr, Error, Node, Result, ValueId};

/// The nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// By the Gaussian distribution function.
    Gelu,
    /// Its approximation by the hyperbolic tangent.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// From `hidden_act` of a configuration.
    ///
    /// # Errors
    /// When the name is not known.
    pub fn named(name: &str) -> Result<Activation> {
        match name {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(Error::unsupported(format!("the activation `{other}`"))
                .code("FB-4702")
                .hint("known are silu, gelu, gelu_new, gelu_pytorch_tanh, relu")),
        }
    }

    fn apply(self, b: &mut Builder, name: &str, x: ValueId) -> Result<ValueId> {
        let gelu = |kind: &str| {
            Node::new("Gelu", name, &[x], &[]).with("approximate", Attr::String(kind.into()))
        };
        match self {
            Activation::Silu => b.simple("Swish", name.to_string(), &[x]),
            Activation::Relu => b.simple("Relu", name.to_string(), &[x]),
            Activation::Gelu => b.op(gelu("none")),
            Activation::GeluTanh => b.op(gelu("tanh")),
        }
    }
}

/// Two products with a nonlinearity between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForward {
    /// Whether a second product gates the first.
    pub gated: bool,
    /// The nonlinearity.
    pub activation: Activation,
}

impl FeedForward {
    /// The part of the layer with the tensors `prefix.ffn_up`, `.ffn_gate` and `.ffn_down`.
    /// A gate without a tensor of its own is the first half of `.ffn_up`.
    pub(super) fn apply(
        self,
        b: &mut Builder,
        prefix: &str,
        x: ValueId,
        hidden: usize,
    ) -> Result<ValueId> {
        let (mut inner, mut width) = b.linear(&format!("{prefix}.ffn_up"), x, hidden)?;
        let mut gate = None;
        if self.gated && b.has(&format!("{prefix}.ffn_gate.weight"))? {
            gate = Some(b.linear(&format!("{prefix}.ffn_gate"), x, hidden)?.0);
        } else if self.gated {
            width /= 2;
            let halves = b.split(&format!("{prefix}.ffn_halves"), inner, &[width, width])?;
            (gate, inner) = (Some(halves[0]), halves[1]);
        }
        let act = format!("{prefix}.ffn_act");
        let inner = match gate {
            Some(gate) => {
                let gate = self.activation.apply(b, &act, gate)?;
                b.simple("Mul", format!("{prefix}.ffn_gated"), &[gate, inner])?
            }
            None => self.activation.apply(b, &act, inner)?,
        };
        Ok(b.linear(&format!("{prefix}.ffn_down"), inner, width)?.0)
    }
}
