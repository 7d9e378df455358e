//! Terminals of all kinds, closed pipes, and shells.

mod process;

use process::{Ran, digits, fewbit, run};
use std::io::Read;
use std::process::Stdio;

fn inspect() -> std::process::Command {
    let mut command = fewbit();
    command.args(["inspect", &digits("digits.onnx")]);
    command
}

#[test]
fn colours_follow_flag_and_environment() {
    let colored = |set: &[(&str, &str)], flags: &[&str]| {
        let output = inspect().args(flags).envs(set.iter().copied()).output().unwrap();
        assert!(output.status.success());
        output.stdout.contains(&0x1b)
    };
    assert!(!colored(&[], &[]), "a pipe is no terminal");
    assert!(colored(&[("CLICOLOR_FORCE", "1")], &[]));
    assert!(!colored(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], &[]));
    assert!(colored(&[("NO_COLOR", "1")], &["--color", "always"]));
    assert!(!colored(&[("CLICOLOR_FORCE", "1")], &["--color", "never"]));
}

#[test]
fn a_bare_environment_changes_nothing() {
    let usual = inspect().output().unwrap();
    let mut bare = inspect();
    bare.env_clear().env("LANG", "C").env("TERM", "dumb").env("COLUMNS", "20");
    assert_eq!(bare.output().unwrap().stdout, usual.stdout);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = fewbit()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let code = child.wait().unwrap().code();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn every_shell_gets_completions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = run(["completions", shell]);
        assert!(ran.succeeds().stdout.contains("quantize"), "{shell}");
    }
    run(["completions", "cmd"]).fails(2, &["bash"]);
}

#[test]
fn help_and_version_go_to_stdout() {
    let help = run(["--help"]);
    assert!(help.succeeds().stdout.contains("Exit codes"));
    assert!(run(["quantize", "--help"]).succeeds().stdout.contains("--max-drop"));
    assert!(run(["--version"]).succeeds().stdout.starts_with("fewbit "));
}

#[test]
fn other_formats_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let inspect = |path: String| -> Ran { run(["inspect", &path]) };
    inspect(file("a.onnx", b"\x80\x02}q\x00.")).fails(4, &["pickle", "torch.onnx.export"]);
    inspect(file("b.onnx", b"\x1c\0\0\0TFL3\x14\0")).fails(4, &["TensorFlow Lite"]);
    let gguf = file("c.onnx", b"GGUF\x03\0\0\0");
    run(["plan", &gguf]).fails(4, &["GGUF"]);
    inspect(gguf).fails(3, &["c.onnx", "cut off"]);
    inspect(file("d.onnx", b"")).fails(3, &["empty"]);
    inspect(file("e.onnx", b"hello, world")).fails(3, &["e.onnx"]);
    inspect(dir.path().display().to_string()).fails(3, &["directory"]);
    inspect(file("evil\x1b[2J.onnx", b"hello")).fails(3, &["evil\\u{1b}[2J.onnx"]);
}
