//! One small model as a Hugging Face network and as a GGUF file: the same predictions.

mod random;

use fewbit_core::Tensor;
use fewbit_core::codec::block::BlockType;
use fewbit_exec::{Mode, Session, SessionOptions};
use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::gguf::{Metadata, TensorInfo, Value, Writer};
use fewbit_llm::arch::{self, Network};
use fewbit_llm::graph::decoder::State;
use fewbit_llm::graph::names;
use fewbit_llm::{Generator, GeneratorOptions, LanguageModel, Weights, is_language_model};
use random::{RandomWeights, settings};
use std::path::Path;

const TEXT: [u32; 6] = [3, 1, 4, 1, 5, 9];
const HEADS: u32 = 4;

fn vocabulary(metadata: &mut Metadata) {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    tokens.extend(('a'..='q').map(String::from));
    let kind = |i: usize| [2, 3, 3].get(i).copied().unwrap_or(1i32);
    metadata.set("tokenizer.ggml.model", "llama");
    metadata.set("tokenizer.ggml.scores", vec![0f32; tokens.len()]);
    metadata.set("tokenizer.ggml.token_type", (0..tokens.len()).map(kind).collect::<Vec<i32>>());
    metadata.set("tokenizer.ggml.tokens", tokens);
    for (name, id) in [("unknown", 0u32), ("bos", 1), ("eos", 2)] {
        metadata.set(format!("tokenizer.ggml.{name}_token_id"), id);
    }
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::default();
    let mut put = |key: &str, value: Value| metadata.set(key, value);
    put("general.architecture", "llama".into());
    for (key, size) in [
        ("embedding_length", 32u32),
        ("block_count", 2),
        ("feed_forward_length", 64),
        ("context_length", 64),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", 8),
    ] {
        put(&format!("llama.{key}"), size.into());
    }
    put("llama.attention.layer_norm_rms_epsilon", 1e-6f32.into());
    vocabulary(&mut metadata);
    metadata
}

/// Rows of each head reordered so that the two elements of a pair are neighbours.
fn interleaved(tensor: &Tensor, heads: usize) -> Tensor {
    let [rows, columns] = *tensor.shape() else { panic!("no matrix") };
    let (values, size) = (tensor.to_vec::<f32>().unwrap(), rows / heads);
    let source = |row: usize| {
        let (head, at) = (row / size, row % size);
        head * size + (at % 2) * (size / 2) + at / 2
    };
    let turned: Vec<f32> =
        (0..rows).flat_map(|row| values[source(row) * columns..][..columns].to_vec()).collect();
    Tensor::from_slice(vec![rows, columns], &turned).unwrap()
}

/// What Llama 3 files hold instead of settings: divisors of the frequencies.
fn divisors() -> Tensor {
    let Network::Decoder(scaled) = network(&settings("llama")) else { panic!("no decoder") };
    let Network::Decoder(plain) = network(&settings("mistral")) else { panic!("no decoder") };
    let pairs = plain.rotaries[0].frequencies.iter().zip(&scaled.rotaries[0].frequencies);
    Tensor::vector(&pairs.map(|(plain, scaled)| plain / scaled).collect::<Vec<f32>>())
}

fn network(settings: &fewbit_llm::Settings) -> Network {
    (arch::find("llama").unwrap().network)(settings, &RandomWeights::of("llama")).unwrap()
}

fn write(path: &Path, weights: &RandomWeights, metadata: &Metadata) {
    let mut tensors: Vec<(String, Tensor)> = vec![("rope_freqs.weight".to_string(), divisors())];
    for name in weights.shapes.keys() {
        let stored = weights.get(name).unwrap().unwrap().tensor;
        let tensor = match () {
            () if name.ends_with("attn_q.weight") => interleaved(&stored, 4),
            () if name.ends_with("attn_k.weight") => interleaved(&stored, 2),
            () => stored,
        };
        tensors.push((name.clone(), tensor));
    }
    let info = |(name, tensor): &(String, Tensor)| TensorInfo {
        name: name.clone(),
        shape: tensor.shape().to_vec(),
        ty: BlockType::F32,
    };
    let infos: Vec<TensorInfo> = tensors.iter().map(info).collect();
    let options = OutputOptions::default();
    let mut writer = Writer::create(path, metadata, &infos, &options).unwrap();
    for (name, tensor) in &tensors {
        writer.write(name, tensor.bytes()).unwrap();
    }
    writer.finish().unwrap();
}

