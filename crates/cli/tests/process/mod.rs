//! Running the binary: what it prints, how it ends, in a folder of its own.

#![allow(dead_code, reason = "each test file uses its own part")]

use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

/// What one run left behind.
pub struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one JSON object of stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("no JSON object: {e}\n{}\n{}", self.stdout, self.stderr))
    }

    /// Checks the exit code and that stderr holds each of the texts.
    #[track_caller]
    pub fn fails(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is not in: {}", self.stderr);
        }
    }

    #[track_caller]
    pub fn succeeds(&self) -> &Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// The binary, with an environment that does not change what it does.
pub fn fewbit() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fewbit"));
    for name in ["FEWBIT_ISA", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    Ran::of(fewbit().args(args).output().unwrap())
}

/// A file of the digits network.
pub fn digits(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/digits");
    root.join(name).to_str().unwrap().to_string()
}

/// Flags that calibrate the digits network on 20 images.
pub fn calibrated() -> [String; 2] {
    ["--calibrate".to_string(), format!("{}@0..20", digits("digits-calib.toml"))]
}

/// Runs `quantize` on the digits network, calibrated on 20 images.
pub fn quantize(out: &Path, more: &[&str]) -> Ran {
    let mut command = fewbit();
    command.args(["quantize", &digits("digits.onnx"), "-o"]).arg(out).args(calibrated()).args(more);
    Ran::of(command.output().unwrap())
}

/// Names in a folder, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A file of the zoo, where there is one.
pub fn zoo(name: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("FEWBIT_ZOO") else {
        eprintln!("skipped: FEWBIT_ZOO is not set");
        return None;
    };
    Some(Path::new(&root).join(name))
}

/// Sends a signal such as `-INT`.
pub fn send(signal: &str, child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
}

/// Waits until the process handles SIGINT and SIGTERM (`man proc`, SigCgt).
pub fn wait_for_handlers(child: &Child) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let caught = |status: String| {
        let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).map(str::trim);
        mask.and_then(|m| u64::from_str_radix(m, 16).ok()).is_some_and(|m| m & 0x4002 == 0x4002)
    };
    let path = format!("/proc/{}/status", child.id());
    while !std::fs::read_to_string(&path).is_ok_and(caught) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}
