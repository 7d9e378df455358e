//! Folders of Hugging Face whose names, settings and types are others than the usual ones: read
//! as they are meant, or refused.

mod random;

use fewbit_core::{AlignedBytes, DType, Error, Tensor};
use fewbit_llm::chat::{Message, render};
use fewbit_llm::graph::decoder::State;
use fewbit_llm::{LanguageModel, Weights};
use random::{RandomWeights, folder_of, settings};
use serde_json::{Value, json};
use std::path::Path;

fn tokenizer() -> Value {
    let tokens: Vec<&str> = "<s> </s> a b".split(' ').collect();
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, text)| (text.to_string(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    })
}

fn config(name: &str, more: &Value) -> Value {
    let mut config = settings(name);
    config.set("model_type", name);
    let mut config = Value::Object(config.fields().clone());
    for (field, value) in more.as_object().unwrap() {
        config[field] = value.clone();
    }
    config
}

/// The tensors of a random model, with a head or without.
fn tensors(name: &str, root: &str, head: Option<&str>) -> Vec<(String, Tensor)> {
    let table = fewbit_llm::arch::find(name).unwrap().tensors;
    let mut weights = RandomWeights::of(name);
    weights.shapes.insert("output.weight".into(), weights.shapes["token_embd.weight"].clone());
    let stored = |key: &String| {
        let stored = match key.as_str() {
            "output.weight" => head?.to_string(),
            _ => table.stored(root, key)?,
        };
        Some((stored, weights.get(key).unwrap()?.tensor))
    };
    weights.shapes.keys().filter_map(stored).collect()
}

fn open(path: &Path, tensors: &[(String, Tensor)], config: &Value) -> Result<LanguageModel, Error> {
    folder_of(path, tensors, config, &tokenizer());
    let model = LanguageModel::open(path)?;
    model.graph(State::None)?;
    Ok(model)
}

#[test]
fn the_head_is_read_wherever_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    for (root, head) in [
        ("model.", "lm_head.weight"),
        ("language_model.model.", "language_model.lm_head.weight"),
        ("model.language_model.", "lm_head.weight"),
    ] {
        let text = config("llama", &json!({"tie_word_embeddings": false}));
        let config = json!({"model_type": "llava", "text_config": text});
        let tensors = tensors("llama", root, Some(head));
        let model = open(dir.path(), &tensors, &config).unwrap();
        let found = model.checkpoint().weights.get("output.weight").unwrap().unwrap();
        let (_, own) = tensors.iter().find(|(name, _)| name == head).unwrap();
        assert_eq!(found.tensor.bytes(), own.bytes(), "{head}");
    }
}

#[test]
fn a_head_that_is_missing_is_refused_unless_it_is_the_embedding() {
    let dir = tempfile::tempdir().unwrap();
    for (name, inner, outer, missing) in [
        ("llama", json!(false), Value::Null, true),
        ("llama", Value::Null, Value::Null, true),
        ("llama", json!(true), Value::Null, false),
        ("llama", Value::Null, json!(true), false),
        ("gemma2", Value::Null, Value::Null, false),
        ("gemma2", json!(false), Value::Null, true),
        ("gpt2", Value::Null, Value::Null, false),
    ] {
        let root = fewbit_llm::arch::find(name).unwrap().tensors.roots[0];
        let text = config(name, &json!({"tie_word_embeddings": inner}));
        let config = json!({"text_config": text, "tie_word_embeddings": outer});
        let found = open(dir.path(), &tensors(name, root, None), &config).map(|_| ());
        let expected = if missing { Err("FB-3701".to_string()) } else { Ok(()) };
        let found = found.map_err(|e| e.stable_code().to_string());
        assert_eq!(found, expected, "{name}: {inner} {outer}");
    }
}

#[test]
fn a_quantization_is_heard_wherever_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let tensors = tensors("llama", "model.", None);
    let plain = config("llama", &json!({}));
    let method = json!({"quant_method": "quanto"});
    let within = config("llama", &json!({"quantization_config": method}));
    let sparse = json!({"quant_method": "sparseml", "format": "mxfp8-quantized"});
    for (config, named) in [
        (within.clone(), "quanto"),
        (json!({"text_config": within}), "quanto"),
        (json!({"text_config": plain, "quantization_config": method}), "quanto"),
        (config("llama", &json!({"compression_config": sparse})), "mxfp8-quantized"),
        (json!({"text_config": plain, "compression_config": sparse}), "mxfp8-quantized"),
    ] {
        let error = open(path, &tensors, &config).err().unwrap();
        assert_eq!(error.stable_code(), "FB-4717");
        assert!(error.what().contains(named), "{error}");
    }
    for (file, content, named) in [
        ("quantize_config.json", json!({"bits": 4, "checkpoint_format": "bitblas"}), "bitblas"),
        ("quant_config.json", json!({"w_bit": 4, "version": "gemv"}), "gemv"),
        ("hf_quant_config.json", json!({"producer": {"name": "modelopt"}}), "ModelOpt"),
    ] {
        std::fs::write(path.join(file), content.to_string()).unwrap();
        let error = open(path, &tensors, &plain).err().unwrap();
        assert!(error.what().contains(named), "{file}: {error}");
        std::fs::remove_file(path.join(file)).unwrap();
    }
}

