//! Qwen 2, 2.5 and 3, dense.

use super::llama::{base, is_local};
use super::{Architecture, Network};
use crate::graph::decoder::Decoder;
use crate::source::{Settings, Weights, names};
use fewbit_core::Result;

pub(super) const QWEN2: Architecture = Architecture {
    names: &["qwen2"],
    title: "Qwen2",
    gguf: "qwen2",
    class: "Qwen2ForCausalLM",
    tensors: &names::LLAMA,
    tied: false,
    network: |settings, weights| Ok(Network::Decoder(windowed(settings, weights)?)),
};

pub(super) const QWEN3: Architecture = Architecture {
    names: &["qwen3"],
    title: "Qwen3",
    gguf: "qwen3",
    class: "Qwen3ForCausalLM",
    tensors: &names::LLAMA,
    tied: false,
    network: |settings, weights| {
        let mut decoder = windowed(settings, weights)?;
        decoder.head_norm = Some(decoder.norm);
        Ok(Network::Decoder(decoder))
    },
};

/// Upper layers see a window only, where the settings switch that on. (The biases of queries,
/// keys and values need no setting: they are there or not.)
fn windowed(settings: &Settings, weights: &dyn Weights) -> Result<Decoder> {
    let mut decoder = base(settings, weights)?;
    if settings.flag("use_sliding_window") {
        let window = settings.opt_size("sliding_window")?;
        let full = settings.size_or("max_window_layers", decoder.layers.len())?;
        for (index, layer) in decoder.layers.iter_mut().enumerate() {
            if is_local(settings, index).unwrap_or(index >= full) {
                layer.window = window;
            }
        }
    }
    Ok(decoder)
}
