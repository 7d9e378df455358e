//! How the weights of a checkpoint of Hugging Face are quantized, as `quantization_config` says.
//! What is not read is refused by its name.

use super::Settings;
use fewbit_core::{DType, Error, Result, ResultExt};
use serde_json::Value;

/// A way to quantize weights, and what its tensors do not say themselves.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Method {
    /// None.
    Plain,
    CompressedTensors {
        bits: Vec<usize>,
        activations: Option<DType>,
    },
    Gptq {
        bits: usize,
        /// What is added to stored zero points.
        plus: u8,
        /// Whether inputs are in groups by importance, so that `g_idx` must tell them.
        ordered: bool,
    },
    Awq,
}

impl Method {
    /// # Errors
    /// When the weights are quantized in a way that is not read.
    pub(super) fn of(settings: &Settings) -> Result<Method> {
        let Some(config) = settings.get("quantization_config") else { return Ok(Method::Plain) };
        let config = Settings::new(config.as_object().cloned().unwrap_or_default());
        let found = match config.text("quant_method").unwrap_or_default() {
            "compressed-tensors" => compressed_tensors(&config),
            "gptq" => gptq(&config),
            "awq" => awq(&config),
            other => Err(refused(&format!("weights quantized by `{other}`"))),
        };
        found.at(|| "quantization_config")
    }
}

pub(super) fn refused(what: &str) -> Error {
    Error::unsupported(what.to_string()).code("FB-4717").hint(
        "compressed-tensors (4 and 8 bits, FP8), GPTQ and AWQ (GEMM) are read; or take the \
         original model",
    )
}

/// Layouts of compressed-tensors that are read; with `mixed-precision` each group names its own.
const FORMATS: [&str; 6] = [
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "dense",
    "mixed-precision",
];

fn compressed_tensors(config: &Settings) -> Result<Method> {
    check_format(config)?;
    if config.object("transform_config").is_some_and(|config| !config.fields().is_empty()) {
        return Err(refused("weights that were rotated (`transform_config`)"));
    }
    let sparsity = config.object("sparsity_config").unwrap_or_default();
    if let Some(format) = sparsity.text("format").filter(|format| *format != "dense") {
        return Err(refused(&format!("sparse weights (`{format}`)")));
    }
    let groups = config.object("config_groups").unwrap_or_default();
    let mut bits = Vec::new();
    let mut activations = None;
    for (index, group) in groups.fields().values().enumerate() {
        let group = Settings::new(group.as_object().cloned().unwrap_or_default());
        check_format(&group)?;
        bits.push(bits_of(&group.object("weights").unwrap_or_default())?);
        let inputs = group.object("input_activations");
        let found = inputs.map(|inputs| of_activations(&inputs)).transpose()?;
        if index > 0 && found != activations {
            return Err(refused("layers whose inputs are quantized in different ways"));
        }
        if group.get("output_activations").is_some() {
            return Err(refused("layers whose outputs are quantized (`output_activations`)"));
        }
        activations = found;
    }
    bits.sort_unstable();
    bits.dedup();
    Ok(Method::CompressedTensors { bits, activations })
}

fn check_format(config: &Settings) -> Result<()> {
    match config.text("format").filter(|format| !FORMATS.contains(format)) {
        None => Ok(()),
        Some(format) => Err(refused(&format!("the format `{format}` of compressed-tensors"))),
    }
}

/// Bits of weights of a type that is read.
fn bits_of(weights: &Settings) -> Result<usize> {
    let bits = weights.size("num_bits")?;
    let kind = weights.text("type").unwrap_or("int");
    if !matches!((kind, bits), ("int", 2 | 4 | 8) | ("float", 8)) {
        return Err(refused(&format!("weights of {bits} bits of the type `{kind}`")));
    }
    Ok(bits)
}

fn of_activations(inputs: &Settings) -> Result<DType> {
    let dynamic = inputs.get("dynamic") == Some(&Value::Bool(true));
    let token = inputs.text("strategy") == Some("token");
    let symmetric = inputs.get("symmetric") != Some(&Value::Bool(false));
    match (inputs.text("type"), inputs.size("num_bits")?) {
        (Some("int") | None, 8) if dynamic && token && symmetric => Ok(DType::I8),
        (Some("float"), 8) if dynamic && token => Ok(DType::F8E4M3FN),
        _ => Err(refused("activations quantized other than to 8 bits for each token")),
    }
}

fn gptq(config: &Settings) -> Result<Method> {
    let bits = config.size("bits")?;
    // `format` is the older name.
    let format = config.text("checkpoint_format").or(config.text("format")).unwrap_or("gptq");
    let plus = match format {
        // The first version of the format stores one less than the zero point.
        "gptq" if !config.flag("is_marlin_format") => 1,
        "gptq_v2" => 0,
        "gptq" => return Err(refused("the format `marlin` of GPTQ")),
        other => return Err(refused(&format!("the format `{other}` of GPTQ"))),
    };
    let rules = config.object("dynamic").unwrap_or_default();
    let mut own = rules.fields().values().filter_map(|rule| rule.get("bits"));
    if own.any(|own| own.as_u64() != Some(bits as u64)) {
        return Err(refused("layers of different bits (`dynamic`)"));
    }
    Ok(Method::Gptq { bits, plus, ordered: config.flag("desc_act") })
}

