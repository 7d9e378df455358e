//! Outputs are whole or not there, and never an input.

mod process;

use process::{Ran, digits, fewbit, names, quantize, send, wait_for_handlers};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;
use tempfile::tempdir;

fn quantize_copy(model: &Path, out: &Path, more: &[&str]) -> Ran {
    let mut command = fewbit();
    command.arg("quantize").arg(model).arg("-o").arg(out).args(process::calibrated()).args(more);
    Ran::of(command.output().unwrap())
}

#[test]
fn the_input_is_never_the_output() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::copy(digits("digits.onnx"), at("model.onnx")).unwrap();
    let before = fs::read(at("model.onnx")).unwrap();
    symlink(at("model.onnx"), at("symbolic.onnx")).unwrap();
    fs::hard_link(at("model.onnx"), at("hard.onnx")).unwrap();
    for out in ["model.onnx", "./model.onnx", "symbolic.onnx", "hard.onnx"] {
        for force in [&[][..], &["--force"]] {
            quantize_copy(&at("model.onnx"), &at(out), force)
                .fails(2, &["the output is the input"]);
        }
    }
    assert_eq!(fs::read(at("model.onnx")).unwrap(), before);
    assert_eq!(names(dir.path()), ["hard.onnx", "model.onnx", "symbolic.onnx"]);
}

#[test]
fn existing_files_are_replaced_only_by_force() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out.onnx");
    fs::write(&out, b"precious").unwrap();
    quantize(&out, &[]).fails(2, &["exists", "--force"]);
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    quantize(&out, &["--force"]).succeeds();
    assert!(fs::metadata(&out).unwrap().len() > 10_000);
    assert_eq!(names(dir.path()), ["out.onnx"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_known_before_the_work() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    quantize(&dir.path().join("file/out.onnx"), &[]).fails(5, &["file/out.onnx"]);
    quantize(dir.path(), &["--force"]).fails(2, &["directory"]);
    quantize(&dir.path().join("new/folder/out.onnx"), &[]).succeeds();
}

fn start(args: &[&str]) -> Child {
    let mut command = fewbit();
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn signals_end_with_their_exit_codes() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut child = start(&["bench", &digits("digits.onnx"), "--seconds", "60"]);
        wait_for_handlers(&child);
        send(signal, &child);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
    }
}

/// However it is ended: no output, or the whole one; after signals that can be handled, no
/// partial file either.
#[test]
fn an_interrupted_job_leaves_nothing_or_the_whole_file() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("golden.onnx");
    let begun = Instant::now();
    quantize(&out, &[]).succeeds();
    let whole = begun.elapsed();
    let golden = fs::read(&out).unwrap();
    let [flag, data] = process::calibrated();
    for turn in 0..12u32 {
        let signal = ["-KILL", "-INT", "-TERM"][turn as usize % 3];
        let folder = dir.path().join(format!("turn{turn}"));
        let out = folder.join("out.onnx");
        let mut child =
            start(&["quantize", &digits("digits.onnx"), "-o", out.to_str().unwrap(), &flag, &data]);
        if signal != "-KILL" {
            wait_for_handlers(&child);
        }
        std::thread::sleep(whole * turn / 12);
        if child.try_wait().unwrap().is_none() {
            send(signal, &child);
        }
        child.wait().unwrap();
        if let Ok(bytes) = fs::read(&out) {
            assert_eq!(bytes, golden, "{signal} left a damaged file");
        }
        let partial = folder.exists() && names(&folder).iter().any(|n| n.contains(".partial-"));
        assert!(signal == "-KILL" || !partial, "{signal} left a partial file");
    }
}