#[test]
fn codes_without_their_scales_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layer = "model.layers.0.self_attn.q_proj";
    let of = |dtype: DType, shape: &[usize], byte: u8| {
        let len = dtype.bytes_for(shape.iter().product()).unwrap();
        Tensor::from_bytes(dtype, shape.into(), AlignedBytes::copy_of(&vec![byte; len]).into())
            .unwrap()
    };
    let fp8 = || of(DType::F8E4M3FN, &[32, 32], 0x38);
    let scheme = |kind: &str| {
        let weights = json!({"num_bits": 8, "type": kind, "strategy": "channel"});
        json!({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": weights}}})
    };
    let (floats, integers) = (scheme("float"), scheme("int"));
    for (weight, scale, quantization, expected) in [
        (fp8(), None, &Value::Null, Ok(())),
        (fp8(), Some(("weight_scale", DType::F32, 32)), &Value::Null, Err("FB-4717")),
        (fp8(), Some(("weight_scale_inv", DType::F32, 32)), &Value::Null, Err("FB-4717")),
        (fp8(), Some(("weight_scale", DType::F32, 32)), &floats, Ok(())),
        (fp8(), Some(("weight_scale", DType::U8, 32)), &floats, Err("FB-4717")),
        (fp8(), Some(("weight_scale", DType::F32, 2)), &floats, Err("FB-4717")),
        (fp8(), Some(("weight_scale_inv", DType::F32, 32)), &floats, Err("FB-3701")),
        (fp8(), None, &floats, Err("FB-3701")),
        (
            of(DType::F8E5M2, &[32, 32], 0x3c),
            Some(("weight_scale", DType::F32, 32)),
            &floats,
            Err("FB-4717"),
        ),
        (of(DType::I8, &[32, 32], 1), None, &integers, Err("FB-3701")),
    ] {
        let mut tensors = tensors("llama", "model.", None);
        let label = format!("{} {scale:?} {quantization}", weight.dtype());
        tensors.iter_mut().find(|(name, _)| *name == format!("{layer}.weight")).unwrap().1 = weight;
        if let Some((part, dtype, rows)) = scale {
            tensors.push((format!("{layer}.{part}"), of(dtype, &[rows, 1], 1)));
        }
        let config = config("llama", &json!({"quantization_config": quantization}));
        let found = open(dir.path(), &tensors, &config).map(|_| ());
        let found = found.map_err(|e| e.stable_code());
        assert_eq!(found, expected, "{label}");
    }
}

#[test]
fn the_template_is_the_one_that_transformers_takes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let config = config("llama", &json!({"eos_token_id": [0, 1]}));
    folder_of(path, &tensors("llama", "model.", None), &config, &tokenizer());
    let named =
        |name: &str| json!({"name": name, "template": format!("{name}{{{{ eos_token }}}}")});
    let said = |template: Value| {
        let config = json!({"chat_template": template, "eos_token": "</s>"});
        std::fs::write(path.join("tokenizer_config.json"), config.to_string()).unwrap();
        let model = LanguageModel::open(path).unwrap();
        render(model.tokenizer(), &[Message::new("user", "a")]).map_err(|e| e.to_string())
    };
    assert_eq!(said(json!([named("tool_use"), named("default")])), Ok("default</s>".into()));
    assert_eq!(said(json!([named("rag")])), Ok("rag</s>".into()));
    let several = said(json!([named("rag"), named("tool_use")])).unwrap_err();
    assert!(several.contains("rag, tool_use"), "{several}");
    // Files beside it: that of processors where there is no other, the newest form before all.
    std::fs::write(path.join("chat_template.json"), r#"{"chat_template": "json"}"#).unwrap();
    assert_eq!(said(Value::Null), Ok("json".into()));
    assert_eq!(said(json!("config")), Ok("config".into()));
    std::fs::write(path.join("chat_template.jinja"), "jinja").unwrap();
    assert_eq!(said(json!("config")), Ok("jinja".into()));
}
