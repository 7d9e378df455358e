//! The metadata of a GGUF file as the JSON files of a folder of Hugging Face.

use super::metadata::llama3_divisors;
use crate::arch::{Network, rope};
use crate::graph::decoder::Decoder;
use crate::model::LanguageModel;
use crate::source::Settings;
use fewbit_core::{Error, Result};
use fewbit_formats::gguf::{self, Metadata};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Names of settings that GPT-2 has for itself.
const GPT2: &[(&str, &str)] = &[
    ("hidden_size", "n_embd"),
    ("num_hidden_layers", "n_layer"),
    ("num_attention_heads", "n_head"),
    ("max_position_embeddings", "n_positions"),
    ("layer_norm_eps", "layer_norm_epsilon"),
    ("intermediate_size", "n_inner"),
];

/// Settings that say how GGUF stores things, or stand elsewhere.
const INNER: &[&str] = &["rope_interleaved", "whole_norms", "rotary_dim"];

/// Ways in which published models of Llama 3 stretch their rotation: low and high factor, and
/// the context before.
const LLAMA3: &[(f64, f64, u64)] = &[(1.0, 4.0, 8192)];

/// Files by their path in the folder.
pub(super) type Files = Vec<(PathBuf, Vec<u8>)>;

/// `config.json`, and the other files with their names.
pub(super) fn describe(model: &LanguageModel) -> Result<(Settings, Files)> {
    let checkpoint = model.checkpoint();
    let file = gguf::read(&checkpoint.path)?;
    let metadata = file.metadata();
    let architecture = checkpoint.architecture;
    let mut config = Settings::default();
    config.set("architectures", json!([architecture.class]));
    config.set("model_type", architecture.names[0]);
    for (name, value) in checkpoint.settings.fields() {
        if !INNER.contains(&name.as_str()) {
            config.set(name, short(value));
        }
    }
    let rows = checkpoint.weights.get("token_embd.weight")?.map(|weight| weight.shape[0]);
    config.set("vocab_size", rows.unwrap_or_default());
    match model.network() {
        Network::Decoder(decoder) => decoder_settings(model, decoder, &mut config)?,
        Network::Encoder(_) => encoder_settings(model, &mut config)?,
    }
    let ids = |name: &str| metadata.find::<u32>(&format!("tokenizer.ggml.{name}_token_id"));
    for (name, key) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding")] {
        if let Some(id) = ids(key)? {
            config.set(&format!("{name}_token_id"), id);
        }
    }
    let mut files: Files = vec![
        ("tokenizer.json".into(), model.tokenizer().to_json()?.into_bytes()),
        ("tokenizer_config.json".into(), pretty(&tokenizer_config(model, metadata)?)),
    ];
    match model.network() {
        Network::Decoder(_) => {
            let ends = model.tokenizer().ends();
            let generation = json!({"bos_token_id": model.tokenizer().bos(), "eos_token_id": ends});
            files.push(("generation_config.json".into(), pretty(&generation)));
        }
        Network::Encoder(encoder) => files.extend(pooling(model, encoder.hidden)),
    }
    if architecture.gguf == "gpt2" {
        config = renamed(config);
    }
    Ok((config, files))
}

