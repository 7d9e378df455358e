//! Layers that see a window keep it alone, and compute the bits that they would with all rows.

mod random;

use fewbit_core::Tensor;
use fewbit_exec::{Mode, Session, SessionOptions};
use fewbit_llm::graph::decoder::State;
use fewbit_llm::graph::names;
use fewbit_llm::perplexity::{Windows, compare, score};
use fewbit_llm::{
    Batch, CacheType, CacheTypes, Event, Generation, Generator, GeneratorOptions, LanguageModel,
    Request, Sampler, Sampling,
};
use random::{RandomWeights, settings};
use serde_json::{Map, Value, json};
use std::path::Path;

const WINDOW: usize = 24;
const CONTEXT: usize = 4096;
const TOKENS: usize = 20;
/// Rows that a window and the longest piece take, in whole steps.
const ROWS: usize = 576;
/// Elements of keys (and of values) of a token.
const WIDTH: usize = 64;

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

/// A Mistral (all layers see a window) or a Gemma 3 (every other one does), with heads of 32.
fn model(dir: &Path, name: &str) -> LanguageModel {
    let mut weights = RandomWeights::of(name);
    for layer in 0..2 {
        let shapes =
            [("q", [128, 32]), ("k", [WIDTH, 32]), ("v", [WIDTH, 32]), ("output", [32, 128])];
        for (part, shape) in shapes {
            weights.shapes.insert(format!("blk.{layer}.attn_{part}.weight"), shape.to_vec());
        }
        for part in ["q", "k"] {
            if let Some(shape) =
                weights.shapes.get_mut(&format!("blk.{layer}.attn_{part}_norm.weight"))
            {
                *shape = vec![32];
            }
        }
    }
    let mut config = settings(name);
    config.set("model_type", name);
    config.set("head_dim", 32);
    config.set("sliding_window", WINDOW);
    config.set("max_position_embeddings", CONTEXT);
    let path = dir.join(name);
    let config = Value::Object(config.fields().clone());
    random::folder(&path, name, &weights, &config, &tokenizer());
    LanguageModel::open(&path).unwrap()
}

fn each_model(test: impl Fn(&str, &LanguageModel)) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["mistral", "gemma3_text"] {
        test(name, &model(dir.path(), name));
    }
}

fn text(len: usize, seed: u32) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % TOKENS as u32
    };
    (0..len).map(|_| next()).collect()
}

fn options(cache: CacheType, threads: usize) -> GeneratorOptions {
    let session = SessionOptions::new(Mode::Integer).threads(threads);
    GeneratorOptions { session, context: 0, cache: CacheTypes::both(cache) }
}

/// Logits of every position, the whole text at once, with a cache that keeps all rows.
fn at_once(model: &LanguageModel, tokens: &[u32], cache: CacheType) -> Vec<f32> {
    let graph = model.graph(State::Cache(CacheTypes::both(cache))).unwrap();
    let session = Session::new(&graph, &SessionOptions::new(Mode::Integer).threads(2)).unwrap();
    let past: Vec<(String, Tensor)> = session.inputs()[3..]
        .iter()
        .map(|port| {
            let width = port.ty.shape.as_ref().unwrap()[2].known().unwrap();
            let shape = vec![1, tokens.len(), width];
            (port.name.clone(), Tensor::zeros(port.ty.dtype.unwrap(), shape).unwrap())
        })
        .collect();
    let places: Vec<i64> = (0..tokens.len() as i64).collect();
    let row = |values: &[i64]| Tensor::from_slice(vec![1, tokens.len()], values).unwrap();
    let ids: Vec<i64> = tokens.iter().map(|&t| i64::from(t)).collect();
    let mut inputs = vec![
        (names::TOKENS, row(&ids)),
        (names::POSITIONS, row(&places)),
        (names::ROWS, Tensor::vector(&places)),
    ];
    inputs.extend(past.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())));
    session.run_owned(inputs).unwrap()[0].1.to_f32().unwrap()
}

#[test]
fn a_long_text_in_pieces_gets_the_bits_of_one_at_once() {
    let tokens = text(1400, 1);
    each_model(|name, model| {
        for cache in CacheType::ALL {
            let expected = at_once(model, &tokens, cache);
            for threads in [1, 2] {
                let mut generator = Generator::new(model, &options(cache, threads)).unwrap();
                // Pieces of 1, 30, 512 and more tokens; windows move within and between them.
                for end in [1, 2, 3, 33, 545, 546, 560, 575, 576, 577, 578, 1170, 1171, 1399, 1400]
                {
                    let found = generator.logits(&tokens[..end]).unwrap();
                    let expected = &expected[(end - 1) * TOKENS..end * TOKENS];
                    assert!(found == expected, "{name} {cache:?} {threads} {end}");
                }
            }
        }
    });
}

