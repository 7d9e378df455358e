//! Files go both ways between fewbit and ONNX Runtime, and both predict the same.
//!
//! Needs real networks (`FEWBIT_ZOO`) and a Python with onnxruntime (`FEWBIT_PYTHON`).

mod process;

use fewbit::llm::LanguageModel;
use fewbit::llm::graph::decoder::State;
use fewbit::llm::graph::names;
use fewbit::{Data, Mode, Samples, Session, SessionOptions, Tensor};
use process::{Ran, fewbit, zoo};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::tempdir;

/// Share of equal predictions that is promised.
const AGREEMENT: f64 = 0.99;

struct Network {
    python: PathBuf,
    model: PathBuf,
    card: PathBuf,
}

/// A network of the zoo with its data and the Python to ask; `None` when one of them is missing.
fn network(model: &str, card: &str) -> Option<Network> {
    let (model, card) = (zoo(model)?, zoo(card)?);
    let Some(python) = std::env::var_os("FEWBIT_PYTHON") else {
        eprintln!("skipped: FEWBIT_PYTHON is not set");
        return None;
    };
    Some(Network { python: python.into(), model, card })
}

impl Network {
    fn data(&self, range: &str) -> String {
        format!("{}@{range}", self.card.display())
    }

    /// Quantizes here.
    fn quantize(&self, out: &Path, calibration: &str, flags: &[&str]) {
        let mut command = fewbit();
        command.arg("quantize").arg(&self.model).arg("-o").arg(out);
        command.args(["--calibrate", &self.data(calibration)]).args(flags);
        Ran::of(command.output().unwrap()).succeeds();
    }

    fn ask<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnxruntime.py");
        let mut command = Command::new(&self.python);
        command.arg(script).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Quantizes in ONNX Runtime, on samples that were prepared here.
    fn quantize_there(&self, out: &Path, calibration: &str) {
        let data = Data::open(&self.data(calibration)).unwrap();
        let mut child = self.ask([OsStr::new("quantize"), self.model.as_os_str(), out.as_os_str()]);
        for index in 0..data.len() {
            give(&mut child, &data, index);
        }
        finish(child);
    }

    /// Share of samples on which both runtimes predict the same, for each file.
    fn agreement(&self, files: &[&Path], range: &str) -> Vec<f64> {
        let data = Data::open(&self.data(range)).unwrap();
        let mut child =
            self.ask([OsStr::new("top1")].into_iter().chain(files.iter().map(|f| f.as_os_str())));
        let sessions: Vec<Session> = files.iter().map(|f| integer_session(f)).collect();
        let mut ours = Vec::new();
        for index in 0..data.len() {
            give(&mut child, &data, index);
            ours.push(sessions.iter().map(|s| predict(s, &data, index)).collect::<Vec<_>>());
        }
        let theirs = finish(child);
        let theirs: Vec<Vec<usize>> =
            theirs.lines().map(|l| l.split(' ').map(|c| c.parse().unwrap()).collect()).collect();
        assert_eq!(theirs.len(), data.len());
        let equal = |f: usize| ours.iter().zip(&theirs).filter(|(a, b)| a[f] == b[f]).count();
        (0..files.len()).map(|f| equal(f) as f64 / data.len() as f64).collect()
    }
}

fn integer_session(model: &Path) -> Session {
    let source = fewbit::load(model).unwrap();
    Session::new(&source.model, &SessionOptions::new(Mode::Integer)).unwrap()
}

