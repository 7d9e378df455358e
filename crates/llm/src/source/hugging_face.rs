//! Folders in the layout of Hugging Face: `config.json`, safetensors, `tokenizer.json`.

use super::method::Method;
use super::{Checkpoint, Pooling, Settings, TensorNames, Weight, Weights, quantization};
use crate::arch::{self, Architecture};
use crate::tokenizer::Tokenizer;
use fewbit_core::{Error, Result, ResultExt, Tensor};
use fewbit_formats::mmap::{InputFile, shown};
use fewbit_formats::safetensors::{self, SafetensorsFile, StoredTensor};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// JSON files larger than this are no settings and no tokenizer.
const MAX_JSON_BYTES: usize = 256 << 20;

pub(super) fn open(folder: &Path) -> Result<Checkpoint> {
    let mut files = Vec::new();
    let config = require(folder, "config.json", &mut files)?;
    let mut settings = text_model(config);
    let name = settings.text("model_type").unwrap_or_default().to_string();
    let architecture = arch::find(&name).at(|| shown(&folder.join("config.json")))?;
    let tensors = safetensors::read(folder)?;
    files.extend(tensors.files().iter().map(|file| file.path().to_path_buf()));
    let tokenizer = tokenizer(folder, &settings, &mut files)?;
    quantization::complete(&mut settings, folder, &mut files)?;
    let method = Method::of(&settings).at(|| shown(&folder.join("config.json")))?;
    let weights = Stored::new(tensors, architecture, method).at(|| shown(folder))?;
    check_head(&settings, &weights).at(|| shown(folder))?;
    Ok(Checkpoint {
        path: folder.to_path_buf(),
        architecture,
        settings,
        weights: Box::new(weights),
        tokenizer,
        pooling: pooling(folder, &mut files)?,
        files,
    })
}

/// Settings of the language part that may stand beside those of the other parts.
const SHARED: [&str; 5] = [
    "eos_token_id",
    "bos_token_id",
    "tie_word_embeddings",
    "quantization_config",
    "compression_config",
];

/// The settings of the language part, where the model has others too.
fn text_model(config: Map<String, Value>) -> Settings {
    let settings = Settings::new(config);
    let Some(mut inner) = settings.object("text_config") else { return settings };
    for name in SHARED {
        if let (None, Some(value)) = (inner.get(name), settings.get(name)) {
            inner.set(name, value.clone());
        }
    }
    inner
}

/// Where the head is not the embedding, the checkpoint must have it.
fn check_head(settings: &Settings, weights: &Stored) -> Result<()> {
    let tied = settings.get("tie_word_embeddings").and_then(Value::as_bool);
    if tied.unwrap_or(weights.architecture.tied) || weights.has("output.weight")? {
        return Ok(());
    }
    let head = weights.stored_name("output.weight");
    Err(Error::bad_input(format!("there is no tensor `{head}`")).code("FB-3701").hint(
        "check that all files of the model are there; where the embedding is the head too, \
         config.json has `\"tie_word_embeddings\": true`",
    ))
}

fn tokenizer(folder: &Path, settings: &Settings, files: &mut Vec<PathBuf>) -> Result<Tokenizer> {
    let main = require(folder, "tokenizer.json", files)?;
    let mut config = Settings::new(optional(folder, "tokenizer_config.json", files)?);
    let generation = Settings::new(optional(folder, "generation_config.json", files)?);
    let template = folder.join("chat_template.jinja");
    if template.is_file() {
        let file = InputFile::open(&template)?;
        let text = std::str::from_utf8(file.bytes())
            .map_err(|_| Error::bad_input("the template is not UTF-8").at(shown(&template)))?;
        config.set("chat_template", text);
        files.push(template);
    }
    // Where processors of text and images keep it.
    let other = optional(folder, "chat_template.json", files)?;
    if let (None, Some(text)) = (config.get("chat_template"), other.get("chat_template")) {
        config.set("chat_template", text.clone());
    }
    Tokenizer::from_json(main, &config, &[settings, &generation])
        .at(|| shown(&folder.join("tokenizer.json")))
}

/// As the files of sentence-transformers say; the mean without them.
fn pooling(folder: &Path, files: &mut Vec<PathBuf>) -> Result<Pooling> {
    let modules = folder.join("modules.json");
    let mut pooling = Pooling { mean: true, normalize: false, max_tokens: None };
    if !modules.is_file() {
        return Ok(pooling);
    }
    let list = parse(&modules, files)?;
    let kinds = list.as_array().into_iter().flatten().filter_map(|m| m.get("type")?.as_str());
    pooling.normalize = kinds.clone().any(|kind| kind.ends_with("Normalize"));
    let how = Settings::new(optional(&folder.join("1_Pooling"), "config.json", files)?);
    let (mean, first) = (how.flag("pooling_mode_mean_tokens"), how.flag("pooling_mode_cls_token"));
    if !mean && !first && how.get("word_embedding_dimension").is_some() {
        let error = Error::unsupported("a way of pooling other than mean and first token");
        return Err(error.code("FB-4703").at(shown(folder)));
    }
    pooling.mean = !first;
    let limits = Settings::new(optional(folder, "sentence_bert_config.json", files)?);
    pooling.max_tokens = limits.opt_size("max_seq_length")?;
    Ok(pooling)
}

