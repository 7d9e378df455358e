//! Llama 2, 3, 3.x, SmolLM 2 and Mistral; and what later families share with them.

use super::rope::rotary;
use super::{Architecture, Network};
use crate::graph::attention::HeadShape;
use crate::graph::decoder::{Decoder, Layer};
use crate::graph::{Activation, FeedForward, Norm};
use crate::source::{Settings, Weights, names};
use fewbit_core::{Error, Result};

/// Models have at most a few hundred layers.
const MAX_LAYERS: usize = 4096;

pub(super) const LLAMA: Architecture = Architecture {
    names: &["llama"],
    title: "Llama",
    gguf: "llama",
    class: "LlamaForCausalLM",
    tensors: &names::LLAMA,
    tied: false,
    network: |settings, weights| Ok(Network::Decoder(base(settings, weights)?)),
};

pub(super) const MISTRAL: Architecture = Architecture {
    names: &["mistral"],
    title: "Mistral",
    gguf: "llama",
    class: "MistralForCausalLM",
    tensors: &names::LLAMA,
    tied: false,
    network: |settings, weights| {
        let mut decoder = base(settings, weights)?;
        let window = settings.opt_size("sliding_window")?.filter(|&window| window > 0);
        decoder.layers.iter_mut().for_each(|layer| layer.window = window);
        Ok(Network::Decoder(decoder))
    },
};

/// A decoder as Llama's: root-mean-square norms, rotation in all layers, a gated feed-forward.
pub(super) fn base(settings: &Settings, weights: &dyn Weights) -> Result<Decoder> {
    let hidden = settings.size("hidden_size")?;
    let heads = heads(settings, hidden)?;
    let epsilon = settings.number_or("rms_norm_eps", 1e-6)? as f32;
    let layers = layer_count(settings)?;
    let activation = Activation::named(settings.text("hidden_act").unwrap_or("silu"))?;
    Ok(Decoder {
        hidden,
        vocabulary: vocabulary(settings, weights)?,
        context: settings.size_or("max_position_embeddings", 2048)?,
        heads,
        layers: vec![Layer { rotary: Some(0), window: None }; layers],
        rotaries: vec![rotary(settings, weights, heads.size)?],
        norm: Norm::Rms { epsilon, plus: 0.0 },
        post_norms: false,
        head_norm: None,
        scale: 1.0 / (heads.size as f32).sqrt(),
        score_cap: None,
        logit_cap: None,
        embedding_scale: None,
        learned_positions: false,
        feed_forward: FeedForward { gated: true, activation },
    })
}

/// Number and size of heads, by the names that most families use.
pub(super) fn heads(settings: &Settings, hidden: usize) -> Result<HeadShape> {
    let queries = settings.size("num_attention_heads")?;
    let keys = settings.size_or("num_key_value_heads", queries)?;
    let size = settings.size_or("head_dim", hidden / queries)?;
    HeadShape { queries, keys, size }.check()
}

/// Whether a layer sees a window, as `layer_types` says.
pub(super) fn is_local(settings: &Settings, index: usize) -> Option<bool> {
    let kind = settings.get("layer_types")?.as_array()?.get(index)?.as_str()?;
    Some(kind == "sliding_attention")
}

/// Number of layers.
pub(super) fn layer_count(settings: &Settings) -> Result<usize> {
    let layers = settings.size("num_hidden_layers")?;
    if layers > MAX_LAYERS {
        let what = format!("{layers} layers; at most {MAX_LAYERS}");
        return Err(Error::bad_input(what).code("FB-3705"));
    }
    Ok(layers)
}

/// Number of tokens: rows of the embedding, which may be more than the tokenizer has.
pub(super) fn vocabulary(settings: &Settings, weights: &dyn Weights) -> Result<usize> {
    match weights.get("token_embd.weight")?.map(|w| w.shape) {
        Some(shape) if shape.len() == 2 => Ok(shape[0]),
        _ => settings.size("vocab_size"),
    }
}
