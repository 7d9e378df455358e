//! GGUF files: metadata as settings, blocks as they are stored.

use super::{Checkpoint, Pooling, Settings, Weight, Weights};
use crate::arch::{self, Architecture};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::gguf::Vocabulary;
use fewbit_core::{DType, Error, Result, ResultExt, Tensor};
use fewbit_formats::gguf::{self, FromValue, GgufFile, GgufTensor, Metadata};
use fewbit_formats::mmap::{InputFile, shown};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Whether a file begins as GGUF files do.
pub(super) fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    // Pipes and devices are left alone: reading them may block or have effects.
    path.is_file()
        && File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok()
        && magic == *b"GGUF"
}

pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    let file = gguf::read(path)?;
    let metadata = file.metadata().clone();
    let files = file.files().iter().map(|f| f.path().to_path_buf()).collect();
    described(path, &metadata, Box::new(Stored(file)), files)
}

/// A checkpoint that metadata of GGUF describe.
///
/// # Errors
/// When they lack something, contradict themselves, or name an architecture that is not known.
pub(crate) fn described(
    path: &Path,
    metadata: &Metadata,
    weights: Box<dyn Weights + Send + Sync>,
    files: Vec<PathBuf>,
) -> Result<Checkpoint> {
    let parts = || -> Result<_> {
        let (architecture, settings) = architecture(metadata)?;
        let pooling = pooling(metadata, architecture.gguf)?;
        Ok((architecture, settings, tokenizer(metadata)?, pooling))
    };
    let (architecture, settings, tokenizer, pooling) = parts().at(|| shown(path))?;
    let path = path.to_path_buf();
    Ok(Checkpoint { path, architecture, settings, weights, tokenizer, pooling, files })
}

/// The architecture that metadata name, and its settings.
///
/// # Errors
/// As [`described`].
pub(crate) fn architecture(metadata: &Metadata) -> Result<(&'static Architecture, Settings)> {
    let name: &str = metadata.require("general.architecture")?;
    let settings = settings(metadata, name)?;
    // Mistral has no name of its own: it is what Llama is, and may see a window.
    let own =
        if name == "llama" && settings.get("sliding_window").is_some() { "mistral" } else { name };
    Ok((arch::find(own)?, settings))
}

/// Keys behind the name of the architecture, and what `config.json` calls them.
const SIZES: [(&str, &str); 9] = [
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("feed_forward_length", "intermediate_size"),
    ("context_length", "max_position_embeddings"),
    ("vocab_size", "vocab_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.sliding_window", "sliding_window"),
    ("rope.dimension_count", "rotary_dim"),
];

const NUMBERS: [(&str, &str); 5] = [
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("attention.layer_norm_epsilon", "layer_norm_eps"),
    ("rope.freq_base", "rope_theta"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
];

const SCALING: [(&str, &str); 5] = [
    ("rope.scaling.factor", "factor"),
    ("rope.scaling.yarn_attn_factor", "attention_factor"),
    ("rope.scaling.attn_factor", "attention_factor"),
    ("rope.scaling.yarn_beta_fast", "beta_fast"),
    ("rope.scaling.yarn_beta_slow", "beta_slow"),
];

/// The metadata under the names of `config.json`.
fn settings(metadata: &Metadata, name: &str) -> Result<Settings> {
    let key = |part: &str| format!("{name}.{part}");
    let mut settings = Settings::default();
    for (theirs, ours) in SIZES {
        if let Some(size) = metadata.find::<u64>(&key(theirs))? {
            settings.set(ours, size);
        }
    }
    for (theirs, ours) in NUMBERS {
        if let Some(number) = metadata.find::<f64>(&key(theirs))? {
            settings.set(ours, number);
        }
    }
    if let Some(heads) = key_heads(metadata, &key("attention.head_count_kv"))? {
        settings.set("num_key_value_heads", heads);
    }
    let mut scaling = Map::new();
    for (theirs, ours) in SCALING {
        if let Some(number) = metadata.find::<f64>(&key(theirs))? {
            scaling.insert(ours.to_string(), json!(number));
        }
    }
    if let Some(length) = metadata.find::<u64>(&key("rope.scaling.original_context_length"))? {
        scaling.insert("original_max_position_embeddings".to_string(), json!(length));
    }
    if let Some(kind) = metadata.find::<&str>(&key("rope.scaling.type"))? {
        scaling.insert("rope_type".to_string(), json!(kind));
        settings.set("rope_scaling", Value::Object(scaling));
    }
    // How the converters store things: pairs side by side, norms with their 1 added.
    settings.set("rope_interleaved", matches!(name, "llama" | "smollm3"));
    settings.set("whole_norms", name.starts_with("gemma"));
    Ok(settings)
}

/// Heads of keys and values; a list must be the same for all layers.
fn key_heads(metadata: &Metadata, key: &str) -> Result<Option<u64>> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    if let Some(heads) = u64::from_value(value) {
        return Ok(Some(heads));
    }
    let list: Vec<i64> = metadata.require(key)?;
    match list.as_slice() {
        [first, rest @ ..] if rest.iter().all(|n| n == first) => Ok(u64::try_from(*first).ok()),
        _ => Err(Error::unsupported("layers with different numbers of heads").code("FB-4707")),
    }
}

