//! The architectures: from settings to a [`Decoder`] or an [`Encoder`].
//!
//! One file for each family; a new one is its file and its rows in [`ALL`].

mod bert;
mod gemma;
mod gpt2;
mod llama;
mod phi;
mod qwen;
pub(crate) mod rope;
mod smollm;

use crate::graph::decoder::Decoder;
use crate::graph::encoder::Encoder;
use crate::source::{Settings, TensorNames, Weights};
use fewbit_core::{Error, Result};

/// One kind of model.
#[derive(Debug)]
pub struct Architecture {
    /// `model_type` in config.json, or `general.architecture` in GGUF.
    pub names: &'static [&'static str],
    /// Its name for people.
    pub title: &'static str,
    /// `general.architecture` of the GGUF files that are written.
    pub gguf: &'static str,
    /// The class in `architectures` of the config.json that is written.
    pub class: &'static str,
    /// What Hugging Face calls its tensors.
    pub tensors: &'static TensorNames,
    /// Whether the embedding is the head too, where config.json does not say.
    pub tied: bool,
    /// Reads the settings.
    pub network: fn(&Settings, &dyn Weights) -> Result<Network>,
}

/// What a checkpoint computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Network {
    /// Predicts the next token.
    Decoder(Decoder),
    /// Turns a text into vectors.
    Encoder(Encoder),
}

/// Every architecture that is read.
pub const ALL: &[Architecture] = &[
    llama::LLAMA,
    llama::MISTRAL,
    qwen::QWEN2,
    qwen::QWEN3,
    gemma::GEMMA2,
    gemma::GEMMA3,
    phi::PHI3,
    smollm::SMOLLM3,
    gpt2::GPT2,
    bert::BERT,
];

/// The architecture of that name.
///
/// # Errors
/// When there is none; all known ones are named.
pub fn find(name: &str) -> Result<&'static Architecture> {
    ALL.iter().find(|a| a.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().flat_map(|a| a.names).copied().collect();
        Error::unsupported(format!("the architecture `{name}`"))
            .code("FB-4704")
            .hint(format!("known are: {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_architecture_is_refused_by_name() {
        let error = find("mamba").unwrap_err();
        assert_eq!(error.kind().exit_code(), 4);
        assert!(error.what().contains("mamba"));
        assert!(error.advice().unwrap().contains("llama, mistral, qwen2"));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ALL.iter().flat_map(|a| a.names).copied().collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
