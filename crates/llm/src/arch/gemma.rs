//! Gemma 2 and 3 (text).

use super::llama::{base, is_local};
use super::rope::{local_base, plain};
use super::{Architecture, Network};
use crate::graph::decoder::Decoder;
use crate::graph::{Activation, FeedForward, Norm};
use crate::source::{Settings, Weights, names};
use fewbit_core::Result;

pub(super) const GEMMA2: Architecture = Architecture {
    names: &["gemma2"],
    title: "Gemma 2",
    gguf: "gemma2",
    class: "Gemma2ForCausalLM",
    tensors: &names::GEMMA,
    tied: true,
    network: |settings, weights| {
        let mut decoder = gemma(settings, weights, 46)?;
        decoder.score_cap = cap(settings, "attn_logit_softcapping", 50.0)?;
        decoder.logit_cap = cap(settings, "final_logit_softcapping", 30.0)?;
        let window = settings.size_or("sliding_window", 4096)?;
        for (index, layer) in decoder.layers.iter_mut().enumerate() {
            let local = is_local(settings, index).unwrap_or(index % 2 == 0);
            layer.window = local.then_some(window);
        }
        Ok(Network::Decoder(decoder))
    },
};

pub(super) const GEMMA3: Architecture = Architecture {
    names: &["gemma3_text", "gemma3"],
    title: "Gemma 3",
    gguf: "gemma3",
    class: "Gemma3ForCausalLM",
    tensors: &names::GEMMA,
    tied: true,
    network: |settings, weights| {
        let mut decoder = gemma(settings, weights, 62)?;
        decoder.head_norm = Some(decoder.norm);
        decoder.score_cap = cap(settings, "attn_logit_softcapping", 0.0)?;
        decoder.logit_cap = cap(settings, "final_logit_softcapping", 0.0)?;
        let size = decoder.heads.size;
        decoder.rotaries.push(plain(settings, size, local_base(settings)?)?);
        let window = settings.size_or("sliding_window", 1024)?;
        let every = settings.size_or("sliding_window_pattern", 6)?.max(1);
        for (index, layer) in decoder.layers.iter_mut().enumerate() {
            if is_local(settings, index).unwrap_or((index + 1) % every != 0) {
                (layer.window, layer.rotary) = (Some(window), Some(1));
            }
        }
        Ok(Network::Decoder(decoder))
    },
};

/// What the generations share. `largest` is the number of layers of the 27 B model, whose scores
/// are scaled by the width of a head's share of the hidden state, where GGUF says nothing.
fn gemma(settings: &Settings, weights: &dyn Weights, largest: usize) -> Result<Decoder> {
    let mut decoder = base(settings, weights)?;
    let act = settings.text("hidden_activation").unwrap_or("gelu_pytorch_tanh");
    decoder.feed_forward = FeedForward { gated: true, activation: Activation::named(act)? };
    if let Norm::Rms { plus, .. } = &mut decoder.norm {
        // GGUF files hold the scale whole, safetensors hold it less one.
        *plus = if settings.flag("whole_norms") { 0.0 } else { 1.0 };
    }
    decoder.post_norms = true;
    decoder.embedding_scale = Some((decoder.hidden as f32).sqrt());
    let share = if decoder.layers.len() == largest {
        decoder.hidden / decoder.heads.queries
    } else {
        decoder.heads.size
    };
    let scalar = settings.number_or("query_pre_attn_scalar", share as f64)?;
    decoder.scale = (1.0 / scalar.max(1e-6).sqrt()) as f32;
    Ok(decoder)
}

/// A bound, or none where the settings say null.
fn cap(settings: &Settings, name: &str, default: f64) -> Result<Option<f32>> {
    let default = if settings.fields().contains_key(name) { 0.0 } else { default };
    let value = settings.number_or(name, default)?;
    Ok((value > 0.0).then_some(value as f32))
}