fn decoder_settings(model: &LanguageModel, decoder: &Decoder, config: &mut Settings) -> Result<()> {
    let checkpoint = model.checkpoint();
    let weights = &checkpoint.weights;
    let has = |name: &str| -> Result<bool> { Ok(weights.get(name)?.is_some()) };
    config.set("tie_word_embeddings", !has("output.weight")?);
    config.set("attention_bias", has("blk.0.attn_q.bias")?);
    if decoder.learned_positions {
        config.set("activation_function", "gelu_new");
        return Ok(());
    }
    if has("blk.0.ffn_down.bias")? {
        if checkpoint.architecture.class != "LlamaForCausalLM" {
            let what = "biases in feed-forward parts, which transformers knows of Llama only";
            return Err(Error::unsupported(what).code("FB-4712"));
        }
        config.set("mlp_bias", true);
    }
    config.set("num_key_value_heads", decoder.heads.keys);
    config.set("head_dim", decoder.heads.size);
    let gemma = checkpoint.architecture.gguf.starts_with("gemma");
    let activation = if gemma { "gelu_pytorch_tanh" } else { "silu" };
    config.set("hidden_act", activation);
    if gemma {
        config.set("hidden_activation", activation);
        let scalar = 1.0 / f64::from(decoder.scale).powi(2);
        config.set("query_pre_attn_scalar", scalar.round() as u64);
        let kinds: Vec<&str> = decoder.layers.iter().map(|layer| kind(layer.window)).collect();
        config.set("layer_types", json!(kinds));
    }
    if checkpoint.settings.opt_size("sliding_window")? == Some(0) {
        config.set("sliding_window", Value::Null);
    }
    rotation(model, decoder, config)
}

fn kind(window: Option<usize>) -> &'static str {
    if window.is_some() { "sliding_attention" } else { "full_attention" }
}

fn rotation(model: &LanguageModel, decoder: &Decoder, config: &mut Settings) -> Result<()> {
    let checkpoint = model.checkpoint();
    let (settings, weights) = (&checkpoint.settings, &checkpoint.weights);
    config.set("rope_theta", rope::base(settings)?);
    let turned = decoder.rotaries.first().map_or(0, |rotary| 2 * rotary.frequencies.len());
    if turned != decoder.heads.size {
        config.set("partial_rotary_factor", turned as f64 / decoder.heads.size as f64);
    }
    let values = |name: &str| -> Result<Option<Vec<f32>>> {
        weights.get(name)?.map(|weight| weight.tensor.to_f32()).transpose()
    };
    if let Some(divisors) = values("rope_freqs.weight")? {
        config.set("rope_scaling", llama3(&divisors, rope::base(settings)?)?);
    }
    let (long, short) = (values("rope_factors_long.weight")?, values("rope_factors_short.weight")?);
    if let (Some(long), Some(short)) = (long, short) {
        let mut scaling = rope::scaling(settings);
        scaling.set("rope_type", "longrope");
        scaling.set("type", "longrope");
        scaling.set("long_factor", shorts(&long));
        scaling.set("short_factor", shorts(&short));
        if let Some(original) = scaling.opt_size("original_max_position_embeddings")? {
            config.set("original_max_position_embeddings", original);
        }
        let fields = scaling.fields().iter();
        let fields = fields.map(|(name, value)| (name.clone(), self::short(value)));
        config.set("rope_scaling", Value::Object(fields.collect()));
    }
    Ok(())
}

/// The settings of Llama 3 that give these divisors.
fn llama3(divisors: &[f32], base: f64) -> Result<Value> {
    let factor = divisors.iter().fold(1.0f32, |m, d| m.max(*d));
    for &(low, high, original) in LLAMA3 {
        let scaling = json!({
            "rope_type": "llama3", "factor": short(&json!(factor)), "low_freq_factor": low,
            "high_freq_factor": high, "original_max_position_embeddings": original,
        });
        let Value::Object(fields) = scaling.clone() else { continue };
        let found = llama3_divisors(&Settings::new(fields), base, divisors.len())?;
        if found.iter().zip(divisors).all(|(a, b)| (a - b).abs() <= 1e-4 * b) {
            return Ok(scaling);
        }
    }
    Err(Error::unsupported("divisors of rotation that follow from no published settings")
        .code("FB-4712")
        .at("tensor `rope_freqs.weight`"))
}

fn encoder_settings(model: &LanguageModel, config: &mut Settings) -> Result<()> {
    let types = model.checkpoint().weights.get("token_types.weight")?;
    config.set("type_vocab_size", types.map_or(1, |weight| weight.shape[0]));
    config.set("hidden_act", "gelu");
    config.set("position_embedding_type", "absolute");
    Ok(())
}

