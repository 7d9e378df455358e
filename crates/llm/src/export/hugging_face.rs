//! A checkpoint as a folder of Hugging Face, from such a folder or from a GGUF file.

use super::config;
use super::gguf::{in_memory, names, plain_type, rotated_head, shape};
use super::piece::{Order, Piece, Pieces, place};
use crate::model::LanguageModel;
use crate::source::{Checkpoint, Settings, Weight};
use fewbit_core::codec::block::BlockType;
use fewbit_core::{DType, Error, Result, ResultExt, Tensor};
use fewbit_formats::gguf::TensorInfo;
use fewbit_formats::mmap::{InputFile, shown};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// What a folder of a model holds.
#[derive(Debug)]
pub struct FolderForm {
    /// `config.json`, but for what the writer does to the tensors.
    pub config: Settings,
    /// Other files and their content, by their path in the folder.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// The tensors as they are stored, under the names of Hugging Face.
    pub pieces: Pieces,
    /// Which of them are matrices of linear layers, those that are worth quantizing, and what
    /// GGUF calls them.
    pub linear: HashMap<String, String>,
}

/// Endings of files that hold weights, or are made from them.
const WEIGHTS: &[&str] = &["safetensors", "bin", "pt", "pth", "gguf", "onnx", "h5", "msgpack"];

/// Folders that travel along, with their JSON.
const BESIDE: &[&str] = &["1_Pooling", "2_Normalize"];

/// The folder form of a model.
///
/// # Errors
/// When a tensor cannot be stored in safetensors, or the settings have no place in `config.json`.
pub fn to_folder(model: &LanguageModel) -> Result<FolderForm> {
    let path = &model.checkpoint().path;
    let form = if path.is_dir() { from_folder(model) } else { from_gguf(model) };
    form.at(|| shown(path))
}

/// Everything stays as it is.
fn from_folder(model: &LanguageModel) -> Result<FolderForm> {
    let Checkpoint { path, architecture, weights, settings, .. } = model.checkpoint();
    if settings.get("quantization_config").is_some() {
        return Err(Error::unsupported("a model that is quantized already")
            .code("FB-4715")
            .hint("take the float model"));
    }
    let mut config = Settings::new(required_config(path)?);
    config.set("model_type", settings.text("model_type").unwrap_or(architecture.names[0]));
    let mut list = Vec::new();
    for stored in weights.stored_names() {
        let found = weights.stored(&stored)?;
        let tensor = found.ok_or_else(|| Error::internal("a tensor that is not there"))?;
        list.push(kept(&stored, &tensor, weights.files()).at(|| format!("tensor `{stored}`"))?);
    }
    list.sort_by(|a, b| a.info.name.cmp(&b.info.name));
    let linear = linear(model)?;
    let pieces = Pieces::new(list, weights.files());
    Ok(FolderForm { config, files: files_beside(path)?, pieces, linear })
}

fn required_config(path: &Path) -> Result<serde_json::Map<String, serde_json::Value>> {
    let config = fewbit_formats::safetensors::read_config(path)?;
    config.ok_or_else(|| Error::bad_input("has no config.json").code("FB-3001"))
}

fn kept(name: &str, tensor: &Tensor, files: &[InputFile]) -> Result<Piece> {
    let ty = match tensor.dtype() {
        DType::I64 => BlockType::I64,
        DType::I32 => BlockType::I32,
        other => plain_type(other)?,
    };
    let info = TensorInfo { name: name.to_string(), shape: tensor.shape().to_vec(), ty };
    let bytes = tensor.shared_bytes().ok_or_else(|| Error::internal("a tensor without bytes"))?;
    Ok(Piece { info, place: place(files, bytes), order: Order::Kept })
}

/// Names of the matrices of linear layers, stored ones and those of GGUF.
fn linear(model: &LanguageModel) -> Result<HashMap<String, String>> {
    let Checkpoint { architecture, weights, .. } = model.checkpoint();
    let (layers, _) = shape(model.network());
    let mut found = HashMap::new();
    for name in names(architecture, layers) {
        let matrix = name.starts_with("blk.") && name.ends_with(".weight");
        if matrix && weights.get(&name)?.is_some_and(|weight| weight.shape.len() == 2) {
            found.insert(hf_name(model, &name)?, name);
        }
    }
    Ok(found)
}