fn require(folder: &Path, name: &str, files: &mut Vec<PathBuf>) -> Result<Map<String, Value>> {
    object(&folder.join(name), files)
}

/// The fields of a JSON file that may be missing; the file joins `files`.
pub(crate) fn optional(
    folder: &Path,
    name: &str,
    files: &mut Vec<PathBuf>,
) -> Result<Map<String, Value>> {
    let path = folder.join(name);
    if path.is_file() { object(&path, files) } else { Ok(Map::new()) }
}

fn object(path: &Path, files: &mut Vec<PathBuf>) -> Result<Map<String, Value>> {
    match parse(path, files)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::bad_input("expected a JSON object").code("FB-3706").at(shown(path))),
    }
}

fn parse(path: &Path, files: &mut Vec<PathBuf>) -> Result<Value> {
    let file = InputFile::open(path)?;
    if file.bytes().len() > MAX_JSON_BYTES {
        let what = format!("{} bytes of JSON; at most {MAX_JSON_BYTES}", file.bytes().len());
        return Err(Error::bad_input(what).code("FB-3706").at(shown(path)));
    }
    files.push(path.to_path_buf());
    serde_json::from_slice(file.bytes())
        .map_err(|e| Error::bad_input(format!("invalid JSON: {e}")).code("FB-3706").at(shown(path)))
}

/// The tensors of the safetensors files.
struct Stored {
    tensors: SafetensorsFile,
    architecture: &'static Architecture,
    root: &'static str,
    /// What stands before the name of the head.
    head: &'static str,
    method: Method,
}

impl Stored {
    fn new(
        tensors: SafetensorsFile,
        architecture: &'static Architecture,
        method: Method,
    ) -> Result<Stored> {
        let names = architecture.tensors;
        let fits = |root: &&&str| {
            let table = names.stored(root, "token_embd.weight");
            table.is_some_and(|name| tensors.get(&name).is_some())
        };
        let Some(&root) = names.roots.iter().find(fits) else {
            let tried = names.stored(names.roots[0], "token_embd.weight").unwrap_or_default();
            return Err(Error::bad_input(format!("there is no tensor `{tried}`"))
                .code("FB-3701")
                .hint("check that config.json and the safetensors are of one model"));
        };
        let begins = |start: &str| tensors.tensors().iter().any(|t| t.name.starts_with(start));
        let head = names.head_root(root, begins);
        Ok(Stored { root, head, tensors, architecture, method })
    }

    /// The name in the files.
    fn find(&self, name: &str) -> Option<String> {
        let stored = self.architecture.tensors.stored(self.root, name)?;
        let before = if TensorNames::is_head(name) { self.head } else { "" };
        Some(format!("{before}{stored}"))
    }

    /// Codes are stored as `[outputs, inputs]` whatever the plain matrices are.
    fn oriented(&self, name: &str, weight: Weight) -> Weight {
        let transposed = self.architecture.tensors.is_transposed(name) && weight.coded.is_none();
        Weight { transposed, ..weight }
    }
}

impl Weights for Stored {
    fn get(&self, name: &str) -> Result<Option<Weight>> {
        let Some(stored) = self.find(name) else { return Ok(None) };
        if let Some(layer) = stored.strip_suffix(".weight") {
            let weight = self.method.weight(&self.tensors, layer);
            let weight = weight.at(|| format!("layer `{layer}`"))?;
            return Ok(weight.map(|weight| self.oriented(name, weight)));
        }
        let Some(tensor) = self.tensors.get(&stored) else { return Ok(None) };
        let weight = Weight::plain(tensor.to_tensor().at(|| format!("tensor `{stored}`"))?);
        Ok(Some(self.oriented(name, weight)))
    }

    fn has(&self, name: &str) -> Result<bool> {
        Ok(self.find(name).is_some_and(|stored| {
            let layer = stored.strip_suffix(".weight");
            layer.is_some_and(|layer| self.method.has(&self.tensors, layer))
                || self.tensors.get(&stored).is_some()
        }))
    }

    fn stored_name(&self, name: &str) -> String {
        self.find(name).unwrap_or_else(|| name.to_string())
    }

    fn stored_names(&self) -> Vec<String> {
        self.tensors.tensors().iter().map(|tensor| tensor.name.clone()).collect()
    }

    fn stored(&self, name: &str) -> Result<Option<Tensor>> {
        self.tensors.get(name).map(StoredTensor::to_tensor).transpose()
    }

    fn files(&self) -> &[InputFile] {
        self.tensors.files()
    }
}