/// The class with the largest score; the first one where scores are equal, as they often are
/// when they are codes.
fn predict(session: &Session, data: &Data, index: usize) -> usize {
    let sample = data.sample(index).unwrap();
    let outputs = session.run(&fewbit::quant::bind(&sample, session.inputs()).unwrap()).unwrap();
    let scores = outputs[0].1.to_f32().unwrap();
    (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap()
}

fn give(child: &mut Child, data: &Data, index: usize) {
    let sample = data.sample(index).unwrap();
    let written = child.stdin.as_mut().unwrap().write_all(sample.inputs[0].1.bytes());
    // Why it does not listen any more stands in its last words.
    written.unwrap_or_else(|e| eprintln!("{e}"));
}

/// Ends the input and waits; what the script printed.
fn finish(child: Child) -> String {
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.succeeds().stdout.clone()
}

/// Files of both makers, in both runtimes.
fn files_go_both_ways(network: &Network, calibration: &str, range: &str, variants: &[&[&str]]) {
    let dir = tempdir().unwrap();
    let mut files = vec![dir.path().join("theirs.onnx")];
    network.quantize_there(&files[0], calibration);
    for (number, flags) in variants.iter().enumerate() {
        let file = dir.path().join(format!("ours{number}.onnx"));
        network.quantize(&file, calibration, flags);
        files.push(file);
    }
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let agreement = network.agreement(&paths, range);
    eprintln!("{}: {agreement:?}", network.model.display());
    for (file, share) in files.iter().zip(agreement) {
        assert!(share >= AGREEMENT, "{}: {share}", file.display());
    }
}

#[test]
fn resnet_20_predicts_the_same_in_onnx_runtime() {
    let model = "cifar10/cifar10_resnet20_fp32.onnx";
    let Some(network) = network(model, "cifar10.toml") else { return };
    let variants: &[&[&str]] = &[&[], &["--per-tensor"], &["--symmetric", "--activations", "i8"]];
    files_go_both_ways(&network, "0..100", "200..700", variants);
}

/// What the `onnx` package stamps by itself is newer than ONNX Runtime reads; what is made of it here
/// is not.
#[test]
fn networks_with_the_newest_stamps_become_files_that_onnx_runtime_reads() {
    let model = "cifar10/cifar10_resnet20_fp32.onnx";
    let Some(mut network) = network(model, "cifar10.toml") else { return };
    let dir = tempdir().unwrap();
    let [newest, quantized] = ["newest", "int8"].map(|n| dir.path().join(format!("{n}.onnx")));
    finish(network.ask([OsStr::new("newest"), network.model.as_os_str(), newest.as_os_str()]));
    let stamps = |file: &Path| {
        let model = fewbit::load(file).unwrap().model;
        (model.ir_version, model.opset())
    };
    assert_eq!(stamps(&newest), (14, 28));
    network.model = newest;
    network.quantize(&quantized, "0..100", &[]);
    assert_eq!(stamps(&quantized), (13, 26));
    assert!(network.agreement(&[&quantized], "200..300")[0] >= AGREEMENT);
}

#[test]
fn efficientnet_lite0_predicts_the_same_in_onnx_runtime() {
    let model = "efficientnet-lite0/efficientnet_lite0_fp32.onnx";
    let Some(network) = network(model, "imagenet.toml") else { return };
    files_go_both_ways(&network, "0..100", "100..600", &[&[]]);
}

/// Logits of every position of a language model in float, the whole text at once.
fn logits(path: &Path, tokens: &[i64]) -> Vec<f32> {
    let model = LanguageModel::open(path).unwrap();
    let graph = model.graph(State::None).unwrap();
    let session = Session::new(&graph, &SessionOptions::new(Mode::Float)).unwrap();
    let places: Vec<i64> = (0..tokens.len() as i64).collect();
    let row = |values: &[i64]| Tensor::from_slice(vec![1, values.len()], values).unwrap();
    let inputs = [
        (names::TOKENS, row(tokens)),
        (names::POSITIONS, row(&places)),
        (names::ROWS, Tensor::vector(&places)),
    ];
    session.run(&inputs).unwrap()[0].1.to_f32().unwrap()
}

#[test]
fn onnx_runtime_runs_language_models_that_are_written_here() {
    let Some(model) = zoo("stories260k") else { return };
    let Some(python) = std::env::var_os("FEWBIT_PYTHON") else {
        eprintln!("skipped: FEWBIT_PYTHON is not set");
        return;
    };
    let (network, dir) = (
        Network { python: python.into(), model: model.clone(), card: PathBuf::new() },
        tempdir().unwrap(),
    );
    for ty in ["F32", "F16", "Q4_0", "Q5_0", "Q8_0"] {
        let [gguf, onnx] = ["gguf", "onnx"].map(|end| dir.path().join(format!("{ty}.{end}")));
        let mut quantize = fewbit();
        quantize.arg("quantize").arg(&model).arg("-o").arg(&gguf).args(["--type", ty]);
        Ran::of(quantize.output().unwrap()).succeeds();
        let mut convert = fewbit();
        Ran::of(convert.arg("convert").arg(&gguf).arg(&onnx).output().unwrap()).succeeds();
        let pieces = ["1,403,407,261", "378", "31,5,99", "7"];
        let args = [OsStr::new("logits"), onnx.as_os_str()];
        let child = network.ask(args.into_iter().chain(pieces.iter().map(OsStr::new)));
        let ran = Ran::of(child.wait_with_output().unwrap());
        let found = ran.succeeds().stdout.split_whitespace();
        let found: Vec<f32> = found.map(|number| number.parse().unwrap()).collect();
        let tokens: Vec<i64> = pieces.join(",").split(',').map(|t| t.parse().unwrap()).collect();
        let expected = logits(&gguf, &tokens);
        assert_eq!(found.len(), expected.len(), "{ty}");
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-3, "{ty}: {a} there, {b} here");
        }
    }
}
