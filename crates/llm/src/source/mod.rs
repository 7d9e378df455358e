//! Where a model comes from: a Hugging Face folder or a GGUF file, seen alike.
//!
//! Tensors have the names of GGUF (`blk.0.attn_q.weight`) whatever the file calls them, settings
//! the names of `config.json` (`hidden_size`).

mod coded;
pub(crate) mod gguf;
pub(crate) mod hugging_face;
mod method;
pub(crate) mod names;
mod quantization;
mod settings;

pub use coded::Coded;
pub use names::TensorNames;
pub use settings::Settings;

use crate::arch::Architecture;
use crate::tokenizer::Tokenizer;
use fewbit_core::codec::block::BlockType;
use fewbit_core::{Error, Result, Tensor};
use fewbit_formats::mmap::InputFile;
use std::path::{Path, PathBuf};

/// One tensor of a checkpoint, as it is stored.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Plain numbers of the logical shape; for blocks `u8[rows, bytes of a row]`.
    pub tensor: Tensor,
    /// How the bytes are to be read where they are blocks.
    pub block: Option<BlockType>,
    /// Dimensions in elements, outermost first.
    pub shape: Vec<usize>,
    /// Whether a matrix is `[inputs, outputs]` rather than `[outputs, inputs]`.
    pub transposed: bool,
    /// What makes numbers of the tensor where it holds codes.
    pub coded: Option<Box<Coded>>,
}

impl Weight {
    /// A plain tensor.
    pub fn plain(tensor: Tensor) -> Weight {
        let shape = tensor.shape().to_vec();
        Weight { tensor, block: None, shape, transposed: false, coded: None }
    }
}

/// The tensors of a checkpoint by their names in GGUF.
pub trait Weights {
    /// A tensor, `None` where the checkpoint has none of that name.
    ///
    /// # Errors
    /// When its bytes contradict its shape.
    fn get(&self, name: &str) -> Result<Option<Weight>>;

    /// Whether there is a tensor of that name.
    ///
    /// # Errors
    /// As [`get`](Weights::get).
    fn has(&self, name: &str) -> Result<bool> {
        Ok(self.get(name)?.is_some())
    }

    /// What the file calls a tensor, for messages.
    fn stored_name(&self, name: &str) -> String;

    /// What the files call all their tensors; none where that is not known.
    fn stored_names(&self) -> Vec<String> {
        Vec::new()
    }

    /// A plain tensor by the name that the files call it.
    ///
    /// # Errors
    /// When its bytes contradict its shape.
    fn stored(&self, _name: &str) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// The files that tensors are views of; none where they lie in memory.
    fn files(&self) -> &[InputFile] {
        &[]
    }
}

/// A model on disk: settings, tensors, tokenizer. Weights stay in the mapped files.
pub struct Checkpoint {
    /// The path as given.
    pub path: PathBuf,
    /// What builds its graph.
    pub architecture: &'static Architecture,
    /// Settings under the names of `config.json`.
    pub settings: Settings,
    /// The tensors.
    pub weights: Box<dyn Weights + Send + Sync>,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// How hidden states become one vector, for encoders.
    pub pooling: Pooling,
    /// All files it was read from.
    pub files: Vec<PathBuf>,
}

/// How an encoder's hidden states become one vector for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// The mean over all tokens, rather than the first token.
    pub mean: bool,
    /// Whether the vector is divided by its length.
    pub normalize: bool,
    /// Longest text in tokens, beyond which it is cut; `None` leaves it to the model.
    pub max_tokens: Option<usize>,
}

impl Checkpoint {
    /// Reads a Hugging Face folder (`config.json`, safetensors, `tokenizer.json`) or a GGUF file.
    ///
    /// # Errors
    /// When a file is damaged, a part is missing, or the architecture is not known.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        match kind(path) {
            Some(Kind::Folder) => hugging_face::open(path),
            Some(Kind::Gguf) => gguf::open(path),
            // Opening it says why a path leads nowhere.
            None if std::fs::metadata(path).is_err() => {
                InputFile::open(path).and(Err(no_model(path)))
            }
            None => Err(no_model(path)),
        }
    }
}

fn no_model(path: &Path) -> Error {
    Error::bad_input("no language model")
        .code("FB-3704")
        .at(path.display().to_string())
        .hint("give a folder with config.json and safetensors, or a GGUF file")
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Folder,
    Gguf,
}

/// Whether a path is a language model, by content: a folder with `config.json`, or a file that
/// begins as GGUF does.
pub fn is_language_model(path: &Path) -> bool {
    kind(path).is_some()
}

fn kind(path: &Path) -> Option<Kind> {
    if path.is_dir() {
        return path.join("config.json").is_file().then_some(Kind::Folder);
    }
    gguf::is_gguf(path).then_some(Kind::Gguf)
}