#[test]
fn logits_that_are_no_numbers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sound = model(dir.path(), "mistral");
    let file = dir.path().join("mistral/model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[8 + header..].fill(0xff);
    drop(sound);
    std::fs::write(&file, bytes).unwrap();
    let model = LanguageModel::open(&dir.path().join("mistral")).unwrap();
    let mut generator = Generator::new(&model, &options(CacheType::F32, 1)).unwrap();
    let mut sampler = Sampler::new(Sampling::greedy());
    let written =
        generator.generate(&text(5, 1), &mut sampler, &Generation::default(), &mut |_| true);
    let error = written.unwrap_err();
    assert_eq!(error.stable_code(), "FB-3709");
    assert!(error.to_string().contains("position 4"), "{error}");
    let windows = Windows::of_text(&model, "abcdefghijklmnopqrst", 8).unwrap();
    let options = SessionOptions::default().into();
    let scored = score(&model, &windows, &options, &mut |_, _| {}).unwrap_err();
    assert_eq!(scored.stable_code(), "FB-3709");
    assert!(scored.to_string().contains("window 0: position 4"), "{scored}");
    let far = compare(&model, &model, &windows, &options, &mut |_, _| {});
    assert_eq!(far.unwrap_err().stable_code(), "FB-3709");
}

#[test]
fn the_cache_does_not_grow_with_the_text() {
    let tokens = text(1400, 1);
    each_model(|name, model| {
        let mut generator = Generator::new(model, &options(CacheType::F32, 1)).unwrap();
        generator.logits(&tokens[..20]).unwrap();
        let of_layer = |rows: usize| 2 * rows * WIDTH * 4;
        assert_eq!(generator.cache_bytes(), 2 * of_layer(256), "{name}");
        for end in (21..1400).step_by(60) {
            generator.logits(&tokens[..end]).unwrap();
        }
        let all = if name == "mistral" { of_layer(ROWS) } else { of_layer(2048) };
        assert_eq!(generator.cache_bytes(), of_layer(ROWS) + all, "{name}");
    });
}

#[test]
fn a_text_that_turns_back_is_computed_anew_where_rows_are_gone() {
    each_model(|name, model| {
        let mut generator = Generator::new(model, &options(CacheType::F16, 1)).unwrap();
        let (long, other) = (text(1300, 2), text(700, 3));
        generator.logits(&long).unwrap();
        for shared in [1299, 1290, 1000, 600, 30, 0] {
            let mut tokens = long[..shared].to_vec();
            tokens.extend(&other[..40]);
            let expected = at_once(model, &tokens, CacheType::F16);
            let found = generator.logits(&tokens).unwrap();
            assert!(found == expected[(tokens.len() - 1) * TOKENS..], "{name} {shared}");
            generator.logits(&long).unwrap();
        }
    });
}

/// Prompts shorter and longer than the window and than a piece, and texts that grow past both.
fn requests() -> Vec<Request> {
    let request = |(index, (prompt, new)): (usize, (usize, usize))| Request {
        prompt: text(prompt, 10 + index as u32),
        sampling: match index % 2 {
            0 => Sampling::greedy(),
            _ => Sampling { seed: index as u64, ..Sampling::default() },
        },
        limits: Generation { max_tokens: new, stop: Vec::new(), ignore_end: true },
    };
    [(5, 700), (600, 30), (1, 40), (1100, 120), (30, 10)]
        .into_iter()
        .enumerate()
        .map(request)
        .collect()
}

#[test]
fn texts_side_by_side_get_what_they_would_get_alone() {
    each_model(|name, model| {
        let requests = requests();
        for cache in [CacheType::F32, CacheType::Q4_0] {
            let expected: Vec<Vec<u32>> = requests
                .iter()
                .map(|request| {
                    let mut generator = Generator::new(model, &options(cache, 1)).unwrap();
                    let mut sampler = Sampler::new(request.sampling.clone());
                    let (prompt, limits) = (&request.prompt, &request.limits);
                    generator.generate(prompt, &mut sampler, limits, &mut |_| true).unwrap().0
                })
                .collect();
            // The greedy ones are what the whole text predicts at each place.
            for (request, new) in requests.iter().zip(&expected).step_by(2) {
                let whole = [&request.prompt[..], new].concat();
                let logits = at_once(model, &whole, cache);
                for (at, &token) in whole.iter().enumerate().skip(request.prompt.len()) {
                    let row = &logits[(at - 1) * TOKENS..at * TOKENS];
                    assert!(row.iter().all(|&v| v <= row[token as usize]), "{name} {cache:?} {at}");
                }
            }
            let mut batch = Batch::new(model, &options(cache, 2), 3).unwrap();
            requests.iter().for_each(|request| _ = batch.add(request.clone()).unwrap());
            let mut found = vec![Vec::new(); requests.len()];
            let mut most = 0;
            while batch.is_busy() {
                batch
                    .step(&mut |ticket, event| {
                        if let Event::End(answer) = event {
                            found[ticket] = answer.tokens;
                        }
                        true
                    })
                    .unwrap();
                most = most.max(batch.cache_bytes());
            }
            assert_eq!(found, expected, "{name} {cache:?}");
            if (name, cache) == ("mistral", CacheType::F32) {
                // Three places at most, of four, and the text that enters.
                assert!(most <= 5 * 2 * 2 * ROWS * WIDTH * 4, "{most}");
            }
        }
    });
}