/// The files by which sentence-transformers knows what to do with hidden states.
fn pooling(model: &LanguageModel, hidden: usize) -> Files {
    let how = model.checkpoint().pooling;
    let module = |index: usize, path: &str, kind: &str| {
        json!({"idx": index, "name": index.to_string(), "path": path,
               "type": format!("sentence_transformers.models.{kind}")})
    };
    let mut modules = vec![module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling")];
    if how.normalize {
        modules.push(module(2, "2_Normalize", "Normalize"));
    }
    let pooling = json!({
        "word_embedding_dimension": hidden,
        "pooling_mode_mean_tokens": how.mean, "pooling_mode_cls_token": !how.mean,
    });
    vec![
        ("modules.json".into(), pretty(&json!(modules))),
        ("1_Pooling/config.json".into(), pretty(&pooling)),
    ]
}

fn tokenizer_config(model: &LanguageModel, metadata: &Metadata) -> Result<Value> {
    let tokenizer = model.tokenizer();
    let mut fields = Map::new();
    fields.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    for (name, key) in [
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("sep_token", "seperator"),
        ("pad_token", "padding"),
        ("cls_token", "cls"),
        ("mask_token", "mask"),
    ] {
        let id = metadata.find::<u32>(&format!("tokenizer.ggml.{key}_token_id"))?;
        if let Some(text) = id.and_then(|id| tokenizer.spelling(id)) {
            fields.insert(name.into(), json!(text));
        }
    }
    for name in ["add_bos_token", "add_eos_token"] {
        if let Some(flag) = metadata.find::<bool>(&format!("tokenizer.ggml.{name}"))? {
            fields.insert(name.into(), json!(flag));
        }
    }
    if let Some(template) = tokenizer.template() {
        fields.insert("chat_template".into(), json!(template));
    }
    let context = match model.network() {
        Network::Decoder(decoder) => decoder.context,
        Network::Encoder(encoder) => encoder.context,
    };
    fields.insert("model_max_length".into(), json!(context));
    fields.insert("clean_up_tokenization_spaces".into(), json!(false));
    Ok(Value::Object(fields))
}

fn renamed(config: Settings) -> Settings {
    let name = |own: &String| {
        let found = GPT2.iter().find(|(shared, _)| shared == own);
        found.map_or(own.clone(), |(_, gpt2)| gpt2.to_string())
    };
    let fields = config.fields().iter().map(|(own, value)| (name(own), value.clone()));
    let mut config = Settings::new(fields.collect());
    if let Some(context) = config.get("n_positions").cloned() {
        config.set("n_ctx", context);
    }
    config
}

/// Numbers that were floats of 32 bits, as people wrote them: 1e-5 rather than 9.99999974e-6.
fn short(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let wide = number.as_f64().unwrap_or_default();
            let narrow = wide as f32;
            let text: Option<f64> = narrow.to_string().parse().ok();
            match text.filter(|_| f64::from(narrow) == wide) {
                Some(shorter) => json!(shorter),
                None => value.clone(),
            }
        }
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), short(value))).collect())
        }
        other => other.clone(),
    }
}

fn shorts(values: &[f32]) -> Value {
    values.iter().map(|v| short(&json!(v))).collect()
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shortened_only_where_that_loses_nothing() {
        assert_eq!(short(&json!(f64::from(1e-5f32))), json!(1e-5));
        assert_eq!(short(&json!(0.1)), json!(0.1));
        assert_eq!(short(&json!({"a": f64::from(0.1f32), "b": 3})), json!({"a": 0.1, "b": 3}));
    }

    #[test]
    fn divisors_of_llama_3_are_recognized() {
        let scaling = json!({"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                             "original_max_position_embeddings": 8192});
        let Value::Object(fields) = scaling else { panic!("no object") };
        let divisors = llama3_divisors(&Settings::new(fields), 5e5, 32).unwrap();
        assert_eq!(llama3(&divisors, 5e5).unwrap()["factor"], json!(32.0));
        assert_eq!(llama3(&[1.0, 3.0, 2.0], 5e5).unwrap_err().stable_code(), "FB-4712");
    }
}
