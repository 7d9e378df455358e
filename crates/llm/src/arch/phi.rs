//! Phi-3 and 3.5 (dense).

use super::llama::base;
use super::{Architecture, Network};
use crate::source::names;

pub(super) const PHI3: Architecture = Architecture {
    names: &["phi3"],
    title: "Phi-3",
    gguf: "phi3",
    class: "Phi3ForCausalLM",
    tensors: &names::PHI3,
    tied: false,
    network: |settings, weights| {
        let mut decoder = base(settings, weights)?;
        // A window as long as the context hides nothing.
        let window = settings.opt_size("sliding_window")?.filter(|&w| w > 0 && w < decoder.context);
        decoder.layers.iter_mut().for_each(|layer| layer.window = window);
        Ok(Network::Decoder(decoder))
    },
};