/// The mean unless the file says that the first token counts.
fn pooling(metadata: &Metadata, name: &str) -> Result<Pooling> {
    let kind = metadata.find::<u32>(&format!("{name}.pooling_type"))?.unwrap_or(1);
    Ok(Pooling { mean: kind != 2, normalize: true, max_tokens: None })
}

/// Tokens that end a turn in some family or other.
const TURN_ENDS: [&str; 9] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
];

fn tokenizer(metadata: &Metadata) -> Result<Tokenizer> {
    let id = |name: &str| metadata.find::<u32>(&format!("tokenizer.ggml.{name}_token_id"));
    let flag = |name: &str| metadata.find::<bool>(&format!("tokenizer.ggml.{name}"));
    let text = |name: &str| -> Result<String> {
        Ok(metadata
            .find::<&str>(&format!("tokenizer.ggml.{name}"))?
            .unwrap_or_default()
            .to_string())
    };
    let texts = |name: &str| -> Result<Vec<String>> {
        let found = metadata.find::<&[String]>(&format!("tokenizer.ggml.{name}"))?;
        Ok(found.unwrap_or_default().to_vec())
    };
    let vocabulary = Vocabulary {
        model: text("model")?,
        pre: text("pre")?,
        tokens: texts("tokens")?,
        scores: metadata.find::<&[f32]>("tokenizer.ggml.scores")?.unwrap_or_default().to_vec(),
        kinds: metadata.find::<Vec<i64>>("tokenizer.ggml.token_type")?.unwrap_or_default(),
        merges: texts("merges")?,
        bos: id("bos")?,
        eos: id("eos")?,
        unknown: id("unknown")?,
        padding: id("padding")?,
        class: id("cls")?,
        separator: id("seperator")?.or(id("separator")?),
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space: flag("add_space_prefix")?,
        lowercase: flag("normalizer.lowercase")?,
        template: metadata.find::<&str>("tokenizer.chat_template")?.map(str::to_string),
    };
    let mut ends: Vec<u32> = [id("eos")?, id("eot")?, id("eom")?].into_iter().flatten().collect();
    let is_end = |&(index, token): &(usize, &String)| {
        TURN_ENDS.contains(&token.as_str()) && vocabulary.is_control(index)
    };
    let by_text = vocabulary.tokens.iter().enumerate().filter(is_end);
    ends.extend(by_text.filter_map(|(index, _)| u32::try_from(index).ok()));
    let mut more = Settings::default();
    more.set("eos_token_id", ends);
    if let Some(bos) = vocabulary.bos {
        more.set("bos_token_id", bos);
    }
    let (fields, config) = vocabulary.describe()?;
    Tokenizer::from_json(fields, &config, &[&more])
}

/// The tensors of a file.
struct Stored(GgufFile);

impl Weights for Stored {
    fn get(&self, name: &str) -> Result<Option<Weight>> {
        self.0.get(name).map(|tensor| weight(tensor).at(|| format!("tensor `{name}`"))).transpose()
    }

    fn stored_name(&self, name: &str) -> String {
        name.to_string()
    }

    fn stored_names(&self) -> Vec<String> {
        self.0.tensors().iter().map(|tensor| tensor.name.clone()).collect()
    }

    fn files(&self) -> &[InputFile] {
        self.0.files()
    }
}

fn weight(stored: &GgufTensor) -> Result<Weight> {
    if let Some(plain) = stored.to_plain() {
        return Ok(Weight::plain(plain?));
    }
    let mut shape = stored.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = stored.ty.row_bytes(*last)?;
    }
    Ok(Weight {
        tensor: Tensor::from_bytes(DType::U8, shape, stored.bytes.clone())?,
        block: Some(stored.ty),
        shape: stored.shape.clone(),
        transposed: false,
        coded: None,
    })
}