/// Logits behind the last token, computed from the settings of Hugging Face.
fn expected(weights: &RandomWeights) -> Vec<f32> {
    let Network::Decoder(decoder) = network(&settings("llama")) else { panic!("no decoder") };
    let model = decoder.graph("test", weights, State::None).unwrap();
    let session = Session::new(&model, &SessionOptions::new(Mode::Float)).unwrap();
    let row = |values: Vec<i64>| Tensor::from_slice(vec![1, values.len()], &values).unwrap();
    let inputs = vec![
        (names::TOKENS, row(TEXT.iter().map(|&t| i64::from(t)).collect())),
        (names::POSITIONS, row((0..TEXT.len() as i64).collect())),
        (names::ROWS, Tensor::vector(&[TEXT.len() as i64 - 1])),
    ];
    session.run_owned(inputs).unwrap()[0].1.to_f32().unwrap()
}

#[test]
fn a_gguf_file_predicts_what_the_original_does() {
    let dir = tempfile::tempdir().unwrap();
    let (path, weights) = (dir.path().join("x.gguf"), RandomWeights::of("llama"));
    write(&path, &weights, &metadata());
    assert!(is_language_model(&path) && !is_language_model(dir.path()));
    let model = LanguageModel::open(&path).unwrap();
    assert_eq!(model.tokenizer().bos(), Some(1));
    assert_eq!(model.decoder().unwrap().vocabulary, 20);
    let mut generator = Generator::new(&model, &GeneratorOptions::default()).unwrap();
    let (found, expected) = (generator.logits(&TEXT).unwrap(), expected(&weights));
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() < 1e-4, "{found:?}\n{expected:?}");
    }
}

#[test]
fn files_that_miss_a_part_say_which() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let refused = |metadata: Metadata| {
        let options = OutputOptions::default();
        Writer::create(&path, &metadata, &[], &options).unwrap().finish().unwrap();
        let error = LanguageModel::open(&path).err().expect("must be refused");
        std::fs::remove_file(&path).unwrap();
        error.to_string()
    };
    let without = |key: &str| {
        let mut metadata = metadata();
        metadata.remove(key);
        metadata
    };
    assert!(refused(without("general.architecture")).contains("general.architecture"));
    assert!(refused(without("llama.block_count")).contains("num_hidden_layers"));
    assert!(refused(without("tokenizer.ggml.tokens")).contains("0 tokens"));
    let mut odd = metadata();
    odd.set("llama.attention.head_count", 3u32);
    assert!(refused(odd).contains("heads"));
}

