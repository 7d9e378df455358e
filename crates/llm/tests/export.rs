//! Checkpoints of every architecture in the layout of another program: the same predictions.

mod random;

use fewbit_core::Tensor;
use fewbit_exec::{Mode, Session, SessionOptions};
use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::gguf;
use fewbit_llm::arch::{self, Network};
use fewbit_llm::graph::decoder::State;
use fewbit_llm::graph::names;
use fewbit_llm::{LanguageModel, export};
use random::{RandomWeights, settings};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

const ALL: [&str; 10] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "smollm3",
    "gpt2",
    "bert",
];

const TEXT: [i64; 9] = [3, 1, 4, 1, 5, 9, 2, 6, 5];

/// Settings of [`settings`] that GGUF can hold, as the fields of config.json.
fn config(name: &str) -> Map<String, Value> {
    let mut config = settings(name);
    config.set("model_type", name);
    // GGUF has no place for these: programs know them.
    for field in ["rope_interleaved", "sliding_window_pattern", "no_rope_layer_interval"] {
        config.set(field, Value::Null);
    }
    config.set("bos_token_id", 1);
    config.set("eos_token_id", 2);
    config.fields().clone()
}

fn tokenizer() -> Value {
    let tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "\u{2581}", "a", "b", "ab", "\u{2581}ab"];
    let vocab: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, text)| (text.to_string(), json!(id))).collect();
    let added = |id: usize| {
        json!({"id": id, "content": tokens[id], "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0), added(1), added(2)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]},
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": ["a b", "\u{2581} ab"],
        },
    })
}

/// A folder as Hugging Face lays it out.
fn folder(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    random::folder(
        &path,
        name,
        &RandomWeights::of(name),
        &Value::Object(config(name)),
        &tokenizer(),
    );
    path
}

fn gguf_of(model: &LanguageModel, path: &Path) {
    let form = export::to_gguf(model).unwrap();
    let infos: Vec<_> = form.pieces.list().iter().map(|piece| piece.info.clone()).collect();
    let options = OutputOptions::default();
    let mut writer = gguf::Writer::create(path, &form.metadata, &infos, &options).unwrap();
    for (index, info) in infos.iter().enumerate() {
        // In two parts, to see that rows are counted right.
        let (rows, width) = (info.rows(), info.byte_len().unwrap() / info.rows());
        for (first, count) in [(0, rows / 2), (rows / 2, rows - rows / 2)] {
            let mut bytes = vec![0; count * width];
            form.pieces.read(index, first, &mut bytes).unwrap();
            writer.write(&info.name, &bytes).unwrap();
        }
    }
    writer.finish().unwrap();
}

/// Logits of a text, or hidden states.
fn outputs(model: &LanguageModel) -> Vec<f32> {
    let graph = model.graph(State::None).unwrap();
    let session = Session::new(&graph, &SessionOptions::new(Mode::Float)).unwrap();
    let row = |values: Vec<i64>| Tensor::from_slice(vec![1, values.len()], &values).unwrap();
    let places: Vec<i64> = (0..TEXT.len() as i64).collect();
    let mut inputs =
        vec![(names::TOKENS, row(TEXT.into())), (names::POSITIONS, row(places.clone()))];
    match model.network() {
        Network::Decoder(_) => inputs.push((names::ROWS, Tensor::vector(&places))),
        Network::Encoder(_) => inputs.push((names::TOKEN_TYPES, row(vec![0; TEXT.len()]))),
    }
    session.run_owned(inputs).unwrap()[0].1.to_f32().unwrap()
}

fn assert_close(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-4 * largest.max(1.0), "{name}: {a} {b}");
    }
}

#[test]
fn gguf_files_predict_what_their_folders_do() {
    let dir = tempfile::tempdir().unwrap();
    for name in ALL {
        let original = LanguageModel::open(&folder(dir.path(), name)).unwrap();
        let path = dir.path().join(format!("{name}.gguf"));
        gguf_of(&original, &path);
        let written = LanguageModel::open(&path).unwrap();
        assert_eq!(written.checkpoint().architecture.gguf, original.checkpoint().architecture.gguf);
        assert_close(name, &outputs(&written), &outputs(&original));
        let text = "ab a\nb";
        let tokens = |model: &LanguageModel| model.tokenizer().encode(text, true).unwrap();
        assert_eq!(tokens(&written), tokens(&original), "{name}");
        assert_eq!(written.tokenizer().ends(), original.tokenizer().ends());
    }
}

#[test]
fn what_gguf_cannot_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, field: &str, value: Value| {
        let path = folder(dir.path(), name);
        let mut config = config(name);
        config.insert(field.to_string(), value);
        config.insert("use_sliding_window".to_string(), json!(field == "layer_types"));
        std::fs::write(path.join("config.json"), Value::Object(config).to_string()).unwrap();
        let model = LanguageModel::open(&path).unwrap();
        export::to_gguf(&model).unwrap_err().stable_code()
    };
    for (name, field, value) in [
        ("gemma3_text", "sliding_window_pattern", json!(2)),
        ("gemma3_text", "rope_local_base_freq", json!(5000.0)),
        ("smollm3", "no_rope_layers", json!([1, 0])),
        ("gemma2", "query_pre_attn_scalar", json!(24)),
        ("gemma2", "attn_logit_softcapping", Value::Null),
        ("qwen2", "layer_types", json!(["full_attention", "sliding_attention"])),
        ("llama", "hidden_act", json!("gelu")),
        ("gpt2", "activation_function", json!("relu")),
        ("gpt2", "scale_attn_weights", json!(false)),
        ("bert", "hidden_act", json!("relu")),
    ] {
        assert_eq!(refused(name, field, value), "FB-4712", "{name}: {field}");
    }
    // A tensor that no table names.
    assert_eq!(refused("llama", "num_hidden_layers", json!(1)), "FB-4713");
}

#[test]
fn settings_survive_the_way_into_gguf_and_back() {
    let dir = tempfile::tempdir().unwrap();
    // How the Llama here stretches its rotation, no published model does.
    for name in ALL.into_iter().filter(|name| !["llama", "bert"].contains(name)) {
        let original = LanguageModel::open(&folder(dir.path(), name)).unwrap();
        let path = dir.path().join(format!("{name}.gguf"));
        gguf_of(&original, &path);
        let found = export::to_folder(&LanguageModel::open(&path).unwrap()).unwrap().config;
        let family = found.text("model_type").unwrap();
        let back = (arch::find(family).unwrap().network)(&found, &RandomWeights::of(name));
        assert_eq!(&back.unwrap(), original.network(), "{name} as {family}");
        // transformers takes no 8.0 for a whole number.
        if name.starts_with("gemma") {
            assert!(found.get("query_pre_attn_scalar").unwrap().is_u64(), "{name}");
        }
    }
}
