//! The examples are programs that run.

use std::process::Command;

/// Examples of this package, which cargo builds beside its tests.
fn example(name: &str, args: &[&str]) -> String {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    let output = Command::new(folder.join(name)).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn quantize_digits_writes_a_small_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("int8.onnx");
    let text = example("quantize_digits", &[out.to_str().unwrap()]);
    assert!(text.contains("785996 bytes became"), "{text}");
    assert!(std::fs::metadata(out).unwrap().len() < 785_996 * 3 / 10);
}

#[test]
fn run_model_shows_a_value_inside_and_the_output() {
    let text = example("run_model", &[]);
    assert!(text.contains("inside: ") && text.contains("output: logits f32[1, 10]"), "{text}");
}

#[test]
fn custom_operator_runs_only_with_its_row() {
    let text = example("custom_operator", &[]);
    assert!(text.contains("without the row") && text.contains("AbsPlusOne"), "{text}");
    assert!(text.contains("y = [3.0, 1.0, 1.5]"), "{text}");
}
