//! GPT-2.

use super::llama::{heads, layer_count, vocabulary};
use super::{Architecture, Network};
use crate::graph::decoder::{Decoder, Layer};
use crate::graph::{Activation, FeedForward, Norm};
use crate::source::{Settings, Weights, names};
use fewbit_core::{Error, Result};
use serde_json::Value;

pub(super) const GPT2: Architecture = Architecture {
    names: &["gpt2"],
    title: "GPT-2",
    gguf: "gpt2",
    class: "GPT2LMHeadModel",
    tensors: &names::GPT2,
    tied: true,
    network: |settings, weights| Ok(Network::Decoder(decoder(settings, weights)?)),
};

/// Its settings have names of their own.
const RENAMED: [(&str, &str); 5] = [
    ("n_embd", "hidden_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_positions", "max_position_embeddings"),
    ("layer_norm_epsilon", "layer_norm_eps"),
];

fn decoder(settings: &Settings, weights: &dyn Weights) -> Result<Decoder> {
    let mut settings = settings.clone();
    for (own, shared) in RENAMED {
        if let Some(value) = settings.get(own).cloned() {
            settings.set(shared, value);
        }
    }
    let settings = &settings;
    let hidden = settings.size("hidden_size")?;
    let heads = heads(settings, hidden)?;
    if settings.flag("scale_attn_by_inverse_layer_idx") {
        let what = "attention that is scaled by the number of the layer";
        return Err(Error::unsupported(what).code("FB-4705"));
    }
    let unscaled = settings.get("scale_attn_weights").and_then(Value::as_bool) == Some(false);
    let activation = Activation::named(settings.text("activation_function").unwrap_or("gelu_new"))?;
    Ok(Decoder {
        hidden,
        vocabulary: vocabulary(settings, weights)?,
        context: settings.size_or("max_position_embeddings", 1024)?,
        heads,
        layers: vec![Layer::default(); layer_count(settings)?],
        rotaries: Vec::new(),
        norm: Norm::Layer { epsilon: settings.number_or("layer_norm_eps", 1e-5)? as f32 },
        post_norms: false,
        head_norm: None,
        scale: if unscaled { 1.0 } else { 1.0 / (heads.size as f32).sqrt() },
        score_cap: None,
        logit_cap: None,
        embedding_scale: None,
        learned_positions: true,
        feed_forward: FeedForward { gated: false, activation },
    })
}
