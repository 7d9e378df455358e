//! Language models as ONNX files.

use fewbit_core::Result;
use fewbit_formats::onnx::{ExternalData, WriteOptions, write};
use fewbit_llm::LanguageModel;
use std::path::{Path, PathBuf};

/// A language model to be written as an ONNX file, in operators that other programs know.
///
/// A decoder takes and gives its keys and values ([`names`](fewbit_llm::graph::names)); weights in
/// blocks of `Q4_0`, `Q5_0`, `Q8_0` and `Q6_K` become `MatMulNBits` of ONNX Runtime, with the same
/// numbers; 16-bit floats stay as they are.
#[derive(Clone, Debug)]
pub struct OnnxJob {
    /// A GGUF file, or a folder of Hugging Face.
    pub model: PathBuf,
    /// Whether other types of blocks may become floats; otherwise they are refused.
    pub floats: bool,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OnnxReport {
    /// Nodes of the graph.
    pub nodes: usize,
    /// Bytes of the file, and of the one beside it that holds the weights if they are too large
    /// for one.
    pub file_bytes: u64,
}

impl OnnxJob {
    /// Writes the file, whole or not at all; weights of more than 2 GiB go to `OUT.data`.
    ///
    /// # Errors
    /// When the model is damaged, a type of blocks has no form in ONNX, or writing fails.
    pub fn run(&self, out: &Path, force: bool) -> Result<OnnxReport> {
        let model = LanguageModel::open(&self.model)?;
        let inputs = model.checkpoint().files.clone();
        let options =
            WriteOptions { external_data: ExternalData::Auto, keep_existing: !force, inputs };
        let graph = model.portable_graph(self.floats)?;
        let file_bytes = write(&graph, out, &options)?;
        Ok(OnnxReport { nodes: graph.graph.nodes().count(), file_bytes })
    }
}
