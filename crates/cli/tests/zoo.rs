//! Real networks (`FEWBIT_ZOO`): the accuracy that is promised for them.

mod process;

use fewbit::{CompareOptions, Data, Mode};
use process::{Ran, fewbit, run, zoo};
use serde_json::Value;
use std::path::Path;
use tempfile::tempdir;

fn quantize(
    model: &Path,
    card: &Path,
    calibration: &str,
    evaluation: &str,
    max_drop: &str,
) -> Value {
    let dir = tempdir().unwrap();
    quantize_to(&dir.path().join("int8.onnx"), model, card, calibration, evaluation, max_drop)
}

fn quantize_to(
    out: &Path,
    model: &Path,
    card: &Path,
    calibration: &str,
    evaluation: &str,
    max_drop: &str,
) -> Value {
    let data = |range: &str| format!("{}@{range}", card.display());
    let mut command = fewbit();
    command.arg("quantize").arg(model).arg("-o").arg(out);
    command.args(["--calibrate", &data(calibration), "--evaluate", &data(evaluation)]);
    command.args(["--max-drop", max_drop, "--json"]);
    let ran = Ran::of(command.output().unwrap());
    ran.succeeds().json()
}

/// Calibrated on the first 200 images, measured on others.
fn cifar_loses_little(model: &str, evaluation: &str, samples: u64, most_flips: u64) {
    let (Some(model), Some(card)) = (zoo(model), zoo("cifar10.toml")) else {
        return;
    };
    let value = quantize(&model, &card, "0..200", evaluation, "0.2");
    let metric = &value["metric"];
    assert_eq!(metric["samples"], samples);
    assert!(metric["drop_points"].as_f64().unwrap() <= 0.2, "{metric}");
    assert!(metric["flips"].as_u64().unwrap() <= most_flips, "{metric}");
}

#[test]
fn resnet_20_loses_at_most_a_fifth_of_a_point() {
    cifar_loses_little("cifar10/cifar10_resnet20_fp32.onnx", "200..10000", 9800, 140);
}

#[test]
fn resnet_32_loses_at_most_a_fifth_of_a_point() {
    cifar_loses_little("cifar10/cifar10_resnet32_fp32.onnx", "200..10000", 9800, 170);
}

#[test]
fn resnet_44_loses_at_most_a_fifth_of_a_point() {
    // The first half, with half of the 200 that docs/accuracy.md has for all: it is the slowest.
    cifar_loses_little("cifar10/cifar10_resnet44_fp32.onnx", "200..5000", 4800, 100);
}

#[test]
fn efficientnet_lite0_loses_at_most_a_point() {
    let (Some(model), Some(card)) =
        (zoo("efficientnet-lite0/efficientnet_lite0_fp32.onnx"), zoo("imagenet.toml"))
    else {
        return;
    };
    if cfg!(debug_assertions) {
        eprintln!("skipped: a thousand pictures take minutes without --release");
        return;
    }
    let line = ["eval", model.to_str().unwrap(), "--data", card.to_str().unwrap(), "--json"];
    let float = run(line).succeeds().json();
    assert_eq!(float["samples"], 1000);
    let top1 = float["metrics"]["top1"].as_f64().unwrap();
    assert!((top1 - 0.782).abs() <= 0.005, "float top-1 is {top1}");

    let dir = tempdir().unwrap();
    let out = dir.path().join("int8.onnx");
    let value = quantize_to(&out, &model, &card, "0..100", "100..1000", "1%");
    let metric = &value["metric"];
    assert_eq!(metric["samples"], 900);
    assert!(metric["drop_points"].as_f64().unwrap() <= 1.0, "{metric}");
    assert!(metric["flips"].as_u64().unwrap() <= 40, "{metric}");
    let bytes = |which: &str| value[which]["bytes"].as_f64().unwrap();
    assert!(bytes("quantized") <= 0.275 * bytes("float"));
    let layers = value["layers"].as_array().unwrap();
    let told = |l: &Value| l["quantized"] == true || !l["reason"].as_str().unwrap().is_empty();
    assert!(layers.iter().all(told), "{layers:#?}");

    let quantized = fewbit::load(&out).unwrap().model;
    let data = Data::open(card.to_str().unwrap()).unwrap();
    let options = CompareOptions {
        mode_a: Mode::Integer,
        mode_b: Mode::Simulate,
        threads: 0,
        per_layer: false,
    };
    let modes = fewbit::compare(&quantized, &quantized, &data, options, &fewbit::Silent).unwrap();
    assert_eq!(modes.flips, 0, "of {} samples", modes.samples);
}
