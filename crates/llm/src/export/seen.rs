//! A folder of Hugging Face, seen as the GGUF file that would be written of it.

use super::gguf::{GgufForm, to_gguf};
use super::piece::Pieces;
use crate::model::LanguageModel;
use crate::source::{Checkpoint, Weight, Weights, gguf};
use fewbit_core::codec::block::BlockType;
use fewbit_core::{AlignedBytes, DType, Error, Result, SharedBytes, Tensor};
use fewbit_formats::mmap::InputFile;

/// The checkpoint that reading the written file would give.
///
/// # Errors
/// As [`to_gguf`].
pub(crate) fn as_gguf(model: LanguageModel) -> Result<Checkpoint> {
    let GgufForm { metadata, pieces } = to_gguf(&model)?;
    let (path, files) = (model.checkpoint().path.clone(), model.checkpoint().files.clone());
    gguf::described(&path, &metadata, Box::new(Seen { model, pieces }), files)
}

/// Tensors in the order of the file; those that lie in it already stay mapped.
struct Seen {
    model: LanguageModel,
    pieces: Pieces,
}

impl Seen {
    fn view(&self) -> View<'_> {
        View { weights: &*self.model.checkpoint().weights, pieces: &self.pieces }
    }
}

/// The same, borrowed.
pub(super) struct View<'a> {
    /// Those of the folder.
    pub(super) weights: &'a dyn Weights,
    pub(super) pieces: &'a Pieces,
}

impl View<'_> {
    fn index(&self, name: &str) -> Option<usize> {
        self.pieces.list().iter().position(|piece| piece.info.name == name)
    }

    /// A tensor whose rows are brought in order.
    fn read(&self, index: usize) -> Result<Tensor> {
        let info = &self.pieces.list()[index].info;
        let dtype = match info.ty {
            BlockType::F32 => DType::F32,
            BlockType::F16 => DType::F16,
            BlockType::BF16 => DType::BF16,
            other => return Err(Error::internal(format!("{other} in a folder"))),
        };
        let mut bytes = vec![0; info.byte_len()?];
        self.pieces.read(index, 0, &mut bytes)?;
        let bytes = SharedBytes::from(AlignedBytes::copy_of(&bytes));
        Tensor::from_bytes(dtype, info.shape.clone(), bytes)
    }
}

impl Weights for View<'_> {
    fn get(&self, name: &str) -> Result<Option<Weight>> {
        let Some(index) = self.index(name) else { return Ok(None) };
        match self.pieces.list()[index].is_mapped() {
            true => self.weights.get(name),
            false => self.read(index).map(Weight::plain).map(Some),
        }
    }

    fn has(&self, name: &str) -> Result<bool> {
        Ok(self.index(name).is_some())
    }

    fn stored_name(&self, name: &str) -> String {
        self.weights.stored_name(name)
    }

    fn files(&self) -> &[InputFile] {
        self.pieces.files()
    }
}

impl Weights for Seen {
    fn get(&self, name: &str) -> Result<Option<Weight>> {
        self.view().get(name)
    }

    fn has(&self, name: &str) -> Result<bool> {
        self.view().has(name)
    }

    fn stored_name(&self, name: &str) -> String {
        self.view().stored_name(name)
    }

    fn files(&self) -> &[InputFile] {
        self.pieces.files()
    }
}