/// Settings and vocabularies that contradict the tensors or make no sense, in a file that is whole.
#[test]
fn hostile_metadata_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (path, weights) = (dir.path().join("x.gguf"), RandomWeights::of("llama"));
    let settings = |key: &str, value: u32| (format!("llama.{key}"), Value::from(value));
    let tokenizer = |key: &str, value: Value| (format!("tokenizer.ggml.{key}"), value);
    let most = u32::MAX;
    let cases = [
        settings("block_count", 0),
        settings("block_count", 513),
        settings("block_count", most),
        settings("attention.head_count", 0),
        settings("attention.head_count", most),
        settings("attention.head_count_kv", 0),
        settings("attention.head_count_kv", 3),
        settings("rope.dimension_count", 9),
        settings("rope.dimension_count", 64),
        settings("rope.dimension_count", most),
        settings("embedding_length", 0),
        settings("embedding_length", most),
        settings("attention.key_length", most),
        tokenizer("tokens", vec![0u32; 20].into()),
        tokenizer("tokens", Vec::<String>::new().into()),
        tokenizer("scores", vec![0f32; 3].into()),
        tokenizer("token_type", vec![1i32; 3].into()),
        tokenizer("model", "nothing".into()),
    ];
    for (key, value) in cases {
        let what = format!("{key} = {value:?}");
        let mut metadata = metadata();
        metadata.set(key, value);
        write(&path, &weights, &metadata);
        let start = std::time::Instant::now();
        let opened = LanguageModel::open(&path);
        let error = opened.and_then(|model| model.graph(State::None)).err();
        let error = error.unwrap_or_else(|| panic!("{what} is accepted"));
        assert!(matches!(error.kind().exit_code(), 3 | 4), "{what}: {error}");
        assert!(start.elapsed().as_secs_f64() < 1.0, "{what}: {:?}", start.elapsed());
        std::fs::remove_file(&path).unwrap();
    }
}

/// Numbers that only a run looks at: it says so, or goes on without them.
#[test]
fn odd_numbers_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (path, weights) = (dir.path().join("x.gguf"), RandomWeights::of("llama"));
    for (key, value) in [
        ("llama.context_length", 0),
        ("llama.feed_forward_length", u32::MAX),
        ("tokenizer.ggml.bos_token_id", u32::MAX),
        ("tokenizer.ggml.eos_token_id", u32::MAX),
        ("tokenizer.ggml.unknown_token_id", u32::MAX),
        ("tokenizer.ggml.unknown_token_id", 20),
    ] {
        let mut metadata = metadata();
        metadata.set(key, value);
        write(&path, &weights, &metadata);
        if let Ok(model) = LanguageModel::open(&path) {
            let tokens = model.tokenizer().encode("a\u{1f600}", true).unwrap_or_default();
            let generator = Generator::new(&model, &GeneratorOptions::default());
            let logits = generator.and_then(|mut generator| generator.logits(&tokens));
            assert!(logits.is_err() || tokens.iter().all(|&id| id < 20), "{key}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}

/// Tokens that look like bytes and are none, that stand twice, or that merges make of nothing.
#[test]
fn odd_tokens_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (path, weights) = (dir.path().join("x.gguf"), RandomWeights::of("llama"));
    let tokens: Vec<String> = ["<unk>", "<s>", "</s>", "<0x-1>", "<0xZZ>", "<0x0A>", "<0x"]
        .into_iter()
        .chain([
            "<0x1FF>",
            "a",
            "a",
            "b",
            "\u{2581}",
            "ab",
            "",
            "\u{2581}a",
            "x",
            "y",
            "z",
            "c",
            "d",
        ])
        .map(String::from)
        .collect();
    let kinds = |i: usize| [2i32, 3, 3, 6, 6, 6, 6, 6].get(i).copied().unwrap_or(1);
    for model in ["llama", "gpt2", "bert"] {
        let mut metadata = metadata();
        metadata.set("tokenizer.ggml.model", model);
        let kinds: Vec<i32> = (0..tokens.len()).map(kinds).collect();
        metadata.set("tokenizer.ggml.token_type", kinds);
        metadata.set("tokenizer.ggml.tokens", tokens.clone());
        let merges = ["a b", "q q", "a", "a b c", "", " "].map(String::from).to_vec();
        metadata.set("tokenizer.ggml.merges", merges);
        write(&path, &weights, &metadata);
        // Refused or not, but without a panic, and no token outside of the list comes out.
        if let Ok(opened) = LanguageModel::open(&path) {
            let found = opened.tokenizer().encode("ab\n\u{1f600} <0x-1> zzz", true);
            assert!(found.unwrap_or_default().iter().all(|&id| id < 20), "{model}");
            let _ = opened.tokenizer().decode(&(0..20).collect::<Vec<u32>>());
        }
        std::fs::remove_file(&path).unwrap();
    }
}
