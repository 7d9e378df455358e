//! SmolLM 3. (SmolLM and SmolLM 2 are Llamas.)

use super::llama::{base, is_local};
use super::{Architecture, Network};
use crate::source::names;

pub(super) const SMOLLM3: Architecture = Architecture {
    names: &["smollm3"],
    title: "SmolLM3",
    gguf: "smollm3",
    class: "SmolLM3ForCausalLM",
    tensors: &names::LLAMA,
    tied: true,
    network: |settings, weights| {
        let mut decoder = base(settings, weights)?;
        let every = settings.size_or("no_rope_layer_interval", 4)?.max(1);
        let windows = settings.flag("use_sliding_window");
        let window = settings.opt_size("sliding_window")?.filter(|_| windows);
        let turned = settings.numbers("no_rope_layers")?;
        for (index, layer) in decoder.layers.iter_mut().enumerate() {
            let listed = turned.as_ref().and_then(|list| list.get(index)).map(|&flag| flag != 0.0);
            if !listed.unwrap_or((index + 1) % every != 0) {
                layer.rotary = None;
            }
            if is_local(settings, index).unwrap_or(layer.rotary.is_none()) {
                layer.window = window;
            }
        }
        Ok(Network::Decoder(decoder))
    },
};
