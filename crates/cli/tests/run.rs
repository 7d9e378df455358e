//! `fewbit run`: arrays in, arrays out, under the graph's own names.

mod process;

use fewbit::formats::atomic::OutputOptions;
use fewbit::formats::data::{npy, npz};
use fewbit::{DType, Tensor};
use process::{digits, names, run};
use std::path::Path;
use tempfile::tempdir;

fn image() -> Tensor {
    let values: Vec<f32> = (0..64).map(|i| (i % 7) as f32 / 6.0).collect();
    Tensor::from_slice(vec![1, 1, 8, 8], &values).unwrap()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn arrays_go_in_and_come_out() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let options = OutputOptions::default();
    npy::write(&at("x.npy"), &image(), &options).unwrap();
    npz::write(&at("x.npz"), &[("image", &image())], &options).unwrap();
    // NumPy's own default type.
    npy::write(&at("wide.npy"), &image().cast(DType::F64).unwrap(), &options).unwrap();
    let mut outputs = Vec::new();
    for (input, out) in [
        (format!("image={}", text(&at("x.npy"))), "a.npz"),
        (format!("image={}", text(&at("x.npz"))), "b.npz"),
        (text(&at("x.npz")), "c.npz"),
        (text(&at("wide.npy")), "d.npz"),
    ] {
        let line = ["run", &digits("digits.onnx"), "--input", &input, "-o", &text(&at(out))];
        run(line).succeeds();
        let arrays = npz::read(&at(out)).unwrap();
        assert_eq!(arrays[0].0, "logits");
        assert_eq!(arrays[0].1.shape(), [1, 10]);
        outputs.push(arrays[0].1.clone());
    }
    assert!(outputs.iter().all(|o| *o == outputs[0]));
    let out = text(&at("y.npy"));
    run(["run", &digits("digits.onnx"), "-i", &text(&at("x.npy")), "-o", &out]).succeeds();
    assert_eq!(npy::read(&at("y.npy")).unwrap(), outputs[0]);
}

#[test]
fn without_an_output_file_the_values_are_told() {
    let dir = tempdir().unwrap();
    let x = dir.path().join("x.npy");
    npy::write(&x, &image(), &OutputOptions::default()).unwrap();
    let value = run(["run", &digits("digits.onnx"), "-i", &text(&x), "--json"]).succeeds().json();
    let output = &value["outputs"][0];
    assert_eq!((output["name"].as_str(), output["dtype"].as_str()), (Some("logits"), Some("f32")));
    assert_eq!(output["values"].as_array().map(Vec::len), Some(10));
    let ran = run(["run", &digits("digits.onnx"), "-i", &text(&x)]);
    assert!(ran.succeeds().stdout.contains("logits"));
}

#[test]
fn wrong_inputs_are_named() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let options = OutputOptions::default();
    npy::write(&at("x.npy"), &image(), &options).unwrap();
    npy::write(&at("flat.npy"), &Tensor::vector(&[0f32; 64]), &options).unwrap();
    npy::write(&at("bytes.npy"), &Tensor::vector(&[0u8; 64]), &options).unwrap();
    std::fs::write(at("text.npy"), "no array").unwrap();
    let model = digits("digits.onnx");
    let input = |text: String| run(["run", &model, "--input", &text]);
    input(format!("picture={}", text(&at("x.npy")))).fails(2, &["picture", "image"]);
    input(format!("image={}", text(&at("flat.npy")))).fails(3, &["image", "[64]"]);
    input(format!("image={}", text(&at("bytes.npy")))).fails(3, &["image", "u8"]);
    input(format!("image={}", text(&at("text.npy")))).fails(4, &["text.npy"]);
    input(format!("image={}", text(&at("none.npy")))).fails(3, &["none.npy"]);
    let x = text(&at("x.npy"));
    let line = ["run", &model, "--input", &x, "-o", &text(&at("out.txt"))];
    run(line).fails(2, &[".npz or .npy"]);
    let line = ["run", &model, "--input", &x, "-o", &x, "--force"];
    run(line).fails(2, &["the output is the input"]);
    assert_eq!(names(dir.path()), ["bytes.npy", "flat.npy", "text.npy", "x.npy"]);
}

#[test]
fn a_card_turns_an_image_into_an_input() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("x.png"), PNG).unwrap();
    std::fs::write(
        at("card.toml"),
        "path = \".\"\n[input]\nchannels = \"L\"\nscale = 255.0\nlayout = \"NCHW\"\n",
    )
    .unwrap();
    let (model, input) = (digits("digits.onnx"), text(&at("x.png")));
    run(["run", &model, "-i", &input]).fails(2, &["--card"]);
    let line = ["run", &model, "-i", &input, "--card", &text(&at("card.toml"))];
    run(line).succeeds();
}

/// An 8 by 8 grey gradient.
const PNG: &[u8] = include_bytes!("gradient.png");
