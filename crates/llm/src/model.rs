//! A checkpoint with the network that its settings describe.

use crate::arch::Network;
use crate::graph::decoder::{Decoder, State};
use crate::graph::encoder::Encoder;
use crate::graph::{BlockForm, CacheTypes};
use crate::source::Checkpoint;
use crate::tokenizer::Tokenizer;
use fewbit_core::{Error, Model, Result, ResultExt};
use std::path::Path;

/// A language model, ready to be turned into a graph.
pub struct LanguageModel {
    checkpoint: Checkpoint,
    network: Network,
}

impl LanguageModel {
    /// Reads a folder of Hugging Face or a GGUF file.
    ///
    /// # Errors
    /// When a file is damaged, a part is missing, or the model is of a kind that is not known.
    pub fn open(path: &Path) -> Result<LanguageModel> {
        LanguageModel::of(Checkpoint::open(path)?)
    }

    /// As [`open`](LanguageModel::open), but a folder is seen as the GGUF file that would be
    /// written of it: its rows lie in the order of that file, and the tokenizer is the file's.
    ///
    /// # Errors
    /// As `open`, and as [`to_gguf`](crate::export::to_gguf).
    pub fn open_as_gguf(path: &Path) -> Result<LanguageModel> {
        let model = LanguageModel::open(path)?;
        match path.is_dir() {
            true => LanguageModel::of(crate::export::as_gguf(model)?),
            false => Ok(model),
        }
    }

    fn of(checkpoint: Checkpoint) -> Result<LanguageModel> {
        let network = (checkpoint.architecture.network)(&checkpoint.settings, &*checkpoint.weights)
            .at(|| checkpoint.path.display().to_string())?;
        Ok(LanguageModel { checkpoint, network })
    }

    /// What was read.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What it computes.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.checkpoint.tokenizer
    }

    /// The network of a model that predicts tokens.
    ///
    /// # Errors
    /// For encoders.
    pub fn decoder(&self) -> Result<&Decoder> {
        match &self.network {
            Network::Decoder(decoder) => Ok(decoder),
            Network::Encoder(_) => {
                Err(self.wrong_kind("an encoder predicts no text", "fewbit embed"))
            }
        }
    }

    /// The network of a model that turns texts into vectors.
    ///
    /// # Errors
    /// For decoders.
    pub fn encoder(&self) -> Result<&Encoder> {
        match &self.network {
            Network::Encoder(encoder) => Ok(encoder),
            Network::Decoder(_) => {
                Err(self.wrong_kind("a decoder gives no vectors for texts", "fewbit generate"))
            }
        }
    }

    /// The context to ask for where no text has more than `tokens` tokens: 0, what the model was
    /// made for, or less where the model turns texts that are not long in another way.
    pub fn context_for(&self, tokens: usize) -> usize {
        let Network::Decoder(decoder) = &self.network else { return 0 };
        let mut short = decoder.rotaries.iter().filter_map(|rotary| rotary.long.as_ref());
        short.find(|long| tokens <= long.beyond).map_or(0, |long| long.beyond)
    }

    /// A decoder in two graphs for texts of at most `longest` tokens: up to the hidden states, with
    /// or without a cache, and from them to the logits.
    ///
    /// # Errors
    /// For encoders, and as [`graph`](LanguageModel::graph).
    pub fn halves(&self, state: State, longest: usize) -> Result<[Model; 2]> {
        let (name, weights) = (self.checkpoint.architecture.title, &*self.checkpoint.weights);
        let decoder = self.decoder()?.for_texts(longest);
        let both = || Ok([decoder.body(name, weights, state)?, decoder.head(name, weights)?]);
        both().at(|| self.checkpoint.path.display().to_string())
    }

    fn wrong_kind(&self, what: &str, command: &str) -> Error {
        let title = self.checkpoint.architecture.title;
        Error::usage(format!("{what}: this is a {title} model"))
            .code("FB-2601")
            .hint(format!("use `{command}`"))
            .at(self.checkpoint.path.display().to_string())
    }

    /// The graph of ONNX operators; weights are views into the files.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than the settings say.
    pub fn graph(&self, state: State) -> Result<Model> {
        self.graph_in(state, BlockForm::Stored, None)
    }

    /// The same for texts of at most `longest` tokens, which some models turn in another way than
    /// texts as long as they were made for.
    ///
    /// # Errors
    /// As [`graph`](LanguageModel::graph).
    pub fn graph_for(&self, state: State, longest: usize) -> Result<Model> {
        self.graph_in(state, BlockForm::Stored, Some(longest))
    }

    /// The graph as other programs understand it, with a cache of floats where it is a decoder's
    /// ([`graph::names`](crate::graph::names)). Weights in blocks become `MatMulNBits` of ONNX
    /// Runtime, with the same numbers; where a type has no such form, floats if those are
    /// allowed. Inputs of products are not quantized.
    ///
    /// # Errors
    /// As [`graph`](LanguageModel::graph), and when a type of blocks has no such form.
    pub fn portable_graph(&self, floats: bool) -> Result<Model> {
        self.graph_in(State::Cache(CacheTypes::default()), BlockForm::Portable { floats }, None)
    }

    fn graph_in(&self, state: State, form: BlockForm, longest: Option<usize>) -> Result<Model> {
        let (name, weights) = (self.checkpoint.architecture.title, &*self.checkpoint.weights);
        match &self.network {
            Network::Decoder(decoder) => decoder
                .for_texts(longest.unwrap_or(decoder.context))
                .graph_in(name, weights, state, form),
            Network::Encoder(encoder) => encoder.graph_in(name, weights, form),
        }
        .at(|| self.checkpoint.path.display().to_string())
    }
}
