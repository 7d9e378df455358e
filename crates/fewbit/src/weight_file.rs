//! What a file of weights holds: GGUF, safetensors, or a folder of them.

use fewbit_core::Result;
use fewbit_formats::detect::{Format, detect_path};
use fewbit_formats::gguf::{self, Array, Value as Stored};
use fewbit_formats::mmap::{InputFile, shown};
use fewbit_formats::safetensors;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Elements of an array that are shown of metadata; vocabularies have tens of thousands.
const SHOWN_ELEMENTS: usize = 8;

/// Facts about a file of weights.
#[derive(Clone, Debug, Serialize)]
pub struct WeightFileInspection {
    /// Path as given.
    pub path: String,
    /// `gguf` or `safetensors`.
    pub format: &'static str,
    /// Version of the format, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Size of all files together.
    pub bytes: u64,
    /// All files that were read.
    pub files: Vec<String>,
    /// What kind of network it is, where the file says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub parameter_bytes: u64,
    /// Bits that an element takes on average, scales included; 0 without elements.
    pub bits_per_weight: f64,
    /// What is stored how, largest first.
    pub types: Vec<TypeFacts>,
    /// All tensors, in the order of the file.
    pub tensors: Vec<TensorFacts>,
    /// Metadata, in the order of the file.
    pub metadata: Vec<MetadataFacts>,
    /// `config.json` of a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
}

/// One type of tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TypeFacts {
    /// Name of the type: `Q4_K`, `f16`.
    #[serde(rename = "type")]
    pub ty: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Their elements.
    pub parameters: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorFacts {
    /// Name.
    pub name: String,
    /// Name of the type: `Q4_K`, `f16`.
    #[serde(rename = "type")]
    pub ty: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Bytes.
    pub bytes: u64,
}

/// One entry of the metadata.
#[derive(Clone, Debug, Serialize)]
pub struct MetadataFacts {
    /// Key.
    pub key: String,
    /// Type: `u32`, `array of string`.
    #[serde(rename = "type")]
    pub ty: String,
    /// The value; of an array `count` and the `first` few elements.
    pub value: Value,
}

/// Looks at a file of weights; `None` when `path` is something else.
///
/// # Errors
/// When the file is damaged or of a version that is not read.
pub fn inspect_weights(path: &Path) -> Result<Option<WeightFileInspection>> {
    match detect_path(path) {
        Some(Format::Gguf) => gguf_facts(path).map(Some),
        Some(Format::Safetensors) => safetensors_facts(path, None).map(Some),
        Some(Format::SafetensorsFolder) => {
            let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
            let config = safetensors::read_config(folder)?.map(Value::from);
            safetensors_facts(path, config).map(Some)
        }
        _ => Ok(None),
    }
}

fn gguf_facts(path: &Path) -> Result<WeightFileInspection> {
    let file = gguf::read(path)?;
    let metadata = file.metadata();
    let tensors = file.tensors().iter().map(|t| TensorFacts {
        name: t.name.clone(),
        ty: t.ty.to_string(),
        shape: t.shape.clone(),
        bytes: t.bytes.as_ref().len() as u64,
    });
    let entry = |(key, value): (&str, &Stored)| MetadataFacts {
        key: key.to_string(),
        ty: value.type_name(),
        value: shown_value(value),
    };
    let mut facts = facts(path, "gguf", file.files(), tensors.collect());
    facts.version = Some(file.version());
    facts.architecture = metadata.find::<&str>("general.architecture")?.map(str::to_string);
    facts.metadata = metadata.iter().map(entry).collect();
    Ok(facts)
}

fn safetensors_facts(path: &Path, config: Option<Value>) -> Result<WeightFileInspection> {
    let file = safetensors::read(path)?;
    let tensors = file.tensors().iter().map(|t| TensorFacts {
        name: t.name.clone(),
        ty: t.dtype.to_string(),
        shape: t.shape.clone(),
        bytes: t.bytes.as_ref().len() as u64,
    });
    let entry = |(key, text): &(String, String)| MetadataFacts {
        key: key.clone(),
        ty: "string".to_string(),
        value: json!(text),
    };
    let mut facts = facts(path, "safetensors", file.files(), tensors.collect());
    facts.metadata = file.metadata().iter().map(entry).collect();
    facts.architecture = config.as_ref().and_then(|config| {
        let name = config.pointer("/architectures/0").or_else(|| config.get("model_type"))?;
        name.as_str().map(str::to_string)
    });
    facts.config = config;
    Ok(facts)
}

fn facts(
    path: &Path,
    format: &'static str,
    files: &[InputFile],
    tensors: Vec<TensorFacts>,
) -> WeightFileInspection {
    let types = types(&tensors);
    let parameters: u64 = types.iter().map(|t| t.parameters).sum();
    let parameter_bytes: u64 = types.iter().map(|t| t.bytes).sum();
    let bits = if parameters == 0 { 0.0 } else { 8.0 * parameter_bytes as f64 / parameters as f64 };
    WeightFileInspection {
        path: shown(path),
        format,
        version: None,
        bytes: files.iter().map(|f| f.bytes().len() as u64).sum(),
        files: files.iter().map(|f| shown(f.path())).collect(),
        architecture: None,
        parameters,
        parameter_bytes,
        bits_per_weight: bits,
        types,
        tensors,
        metadata: Vec::new(),
        config: None,
    }
}

fn types(tensors: &[TensorFacts]) -> Vec<TypeFacts> {
    let mut by_type: BTreeMap<&str, TypeFacts> = BTreeMap::new();
    for tensor in tensors {
        let facts = by_type.entry(&tensor.ty).or_insert_with(|| TypeFacts {
            ty: tensor.ty.clone(),
            tensors: 0,
            parameters: 0,
            bytes: 0,
        });
        facts.tensors += 1;
        // Shapes were checked when the file was read: none overflows.
        facts.parameters += fewbit_core::element_count(&tensor.shape).unwrap_or(0) as u64;
        facts.bytes += tensor.bytes;
    }
    let mut types: Vec<TypeFacts> = by_type.into_values().collect();
    types.sort_by_key(|t| std::cmp::Reverse(t.bytes));
    types
}

fn shown_value(value: &Stored) -> Value {
    match value {
        Stored::U8(v) => json!(v),
        Stored::I8(v) => json!(v),
        Stored::U16(v) => json!(v),
        Stored::I16(v) => json!(v),
        Stored::U32(v) => json!(v),
        Stored::I32(v) => json!(v),
        // Widened, 1e-5 would become 9.999999747378752e-6.
        Stored::F32(v) => json!(v.to_string().parse::<f64>().ok().filter(|v| v.is_finite())),
        Stored::Bool(v) => json!(v),
        Stored::String(v) => json!(v),
        Stored::U64(v) => json!(v),
        Stored::I64(v) => json!(v),
        Stored::F64(v) => json!(v),
        Stored::Array(array) => json!({ "count": array.len(), "first": first(array) }),
    }
}

fn first(array: &Array) -> Vec<Value> {
    let indices = 0..array.len().min(SHOWN_ELEMENTS);
    indices.filter_map(|i| array.get(i)).map(|value| shown_value(&value)).collect()
}
