//! Data without labels, and data with numbers instead of classes.

mod process;

use fewbit::formats::atomic::OutputOptions;
use fewbit::formats::data::npz;
use fewbit::{DType, Tensor};
use process::{digits, run};
use std::path::Path;
use tempfile::tempdir;

const SAMPLES: usize = 6;

fn images() -> Tensor {
    let values: Vec<f32> = (0..SAMPLES * 64).map(|i| (i * i % 11) as f32 / 10.0).collect();
    Tensor::from_slice(vec![SAMPLES, 1, 8, 8], &values).unwrap()
}

fn save(path: &Path, arrays: &[(&str, &Tensor)]) -> String {
    npz::write(path, arrays, &OutputOptions::default()).unwrap();
    path.display().to_string()
}

#[test]
fn without_labels_the_float_model_is_the_measure() {
    let dir = tempdir().unwrap();
    let data = save(&dir.path().join("x.npz"), &[("x", &images())]);
    let out = dir.path().join("int8.onnx").display().to_string();
    let line = ["quantize", &digits("digits.onnx"), "-o", &out, "--calibrate", &data];
    let evaluated = ["--evaluate", &data, "--max-drop", "100%", "--json"];
    let value = run(line.iter().chain(&evaluated)).succeeds().json();
    assert_eq!(value["metric"]["name"], "agreement");
    let warned = value["warnings"].as_array().unwrap();
    assert!(warned.iter().any(|w| w.as_str().unwrap().contains("same samples")), "{warned:?}");
    let value = run(["eval", &out, "--data", &data, "--json"]).succeeds().json();
    assert_eq!((value["task"].as_str(), value["samples"].as_u64()), (Some("none"), Some(6)));
    assert!(value["metrics"]["cosine"].as_f64().unwrap() > 0.9);
    assert!(value["metrics"]["agreement"].is_f64());
}

#[test]
fn numbers_are_scored_by_their_error() {
    let dir = tempdir().unwrap();
    let truth = Tensor::zeros(DType::F32, vec![SAMPLES, 10]).unwrap();
    let data = save(&dir.path().join("xy.npz"), &[("x", &images()), ("y", &truth)]);
    let line = ["eval", &digits("digits.onnx"), "--data", &data, "--json"];
    let value = run(line).succeeds().json();
    assert_eq!(value["task"], "regress");
    assert!(value["metrics"]["mse"].as_f64().unwrap() > 0.0);
    assert!(value["metrics"]["cosine"].as_f64().unwrap() > 0.999_999);
    let short = Tensor::zeros(DType::F32, vec![SAMPLES, 3]).unwrap();
    let data = save(&dir.path().join("short.npz"), &[("x", &images()), ("y", &short)]);
    let line = ["eval", &digits("digits.onnx"), "--data", &data];
    run(line).fails(3, &["logits", "10 values"]);
}
