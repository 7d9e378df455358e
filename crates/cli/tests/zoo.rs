//! Real networks (`FEWBIT_ZOO`): the accuracy that is promised for them.

mod process;

use process::{Ran, fewbit, zoo};
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
    let data = |range: &str| format!("{}@{range}", card.display());
    let mut command = fewbit();
    command.arg("quantize").arg(model).arg("-o").arg(dir.path().join("int8.onnx"));
    command.args(["--calibrate", &data(calibration), "--evaluate", &data(evaluation)]);
    command.args(["--max-drop", max_drop, "--json"]);
    let ran = Ran::of(command.output().unwrap());
    ran.succeeds().json()
}

#[test]
fn resnet_20_loses_at_most_a_fifth_of_a_point() {
    let (Some(model), Some(card)) =
        (zoo("cifar10/cifar10_resnet20_fp32.onnx"), zoo("cifar10.toml"))
    else {
        return;
    };
    let value = quantize(&model, &card, "0..200", "200..10000", "0.2");
    let metric = &value["metric"];
    assert_eq!(metric["samples"], 9800);
    assert!(metric["drop_points"].as_f64().unwrap() <= 0.2, "{metric}");
    assert!(metric["flips"].as_u64().unwrap() <= 140, "{metric}");
}

#[test]
fn efficientnet_lite0_loses_at_most_a_point() {
    let (Some(model), Some(card)) =
        (zoo("efficientnet-lite0/efficientnet_lite0_fp32.onnx"), zoo("imagenet.toml"))
    else {
        return;
    };
    let value = quantize(&model, &card, "0..100", "100..1000", "1%");
    let metric = &value["metric"];
    assert!(metric["drop_points"].as_f64().unwrap() <= 1.0, "{metric}");
    assert!(metric["flips"].as_u64().unwrap() <= 40, "{metric}");
    let bytes = |which: &str| value[which]["bytes"].as_f64().unwrap();
    assert!(bytes("quantized") <= 0.275 * bytes("float"));
}
