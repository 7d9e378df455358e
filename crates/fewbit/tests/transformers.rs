//! Folders that fewbit writes, in transformers: the same logits and the same vectors.
//!
//! Not for CI: `FEWBIT_TRANSFORMERS` names a Python with torch, transformers and
//! compressed-tensors. Beside the zoo, `FEWBIT_LANGUAGE_MODEL` may name a float GGUF file or
//! folder, and `FEWBIT_MINILM` the folder of all-MiniLM-L6-v2.

use fewbit::llm::graph::decoder::State;
use fewbit::llm::graph::names;
use fewbit::llm::{Embedder, LanguageModel};
use fewbit::{DType, FolderJob, FolderType, Mode, Session, SessionOptions, Silent, Tensor};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn path(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os(name).map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: {name} is not set");
    }
    found
}

fn ask(python: &Path, command: &str, folder: &Path, more: &[String], input: &str) -> Vec<f32> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ask_transformers.py");
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(python)
        .arg(script)
        .arg(command)
        .arg(folder)
        .arg(out.path())
        .args(more)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let bytes = std::fs::read(out.path()).unwrap();
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn logits(folder: &Path, ids: &[u32]) -> Vec<f32> {
    let model = LanguageModel::open(folder).unwrap();
    let graph = model.graph(State::None).unwrap();
    let session = Session::new(&graph, &SessionOptions::new(Mode::Simulate)).unwrap();
    let row = |values: Vec<i64>| Tensor::from_slice(vec![1, values.len()], &values).unwrap();
    let places: Vec<i64> = (0..ids.len() as i64).collect();
    let inputs = vec![
        (names::TOKENS, row(ids.iter().map(|&id| i64::from(id)).collect())),
        (names::POSITIONS, row(places.clone())),
        (names::ROWS, Tensor::vector(&places)),
    ];
    session.run_owned(inputs).unwrap()[0].1.to_f32().unwrap()
}

/// Largest difference of two lists of numbers.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

fn compare(python: &Path, model: &Path, text: &str) {
    let dir = tempfile::tempdir().unwrap();
    // Scales of 32 bits: transformers computes weights in the type of the scales.
    let float = dir.path().join("float");
    FolderJob::new(model, FolderType::Float(DType::F32)).run(&float, false, &Silent).unwrap();
    for ty in [
        FolderType::Float(DType::F32),
        FolderType::W4A16,
        FolderType::W8A16,
        FolderType::W8A8,
        FolderType::Fp8,
    ] {
        let out = dir.path().join(ty.name());
        FolderJob::new(&float, ty).run(&out, false, &Silent).unwrap();
        let ids = LanguageModel::open(&out).unwrap().tokenizer().encode(text, true).unwrap();
        let spelled: Vec<String> = ids.iter().map(u32::to_string).collect();
        let theirs = ask(python, "logits", &out, &spelled, "");
        let found = distance(&logits(&out, &ids), &theirs);
        println!("{} {}: logits differ by {found:.1e} at most", model.display(), ty.name());
        // Where activations are quantized, a tie that falls the other way is a whole step.
        let most = if ty == FolderType::Fp8 { 2e-1 } else { 1e-3 };
        assert!(found <= most, "{}: {found}", ty.name());
    }
}

#[test]
fn logits_are_those_of_transformers() {
    let Some(python) = path("FEWBIT_TRANSFORMERS") else { return };
    if let Some(zoo) = path("FEWBIT_ZOO") {
        compare(&python, &zoo.join("stories260k"), "Once upon a time, there was a little girl");
    }
    if let Some(model) = path("FEWBIT_LANGUAGE_MODEL") {
        compare(&python, &model, "The capital of France is Paris, and that of Italy");
    }
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    let Some(python) = path("FEWBIT_TRANSFORMERS") else { return };
    let Some(folder) = path("FEWBIT_MINILM") else { return };
    let texts = ["A man is playing a guitar.", "Two dogs run through deep snow!", "x", "Ça va ?"];
    let theirs = ask(&python, "embed", &folder, &[], &texts.join("\n"));
    let model = LanguageModel::open(&folder).unwrap();
    let embedder = Embedder::new(&model, &SessionOptions::new(Mode::Float)).unwrap();
    let ours = embedder.embed(&texts, &mut |_| {}).unwrap().concat();
    let found = distance(&ours, &theirs);
    println!("vectors differ by {found:.1e} at most");
    assert!(found < 1e-4, "{found}");
}
