//! Where a folder says how its weights are quantized: `config.json`, or a file beside it.

use super::Settings;
use super::hugging_face::optional;
use super::method::refused;
use fewbit_core::{Result, ResultExt};
use fewbit_formats::mmap::shown;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Where all sources end up.
const CONFIG: &str = "quantization_config";

/// Brings what other places say into `quantization_config`, where `config.json` has none.
///
/// # Errors
/// When a file is damaged, or of a tool whose layouts are not read.
pub(super) fn complete(
    settings: &mut Settings,
    folder: &Path,
    files: &mut Vec<PathBuf>,
) -> Result<()> {
    if settings.get(CONFIG).is_some() {
        return Ok(());
    }
    // What compressed-tensors called it at first, by the name of the tool before.
    if let Some(mut config) = settings.object("compression_config") {
        config.set("quant_method", "compressed-tensors");
        settings.set(CONFIG, config.fields().clone());
        return Ok(());
    }
    if let Some(config) = beside(folder, files)? {
        settings.set(CONFIG, config);
    }
    Ok(())
}

/// What AutoGPTQ and AutoAWQ write beside `config.json`.
fn beside(folder: &Path, files: &mut Vec<PathBuf>) -> Result<Option<Map<String, Value>>> {
    for (name, method) in [("quantize_config.json", "gptq"), ("quant_config.json", "awq")] {
        let mut config = optional(folder, name, files)?;
        if !config.is_empty() {
            config.entry("quant_method").or_insert_with(|| method.into());
            return Ok(Some(config));
        }
    }
    match optional(folder, "hf_quant_config.json", files)?.is_empty() {
        true => Ok(None),
        false => Err(refused("weights quantized by ModelOpt"))
            .at(|| shown(&folder.join("hf_quant_config.json"))),
    }
}
