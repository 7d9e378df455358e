//! A folder of Hugging Face with a small random Llama.

use fewbit::DType;
use fewbit::formats::atomic::OutputOptions;
use fewbit::formats::safetensors::{self, TensorSpec};
use fewbit::llm::{TensorNames, arch};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const HIDDEN: usize = 64;
const INNER: usize = 128;
const TOKENS: usize = 16;

fn config() -> Value {
    json!({
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": TOKENS, "max_position_embeddings": 32, "tie_word_embeddings": false,
    })
}

fn tokenizer() -> Value {
    let vocab: Map<String, Value> =
        (0..TOKENS).map(|id| (char::from(b'a' + id as u8).to_string(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true,
            "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    })
}

/// Shape and values of tensors, by name.
pub type Matrices = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The same numbers every time.
pub fn random() -> Matrices {
    let table: &TensorNames = arch::find("llama").unwrap().tensors;
    let shapes: &[(&str, &[usize])] = &[
        ("token_embd", &[TOKENS, HIDDEN]),
        ("output_norm", &[HIDDEN]),
        ("output", &[TOKENS, HIDDEN]),
        ("blk.0.attn_norm", &[HIDDEN]),
        ("blk.0.attn_q", &[HIDDEN, HIDDEN]),
        ("blk.0.attn_k", &[HIDDEN / 2, HIDDEN]),
        ("blk.0.attn_v", &[HIDDEN / 2, HIDDEN]),
        ("blk.0.attn_output", &[HIDDEN, HIDDEN]),
        ("blk.0.ffn_norm", &[HIDDEN]),
        ("blk.0.ffn_gate", &[INNER, HIDDEN]),
        ("blk.0.ffn_up", &[INNER, HIDDEN]),
        ("blk.0.ffn_down", &[HIDDEN, INNER]),
    ];
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let tensor = |(name, shape): &(&str, &[usize])| {
        let values = (0..shape.iter().product()).map(|_| next()).collect();
        (table.stored("model.", &format!("{name}.weight")).unwrap(), (shape.to_vec(), values))
    };
    shapes.iter().map(tensor).collect()
}

/// Writes the folder.
pub fn folder(path: &Path, tensors: &Matrices) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::write(path.join("config.json"), config().to_string()).unwrap();
    std::fs::write(path.join("tokenizer.json"), tokenizer().to_string()).unwrap();
    let spec = |(name, (shape, _)): (&String, &(Vec<usize>, Vec<f32>))| TensorSpec {
        name: name.clone(),
        dtype: DType::F32,
        shape: shape.clone(),
    };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    let (file, options) = (path.join("model.safetensors"), OutputOptions::default());
    let mut writer = safetensors::Writer::create(&file, &[], &specs, &options).unwrap();
    for (name, (_, values)) in tensors {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        writer.write(name, &bytes).unwrap();
    }
    writer.finish().unwrap();
}
