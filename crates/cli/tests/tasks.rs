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
fn samples_that_do_not_fit_are_answered_with_the_steps_that_make_them_fit() {
    let dir = tempdir().unwrap();
    let wide = Tensor::from_slice(vec![2, 8, 8, 1], &[1u8; 128]).unwrap();
    let data = save(&dir.path().join("x.npz"), &[("x", &wide)]);
    let (model, out) = (digits("digits.onnx"), dir.path().join("o.onnx").display().to_string());
    let texts = ["must be f32[N,1,8,8], found u8[1, 8, 8, 1]", "sample 0 of", "[input]", "layout"];
    run(["eval", &model, "--data", &data]).fails(3, &texts);
    run(["quantize", &model, "-o", &out, "--calibrate", &data]).fails(3, &texts);
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.display().to_string();
    run(["eval", &model, "--data", &empty]).fails(3, &["no samples", ".jpg, .jpeg and .png"]);
}

#[test]
fn data_that_hold_nan_are_warned_of_and_refused() {
    let dir = tempdir().unwrap();
    let mut values = images().to_f32().unwrap();
    values[3] = f32::NAN;
    let some = Tensor::from_slice(vec![SAMPLES, 1, 8, 8], &values).unwrap();
    let all = Tensor::from_slice(vec![SAMPLES, 1, 8, 8], &[f32::NAN; SAMPLES * 64]).unwrap();
    let some = save(&dir.path().join("some.npz"), &[("x", &some)]);
    let all = save(&dir.path().join("all.npz"), &[("x", &all)]);
    let (model, out) = (digits("digits.onnx"), dir.path().join("o.onnx").display().to_string());
    let line = ["quantize", &model, "-o", &out, "--json", "--calibrate"];
    run(line.iter().copied().chain([&*all])).fails(3, &[]);
    let report = run(line.iter().copied().chain([&*some])).succeeds().json();
    assert!(report["warnings"].to_string().contains("holds 1 NaN"), "{}", report["warnings"]);
    // One sample of six has outputs that are no numbers.
    let value = run(["eval", &model, "--data", &some, "--json"]).succeeds().json();
    assert_eq!(
        (value["not_finite"].as_u64(), value["metrics"]["cosine"].is_null()),
        (Some(1), true)
    );
    run(["eval", &model, "--data", &some]).fails(0, &["warning", "1 of 6 samples"]);
    let compared = run(["compare", &model, &model, "--data", &some]);
    compared.fails(0, &["1 of 6 samples"]);
    assert!(compared.stdout.contains("not comparable"), "{}", compared.stdout);
    let bounded = ["--evaluate", &some, "--max-drop", "1%", "--force"];
    let report = run(line.iter().copied().chain([&*some]).chain(bounded)).json();
    assert_eq!(report["metric"]["float_not_finite"], 1);
    assert_eq!(report["verdict"], "missed");
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
