//! What the matrices of a folder become, and how `config.json` says so.

use fewbit_core::{DType, Error, Result};
use fewbit_formats::packed::Order;
use fewbit_quant::algo::grid::Codes;
use fewbit_quant::algo::mix::FileType;
use serde_json::{Value, json};

/// Columns that share a scale unless the user says otherwise.
pub(super) const GROUP: usize = 128;

/// The checkpoint formats of Hugging Face that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderType {
    /// Plain floats.
    Float(DType),
    /// compressed-tensors: 4 bits in groups; activations stay floats.
    W4A16,
    /// compressed-tensors: 8 bits, a scale for each output; activations stay floats.
    W8A16,
    /// compressed-tensors: 8 bits, a scale for each output; activations in 8 bits, a scale for
    /// each token.
    W8A8,
    /// compressed-tensors: floats of 8 bits, for weights and activations.
    Fp8,
    /// The layout of GPTQ, 4 bits in groups.
    Gptq4,
    /// The layout of GPTQ, 8 bits in groups.
    Gptq8,
    /// The layout of AWQ, 4 bits in groups.
    Awq,
}

impl FolderType {
    /// Every type with its name.
    pub const ALL: &'static [(&'static str, FolderType)] = &[
        ("F32", FolderType::Float(DType::F32)),
        ("F16", FolderType::Float(DType::F16)),
        ("BF16", FolderType::Float(DType::BF16)),
        ("W4A16", FolderType::W4A16),
        ("W8A16", FolderType::W8A16),
        ("W8A8", FolderType::W8A8),
        ("FP8", FolderType::Fp8),
        ("GPTQ-4bit", FolderType::Gptq4),
        ("GPTQ-8bit", FolderType::Gptq8),
        ("AWQ-4bit", FolderType::Awq),
    ];

    /// The name for people.
    pub fn name(self) -> &'static str {
        FolderType::ALL.iter().find(|(_, ty)| *ty == self).map_or("", |(name, _)| name)
    }

    /// The type called `name`, in upper or lower case.
    ///
    /// # Errors
    /// When none is called so.
    pub fn from_name(name: &str) -> Result<FolderType> {
        let found = FolderType::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, ty)| *ty).ok_or_else(|| {
            let names: Vec<&str> = FolderType::ALL.iter().map(|(name, _)| *name).collect();
            Error::usage(format!("there is no checkpoint type `{name}`"))
                .code("FB-2701")
                .hint(format!("one of: {}", names.join(", ")))
        })
    }

    /// The float type of a GGUF file, as one of a folder.
    pub fn of_float(file_type: FileType) -> Option<FolderType> {
        match file_type {
            FileType::F32 => Some(FolderType::Float(DType::F32)),
            FileType::F16 => Some(FolderType::Float(DType::F16)),
            FileType::Bf16 => Some(FolderType::Float(DType::BF16)),
            _ => None,
        }
    }

    /// Whether matrices lose bits.
    pub fn quantizes(self) -> bool {
        !matches!(self, FolderType::Float(_))
    }

    /// The codes of matrices; `None` for floats.
    pub(super) fn codes(self) -> Option<Codes> {
        match self {
            FolderType::Float(_) => None,
            FolderType::W4A16 | FolderType::Gptq4 | FolderType::Awq => {
                Some(Codes::Integers { bits: 4 })
            }
            FolderType::W8A16 | FolderType::W8A8 | FolderType::Gptq8 => {
                Some(Codes::Integers { bits: 8 })
            }
            FolderType::Fp8 => Some(Codes::Float8),
        }
    }

    /// Whether columns share scales in groups, rather than all of a row.
    pub(super) fn grouped(self) -> bool {
        matches!(self, FolderType::W4A16 | FolderType::Gptq4 | FolderType::Gptq8 | FolderType::Awq)
    }

    /// How codes are packed; `None` where each has a byte.
    pub(super) fn order(self) -> Option<Order> {
        match self {
            FolderType::W4A16 | FolderType::W8A16 => Some(Order::Rows),
            FolderType::Gptq4 | FolderType::Gptq8 => Some(Order::Columns),
            FolderType::Awq => Some(Order::Awq),
            FolderType::Float(_) | FolderType::W8A8 | FolderType::Fp8 => None,
        }
    }

    /// Whether this is a type of compressed-tensors.
    pub(super) fn is_compressed_tensors(self) -> bool {
        matches!(self, FolderType::W4A16 | FolderType::W8A16 | FolderType::W8A8 | FolderType::Fp8)
    }
}

/// Matrices that share a group size: the size, and the ends of their names.
pub(super) type Groups = Vec<(usize, Vec<String>)>;

/// `quantization_config`; `columns` are the lengths of rows that count as one group of all.
pub(super) fn quantization_config(
    ty: FolderType,
    groups: &Groups,
    ignore: &[String],
) -> Option<Value> {
    // GPTQ and AWQ say -1 for all of a row.
    let group = groups.first().map_or(GROUP as i64, |(group, _)| match *group {
        0 => -1,
        group => group as i64,
    });
    let bits = match ty.codes()? {
        Codes::Integers { bits } => bits,
        Codes::Float8 => 8,
    };
    let tool = format!("fewbit:{}", env!("CARGO_PKG_VERSION"));
    Some(match ty {
        FolderType::Gptq4 | FolderType::Gptq8 => json!({
            "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": false,
            "sym": true, "lm_head": false, "true_sequential": true,
            "checkpoint_format": "gptq", "pack_dtype": "int32", "meta": {"quantizer": [tool]},
        }),
        FolderType::Awq => json!({
            "quant_method": "awq", "bits": bits, "group_size": group, "zero_point": true,
            "version": "gemm", "modules_to_not_convert": null,
        }),
        _ => compressed_tensors(ty, bits, groups, ignore),
    })
}

fn compressed_tensors(ty: FolderType, bits: u32, groups: &Groups, ignore: &[String]) -> Value {
    let kind = if ty == FolderType::Fp8 { "float" } else { "int" };
    let format = match ty {
        FolderType::W8A8 => "int-quantized",
        FolderType::Fp8 => "float-quantized",
        _ => "pack-quantized",
    };
    let activations = match ty {
        FolderType::W8A8 | FolderType::Fp8 => json!({
            "num_bits": 8, "type": kind, "symmetric": true, "strategy": "token", "dynamic": true,
        }),
        _ => Value::Null,
    };
    let scheme = |(index, (group, names)): (usize, &(usize, Vec<String>))| {
        let mut weights = json!({
            "num_bits": bits, "type": kind, "symmetric": true, "strategy": "channel",
            "dynamic": false,
        });
        if *group > 0 {
            weights["strategy"] = json!("group");
            weights["group_size"] = json!(group);
        }
        // One scheme is for all linear layers; several are told apart by name.
        let targets: Vec<String> = match groups.len() {
            1 => vec!["Linear".to_string()],
            _ => names.iter().map(|name| format!("re:.*{}$", name.replace('.', "\\."))).collect(),
        };
        let value = json!({
            "targets": targets, "weights": weights, "input_activations": activations,
            "output_activations": null,
        });
        (format!("group_{index}"), value)
    };
    let schemes: serde_json::Map<String, Value> = groups.iter().enumerate().map(scheme).collect();
    json!({
        "quant_method": "compressed-tensors", "format": format,
        "quantization_status": "compressed", "ignore": ignore, "kv_cache_scheme": null,
        "global_compression_ratio": null, "config_groups": schemes,
    })
}