/// What Hugging Face calls a tensor.
fn hf_name(model: &LanguageModel, name: &str) -> Result<String> {
    let Checkpoint { architecture, weights, path, .. } = model.checkpoint();
    if path.is_dir() {
        return Ok(weights.stored_name(name));
    }
    let table = architecture.tensors;
    table
        .stored(table.roots[0], name)
        .ok_or_else(|| Error::internal(format!("`{name}` has no name in Hugging Face")))
}

/// Small files that say how to use the weights: tokenizer, template, pooling, licence.
fn files_beside(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for part in std::iter::once("").chain(BESIDE.iter().copied()) {
        let Ok(entries) = std::fs::read_dir(folder.join(part)) else { continue };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            let path = folder.join(part).join(&name);
            let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
            let weights = ending.as_deref().is_some_and(|e| WEIGHTS.contains(&e));
            let text = name.to_string_lossy();
            let ours = text == "config.json" && part.is_empty();
            if weights || ours || text.ends_with(".index.json") || !path.is_file() {
                continue;
            }
            if std::fs::metadata(&path).is_ok_and(|m| m.len() == 0) {
                continue;
            }
            let file = InputFile::open_small(&path)?;
            files.push((Path::new(part).join(&name), file.bytes().to_vec()));
        }
    }
    Ok(files)
}

/// Rows back in the order of Hugging Face, metadata back in JSON.
fn from_gguf(model: &LanguageModel) -> Result<FolderForm> {
    let Checkpoint { architecture, weights, .. } = model.checkpoint();
    let (layers, _) = shape(model.network());
    let mut list = Vec::new();
    let mut known = HashSet::new();
    for name in names(architecture, layers) {
        let Some(weight) = weights.get(&name)? else { continue };
        known.insert(name.clone());
        list.push(piece(model, &name, weight).at(|| format!("tensor `{name}`"))?);
    }
    refuse_unknown(model, &known)?;
    let (config, files) = config::describe(model)?;
    let pieces = Pieces::new(list, weights.files());
    Ok(FolderForm { config, files, pieces, linear: linear(model)? })
}

fn refuse_unknown(model: &LanguageModel, known: &HashSet<String>) -> Result<()> {
    let stored = model.checkpoint().weights.stored_names();
    let lost = |name: &&String| !known.contains(*name) && !name.starts_with("rope_f");
    match stored.iter().find(lost) {
        None => Ok(()),
        Some(name) => {
            let title = model.checkpoint().architecture.title;
            Err(Error::unsupported(format!("{title} models of Hugging Face have no `{name}`"))
                .code("FB-4713"))
        }
    }
}

fn piece(model: &LanguageModel, name: &str, weight: Weight) -> Result<Piece> {
    let Checkpoint { architecture, weights, .. } = model.checkpoint();
    let (_, heads) = shape(model.network());
    let mut shape = weight.shape.clone();
    let mut order = match rotated_head(architecture.gguf, name, heads) {
        Some(head) if !head.is_multiple_of(2) || !shape[0].is_multiple_of(head) => {
            let what = format!("{} rows are no whole number of heads of {head}", shape[0]);
            return Err(Error::bad_input(what).code("FB-3702"));
        }
        Some(head) => Order::Pairs { head },
        None => Order::Kept,
    };
    let ty = match weight.block {
        Some(block) => block,
        None => plain_type(weight.tensor.dtype())?,
    };
    if architecture.tensors.is_transposed(name) && shape.len() == 2 {
        if weight.block.is_some() {
            return Err(Error::unsupported(format!("{ty} blocks cannot be turned"))
                .code("FB-4716")
                .hint("make a float file of it first: `fewbit convert IN.gguf FLOAT.gguf`"));
        }
        (order, shape) = (Order::Columns, vec![shape[1], shape[0]]);
    }
    let info = TensorInfo { name: hf_name(model, name)?, shape, ty };
    let shift = architecture.gguf.starts_with("gemma") && name.ends_with("norm.weight");
    if weight.shape.len() == 1 && (shift || order != Order::Kept) {
        let minus = if shift { 1.0 } else { 0.0 };
        let stored = weight.tensor.to_f32()?;
        let values = (0..stored.len()).map(|row| stored[order.stored_row(row)] - minus);
        return Ok(in_memory(TensorInfo { ty: BlockType::F32, ..info }, values.collect()));
    }
    let bytes = weight.tensor.shared_bytes();
    let bytes = bytes.ok_or_else(|| Error::internal("a tensor without bytes"))?;
    Ok(Piece { info, place: place(weights.files(), bytes), order })
}
