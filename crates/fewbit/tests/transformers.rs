//! Folders that fewbit writes, in transformers: the same logits, products and vectors.
//!
//! Not for CI: `FEWBIT_TRANSFORMERS` names a Python with torch, transformers and
//! compressed-tensors. Beside the zoo, `FEWBIT_LANGUAGE_MODEL` may name a float GGUF file or
//! folder, and `FEWBIT_MINILM` the folder of all-MiniLM-L6-v2.

use fewbit::formats::atomic::OutputOptions;
use fewbit::formats::safetensors::{TensorSpec, Writer};
use fewbit::llm::graph::decoder::State;
use fewbit::llm::graph::names;
use fewbit::llm::{Embedder, LanguageModel};
use fewbit::{DType, FolderJob, FolderType, Mode, Session, SessionOptions, Silent, Tensor};
use std::collections::{BTreeMap, HashSet};
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

fn inputs(ids: &[u32]) -> Vec<(&'static str, Tensor)> {
    let row = |values: Vec<i64>| Tensor::from_slice(vec![1, values.len()], &values).unwrap();
    let places: Vec<i64> = (0..ids.len() as i64).collect();
    vec![
        (names::TOKENS, row(ids.iter().map(|&id| i64::from(id)).collect())),
        (names::POSITIONS, row(places.clone())),
        (names::ROWS, Tensor::vector(&places)),
    ]
}

fn logits(folder: &Path, ids: &[u32]) -> Vec<f32> {
    let model = LanguageModel::open(folder).unwrap();
    let graph = model.graph(State::None).unwrap();
    let session = Session::new(&graph, &SessionOptions::new(Mode::Simulate)).unwrap();
    session.run_owned(inputs(ids)).unwrap()[0].1.to_f32().unwrap()
}

/// Input and output of a product.
type Product = (Tensor, Vec<f32>);

/// The products with quantized inputs in a run, by the names that transformers has for them.
fn products(folder: &Path, ids: &[u32]) -> BTreeMap<String, Product> {
    let model = LanguageModel::open(folder).unwrap();
    let graph = model.graph(State::None).unwrap();
    let table = model.checkpoint().architecture.tensors;
    let graph_of = &graph.graph;
    let ends = |node: &fewbit::Node| {
        let x = graph_of.name_of(node.inputs[0]?).strip_suffix(".from_codes")?;
        Some((x.to_string(), graph_of.name_of(node.outputs[0]?).to_string()))
    };
    let found = graph_of.nodes().filter(|(_, node)| node.op == "MatMul");
    let pairs: Vec<(String, String)> = found.filter_map(|(_, node)| ends(node)).collect();
    let mut options = SessionOptions::new(Mode::Simulate);
    options.taps = pairs.iter().flat_map(|(x, y)| [x.clone(), y.clone()]).collect::<HashSet<_>>();
    let session = Session::new(&graph, &options).unwrap();
    let mut seen: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut tap = |event: &fewbit::TapEvent| {
        seen.insert(event.name.to_string(), event.to_onnx_layout()?);
        Ok(())
    };
    session.run_tapped(&inputs(ids), &mut tap).unwrap();
    let stored = |y: &str| {
        let name = table.stored("model.", &format!("{y}.weight")).unwrap();
        name.strip_suffix(".weight").unwrap().to_string()
    };
    let product =
        |(x, y): &(String, String)| (stored(y), (seen[x].clone(), seen[y].to_f32().unwrap()));
    pairs.iter().map(product).collect()
}

/// What transformers makes of the inputs, one product after another.
fn their_products(python: &Path, folder: &Path, ours: &BTreeMap<String, Product>) -> Vec<f32> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("inputs.safetensors");
    let spec = |(name, (x, _)): (&String, &Product)| TensorSpec {
        name: name.clone(),
        dtype: DType::F32,
        shape: x.shape().to_vec(),
    };
    let specs: Vec<TensorSpec> = ours.iter().map(spec).collect();
    let mut writer = Writer::create(&file, &[], &specs, &OutputOptions::default()).unwrap();
    for (name, (x, _)) in ours {
        let bytes: Vec<u8> = x.to_f32().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect();
        writer.write(name, &bytes).unwrap();
    }
    writer.finish().unwrap();
    ask(python, "products", folder, &[file.display().to_string()], "")
}

/// Each product for itself, from the same inputs: exact, where a run of all of them is not.
fn compare_products(python: &Path, folder: &Path, ids: &[u32], what: &str) {
    let ours = products(folder, ids);
    let theirs = their_products(python, folder, &ours);
    let mut rest = theirs.as_slice();
    let mut most = 0f32;
    for (name, (_, ours)) in &ours {
        let (theirs, others) = rest.split_at(ours.len());
        rest = others;
        let largest = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
        most = most.max(distance(ours, theirs) / largest);
        assert!(most < 1e-5, "{name}: {most}");
    }
    assert!(rest.is_empty() && !ours.is_empty());
    println!("{what}: {} products differ by {most:.1e} of the largest at most", ours.len());
}

/// Largest difference of two lists of numbers.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

/// `most` is for logits where inputs are quantized.
fn compare(python: &Path, model: &Path, text: &str, most: f32) {
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
        let ours = logits(&out, &ids);
        let found = distance(&ours, &theirs);
        let what = format!("{} {}", model.display(), ty.name());
        println!("{what}: logits differ by {found:.1e} at most");
        let codes = matches!(ty, FolderType::W8A8 | FolderType::Fp8);
        if codes {
            compare_products(python, &out, &ids, &what);
        }
        assert!(found <= if codes { most } else { 1e-3 }, "{what}: {found}");
    }
}

#[test]
fn logits_are_those_of_transformers() {
    let Some(python) = path("FEWBIT_TRANSFORMERS") else { return };
    if let Some(zoo) = path("FEWBIT_ZOO") {
        compare(
            &python,
            &zoo.join("stories260k"),
            "Once upon a time, there was a little girl",
            1e-3,
        );
    }
    if let Some(model) = path("FEWBIT_LANGUAGE_MODEL") {
        // With quantized inputs, what falls the other way in a first layer grows from layer to
        // layer: a change of its embeddings by a millionth moves transformers' own logits by 3.
        compare(&python, &model, "The capital of France is Paris, and that of Italy", 10.0);
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
