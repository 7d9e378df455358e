//! BERT and what has its shape: MiniLM, BGE, E5, GTE (absolute positions).

use super::llama::{heads, layer_count};
use super::{Architecture, Network};
use crate::graph::encoder::Encoder;
use crate::graph::{Activation, FeedForward, Norm};
use crate::source::names;
use fewbit_core::Error;

pub(super) const BERT: Architecture = Architecture {
    names: &["bert"],
    title: "BERT",
    gguf: "bert",
    class: "BertModel",
    tensors: &names::BERT,
    tied: true,
    network: |settings, _| {
        let kind = settings.text("position_embedding_type").unwrap_or("absolute");
        if kind != "absolute" {
            return Err(
                Error::unsupported(format!("positions of the kind `{kind}`")).code("FB-4705")
            );
        }
        let hidden = settings.size("hidden_size")?;
        let activation = Activation::named(settings.text("hidden_act").unwrap_or("gelu"))?;
        Ok(Network::Encoder(Encoder {
            hidden,
            context: settings.size_or("max_position_embeddings", 512)?,
            layers: layer_count(settings)?,
            heads: heads(settings, hidden)?,
            norm: Norm::Layer { epsilon: settings.number_or("layer_norm_eps", 1e-12)? as f32 },
            feed_forward: FeedForward { gated: false, activation },
        }))
    },
};
