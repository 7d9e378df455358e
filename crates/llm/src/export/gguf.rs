//! The tensors of a GGUF file, from a checkpoint in the layout of Hugging Face.

use super::kept;
use super::metadata::metadata;
use super::piece::{Order, Piece, Pieces, place};
use crate::arch::{Architecture, Network};
use crate::graph::Norm;
use crate::graph::attention::HeadShape;
use crate::model::LanguageModel;
use crate::source::{Checkpoint, Weight};
use fewbit_core::codec::block::BlockType;
use fewbit_core::{AlignedBytes, DType, Error, Result, ResultExt};
use fewbit_formats::gguf::{Metadata, TensorInfo};
use fewbit_formats::mmap::shown;
use std::collections::HashSet;

/// What a GGUF file of a model holds.
#[derive(Debug)]
pub struct GgufForm {
    /// The metadata, but for the type of the file.
    pub metadata: Metadata,
    /// The tensors: matrices as they are stored, everything small and sensitive as `F32`.
    pub pieces: Pieces,
}

/// Tensors that a checkpoint may hold and no program needs: tables that follow from the settings,
/// heads for other tasks, and the parts of a model that see images.
const IDLE: &[&str] = &[
    "rotary_emb.inv_freq",
    ".attn.bias",
    ".attn.masked_bias",
    "embeddings.position_ids",
    "pooler.dense.",
    "cls.predictions.",
    "cls.seq_relationship.",
    "vision_tower.",
    "vision_model.",
    "multi_modal_projector.",
];

/// The GGUF form of a checkpoint that lies in a folder of Hugging Face.
///
/// # Errors
/// When a tensor has no name in GGUF, is stored in a type that GGUF has not, the tokenizer is of a
/// kind that GGUF cannot hold, or the model computes what GGUF cannot say.
pub fn to_gguf(model: &LanguageModel) -> Result<GgufForm> {
    let at = || shown(&model.checkpoint().path);
    let tensors = Tensors { model, checkpoint: model.checkpoint() };
    let (list, known) = tensors.list().at(at)?;
    tensors.refuse_unknown(&known).at(at)?;
    let metadata = metadata(model, &list).at(at)?;
    let pieces = Pieces::new(list, model.checkpoint().weights.files());
    kept::check(model, &metadata, &pieces).at(at)?;
    Ok(GgufForm { metadata, pieces })
}

/// All names that tensors of an architecture may have, in the order of the file.
pub(super) fn names(architecture: &Architecture, layers: usize) -> Vec<String> {
    let table = architecture.tensors;
    let both = |stem: String| [format!("{stem}.weight"), format!("{stem}.bias")];
    let outer = |(name, _): &(&str, &str)| name.to_string();
    let inner = (0..layers)
        .flat_map(|layer| table.inner.iter().map(move |(name, _)| format!("blk.{layer}.{name}")));
    let (front, back): (Vec<String>, Vec<String>) =
        table.outer.iter().map(outer).partition(|name| !name.starts_with("output"));
    front.into_iter().chain(inner).chain(back).flat_map(both).collect()
}

/// Layers and heads of a network.
pub(super) fn shape(network: &Network) -> (usize, HeadShape) {
    match network {
        Network::Decoder(decoder) => (decoder.layers.len(), decoder.heads),
        Network::Encoder(encoder) => (encoder.layers, encoder.heads),
    }
}

/// Whether GGUF files of an architecture hold rotated pairs side by side.
pub(super) fn pairs_side_by_side(gguf: &str) -> bool {
    matches!(gguf, "llama" | "smollm3")
}

/// The size of a head where the rows of a tensor are those of rotated heads.
pub(super) fn rotated_head(gguf: &str, name: &str, heads: HeadShape) -> Option<usize> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let rotated = stem.ends_with(".attn_q") || stem.ends_with(".attn_k");
    (rotated && pairs_side_by_side(gguf)).then_some(heads.size)
}

/// Whether a tensor is stored as `F32` whatever the type of the file.
fn always_f32(name: &str, shape: &[usize]) -> bool {
    let small = ["_norm.weight", "position_embd.weight", "token_types.weight"];
    shape.len() <= 1 || small.iter().any(|end| name.ends_with(end))
}

struct Tensors<'m> {
    model: &'m LanguageModel,
    checkpoint: &'m Checkpoint,
}