fn awq(config: &Settings) -> Result<Method> {
    if let Some(version) = config.text("version").filter(|v| !v.eq_ignore_ascii_case("gemm")) {
        return Err(refused(&format!("the layout `{version}` of AWQ")));
    }
    if let Some(tool) = config.text("backend").filter(|tool| *tool != "autoawq") {
        return Err(refused(&format!("the layout of AWQ by `{tool}`")));
    }
    // `w_bit` is what AutoAWQ calls it in a file of its own.
    match config.opt_size("bits")?.or(config.opt_size("w_bit")?).unwrap_or(4) {
        4 => Ok(Method::Awq),
        bits => Err(refused(&format!("AWQ in {bits} bits"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(config: Value) -> Result<Method> {
        let mut settings = Settings::default();
        settings.set("quantization_config", config);
        Method::of(&settings)
    }

    fn of_tensors(field: &str, value: Value) -> Result<Method> {
        let weights = json!({"num_bits": 8, "type": "int", "strategy": "channel"});
        let mut config = json!({
            "quant_method": "compressed-tensors", "format": "int-quantized",
            "config_groups": {"group_0": {"weights": weights, "output_activations": null}},
        });
        match field.strip_prefix("group.") {
            Some(field) => config["config_groups"]["group_0"][field] = value,
            None => config[field] = value,
        }
        of(config)
    }

    #[test]
    fn what_is_not_read_is_refused_by_its_name() {
        let weights = |bits: u32, kind: &str| json!({"num_bits": bits, "type": kind});
        for (field, value, named) in [
            ("format", json!("mxfp8-quantized"), "mxfp8-quantized"),
            ("format", json!("nvfp4-pack-quantized"), "nvfp4-pack-quantized"),
            ("group.format", json!("mxfp4-pack-quantized"), "mxfp4-pack-quantized"),
            ("transform_config", json!({"config_groups": {"u": {}}}), "transform_config"),
            ("sparsity_config", json!({"format": "sparse-24-bitmask"}), "sparse-24-bitmask"),
            ("group.output_activations", json!({"num_bits": 8}), "output_activations"),
            ("group.weights", weights(3, "int"), "3 bits"),
            ("group.weights", weights(4, "float"), "`float`"),
        ] {
            let error = of_tensors(field, value).unwrap_err();
            assert_eq!(error.stable_code(), "FB-4717", "{field}");
            assert!(error.what().contains(named), "{field}: {error}");
        }
        let gptq =
            |field: &str, value: Value| json!({"quant_method": "gptq", "bits": 4, field: value});
        let awq = |field: &str, value: Value| json!({"quant_method": "awq", field: value});
        for (config, named) in [
            (gptq("checkpoint_format", json!("bitblas")), "bitblas"),
            (gptq("format", json!("marlin")), "marlin"),
            (gptq("is_marlin_format", json!(true)), "marlin"),
            (gptq("dynamic", json!({"+:.*down.*": {"bits": 8}})), "dynamic"),
            (awq("version", json!("gemv")), "gemv"),
            (awq("backend", json!("llm-awq")), "llm-awq"),
            (awq("w_bit", json!(8)), "8 bits"),
            (json!({"quant_method": "fp8"}), "fp8"),
            (json!([1]), "``"),
        ] {
            let error = of(config).unwrap_err();
            assert_eq!(error.stable_code(), "FB-4717", "{named}");
            assert!(error.what().contains(named), "{error}");
        }
    }

    #[test]
    fn what_is_read_is_told_apart() {
        for (field, value) in [
            ("format", json!("dense")),
            ("transform_config", json!({})),
            ("sparsity_config", json!({"format": "dense"})),
            ("group.format", json!("naive-quantized")),
        ] {
            let expected = Method::CompressedTensors { bits: vec![8], activations: None };
            assert_eq!(of_tensors(field, value).unwrap(), expected, "{field}");
        }
        let gptq = |plus, ordered| Method::Gptq { bits: 4, plus, ordered };
        for (fields, expected) in [
            (json!({"quant_method": "gptq"}), gptq(1, false)),
            (json!({"quant_method": "gptq", "checkpoint_format": "gptq_v2"}), gptq(0, false)),
            (json!({"quant_method": "gptq", "format": "gptq_v2", "desc_act": true}), gptq(0, true)),
            (json!({"quant_method": "gptq", "dynamic": {"-:.*down.*": {}}}), gptq(1, false)),
            (json!({"quant_method": "awq", "version": "GEMM"}), Method::Awq),
        ] {
            let mut config = fields;
            config["bits"] = json!(4);
            assert_eq!(of(config).unwrap(), expected);
        }
        assert_eq!(Method::of(&Settings::default()).unwrap(), Method::Plain);
    }
}