impl Tensors<'_> {
    /// The pieces, and what their files call them.
    fn list(&self) -> Result<(Vec<Piece>, HashSet<String>)> {
        let Checkpoint { architecture, weights, settings, .. } = self.checkpoint;
        let (layers, _) = shape(self.model.network());
        let tied = settings.flag("tie_word_embeddings") || architecture.gguf.starts_with("gemma");
        let mut known = HashSet::new();
        let mut list = self.factors()?;
        for name in names(architecture, layers) {
            let Some(weight) = weights.get(&name)? else { continue };
            let stored = weights.stored_name(&name);
            known.insert(stored.clone());
            // A head that the settings tie to the embedding is a second copy of it.
            if !(tied && name == "output.weight") {
                list.push(self.piece(&name, weight).at(|| format!("tensor `{stored}`"))?);
            }
        }
        Ok((list, known))
    }

    fn piece(&self, name: &str, weight: Weight) -> Result<Piece> {
        let gguf = self.checkpoint.architecture.gguf;
        let (_, heads) = shape(self.model.network());
        if weight.coded.is_some() {
            return Err(Error::unsupported("codes of another format have no type in GGUF")
                .code("FB-4715")
                .hint("take the float model"));
        }
        let mut shape = weight.shape.clone();
        let mut order = match rotated_head(gguf, name, heads) {
            Some(head) if !head.is_multiple_of(2) || !shape[0].is_multiple_of(head) => {
                let what = format!("{} rows are no whole number of heads of {head}", shape[0]);
                return Err(Error::bad_input(what).code("FB-3702"));
            }
            Some(head) => Order::Halves { head },
            None => Order::Kept,
        };
        if weight.transposed && shape.len() == 2 {
            (order, shape) = (Order::Columns, vec![shape[1], shape[0]]);
        }
        let info = TensorInfo { name: name.to_string(), shape, ty: BlockType::F32 };
        if always_f32(name, &info.shape) {
            return Ok(in_memory(info, self.numbers(name, &weight, order)?));
        }
        let ty = plain_type(weight.tensor.dtype())?;
        let bytes = weight.tensor.shared_bytes();
        let bytes = bytes.ok_or_else(|| Error::internal("a tensor without bytes"))?;
        let place = place(self.checkpoint.weights.files(), bytes);
        Ok(Piece { info: TensorInfo { ty, ..info }, place, order })
    }

    /// The values of a small tensor as the file holds them.
    fn numbers(&self, name: &str, weight: &Weight, order: Order) -> Result<Vec<f32>> {
        let stored = weight.tensor.to_f32()?;
        let plus = self.norm_shift(name);
        let at = |row| if weight.shape.len() == 1 { order.stored_row(row) } else { row };
        Ok((0..stored.len()).map(|row| stored[at(row)] + plus).collect())
    }

    /// What scales of norms in GGUF are more than those of Hugging Face.
    fn norm_shift(&self, name: &str) -> f32 {
        match self.model.network() {
            Network::Decoder(decoder) if name.ends_with("norm.weight") => match decoder.norm {
                Norm::Rms { plus, .. } => plus,
                Norm::Layer { .. } => 0.0,
            },
            _ => 0.0,
        }
    }

    /// Divisors of the frequencies of rotation, where the settings stretch them unevenly.
    fn factors(&self) -> Result<Vec<Piece>> {
        let lists = super::metadata::rotation_factors(self.model)?;
        let piece = |(name, values): (&str, Vec<f32>)| {
            let (name, shape) = (name.to_string(), vec![values.len()]);
            in_memory(TensorInfo { name, shape, ty: BlockType::F32 }, values)
        };
        Ok(lists.into_iter().map(piece).collect())
    }

    /// What would be lost on the way is refused instead.
    fn refuse_unknown(&self, known: &HashSet<String>) -> Result<()> {
        let names = self.checkpoint.weights.stored_names();
        let lost =
            |name: &&String| !known.contains(*name) && !IDLE.iter().any(|part| name.contains(part));
        match names.iter().find(lost) {
            None => Ok(()),
            Some(name) => {
                let title = self.checkpoint.architecture.title;
                Err(Error::unsupported(format!("{title} models have no tensor `{name}` in GGUF"))
                    .code("FB-4713")
                    .hint("remove it if the model does not need it: it would be lost"))
            }
        }
    }
}

/// A small tensor that was computed.
pub(super) fn in_memory(info: TensorInfo, values: Vec<f32>) -> Piece {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let place = super::piece::Place::Memory(AlignedBytes::copy_of(&bytes).into());
    Piece { info, place, order: Order::Kept }
}

/// The type of GGUF for plain numbers.
pub(super) fn plain_type(dtype: DType) -> Result<BlockType> {
    match dtype {
        DType::F32 => Ok(BlockType::F32),
        DType::F16 => Ok(BlockType::F16),
        DType::BF16 => Ok(BlockType::BF16),
        other => Err(Error::unsupported(format!("weights stored as {other} have no type in GGUF"))
            .code("FB-4701")
            .hint("convert a checkpoint in f32, f16 or bf16")),
    }
}
