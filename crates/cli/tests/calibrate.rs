//! Language models calibrated on a text: importance matrices, rounding with second moments, and
//! going on after being killed.

mod process;

use fewbit::formats::gguf;
use process::{Ran, fewbit, names, send};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

/// A folder with stories260k as `model.gguf`, and the text to calibrate on; `None` where there is
/// no zoo.
fn stories() -> Option<(TempDir, String)> {
    let Some(zoo) = std::env::var_os("FEWBIT_ZOO").map(PathBuf::from) else {
        eprintln!("skipped: FEWBIT_ZOO is not set");
        return None;
    };
    let dir = tempdir().unwrap();
    let mut convert = fewbit();
    convert.arg("convert").arg(zoo.join("stories260k")).arg(dir.path().join("model.gguf"));
    Ran::of(convert.output().unwrap()).succeeds();
    let text = zoo.join("text/tinystories_sample.txt");
    Some((dir, text.to_str().unwrap().to_string()))
}

fn command(dir: &Path, out: &str, more: &[&str]) -> std::process::Command {
    let mut command = fewbit();
    command.arg("quantize").arg(dir.join("model.gguf")).arg("-o").arg(dir.join(out)).args(more);
    command
}

fn quantize(dir: &Path, out: &str, more: &[&str]) -> Ran {
    Ran::of(command(dir, out, more).output().unwrap())
}

/// The divergence from the float model on the text.
fn divergence(dir: &Path, file: &str, text: &str) -> f64 {
    let mut eval = fewbit();
    eval.arg("eval").arg(dir.join(file)).arg("--against").arg(dir.join("model.gguf"));
    let ran = Ran::of(eval.args(["--data", text, "--json"]).output().unwrap());
    ran.succeeds().json()["metrics"]["kl_divergence"].as_f64().unwrap()
}

#[test]
fn calibrated_files_are_nearer_and_no_larger() {
    let Some((dir, text)) = stories() else { return };
    let dir = dir.path();
    for ty in ["Q4_0", "IQ4_NL"] {
        let name = |how: &str| format!("{ty}-{how}.gguf");
        quantize(dir, &name("plain"), &["--type", ty]).succeeds();
        let calibrated = quantize(dir, &name("gptq"), &["--type", ty, "--calibrate", &text]);
        calibrated.succeeds();
        let far = divergence(dir, &name("plain"), &text);
        let near = divergence(dir, &name("gptq"), &text);
        assert!(near < 0.7 * far, "{ty}: {near} against {far}");
        let size = |how: &str| fs::metadata(dir.join(name(how))).unwrap().len();
        // Besides the blocks, the name of the text.
        assert!(size("gptq") < size("plain") + 256, "{ty}");
    }
    assert!(!names(dir).iter().any(|n| n.contains("journal")), "{:?}", names(dir));
}

#[test]
fn threads_do_not_change_the_file() {
    let Some((dir, text)) = stories() else { return };
    let bytes = |threads: &str| {
        let out = format!("{threads}.gguf");
        let more = ["--type", "Q4_0", "--calibrate", &text, "--threads", threads];
        quantize(dir.path(), &out, &more).succeeds();
        fs::read(dir.path().join(out)).unwrap()
    };
    let one = bytes("1");
    assert!(bytes("2") == one && bytes("3") == one);
}

#[test]
fn a_folder_gives_the_bytes_that_its_gguf_file_gives() {
    let Some((dir, text)) = stories() else { return };
    let folder = PathBuf::from(std::env::var_os("FEWBIT_ZOO").unwrap()).join("stories260k");
    let mut convert = fewbit();
    convert.arg("convert").arg(&folder).arg(dir.path().join("model.gguf"));
    Ran::of(convert.args(["--type", "f32", "--force"]).output().unwrap()).succeeds();
    for rounding in ["calibrated", "nearest"] {
        let flags = ["--type", "Q4_0", "--calibrate", &text, "--rounding", rounding, "--force"];
        quantize(dir.path(), "file.gguf", &flags).succeeds();
        let mut direct = fewbit();
        direct.arg("quantize").arg(&folder).arg("-o").arg(dir.path().join("folder.gguf"));
        Ran::of(direct.args(flags).output().unwrap()).succeeds();
        let [file, folder] =
            ["file.gguf", "folder.gguf"].map(|name| fs::read(dir.path().join(name)).unwrap());
        assert!(file == folder, "{rounding}");
    }
}

#[test]
fn an_importance_matrix_is_saved_and_taken_back() {
    let Some((dir, text)) = stories() else { return };
    let dir = dir.path();
    let matrix = dir.join("imatrix.gguf");
    let matrix = matrix.to_str().unwrap();
    let more = ["--type", "Q4_0", "--calibrate", &text, "--rounding", "nearest"];
    quantize(dir, "a.gguf", &[&more[..], &["--save-imatrix", matrix]].concat()).succeeds();
    quantize(dir, "b.gguf", &["--type", "Q4_0", "--imatrix", matrix]).succeeds();
    let [a, b] = ["a.gguf", "b.gguf"].map(|name| gguf::read(&dir.join(name)).unwrap());
    for (a, b) in a.tensors().iter().zip(b.tensors()) {
        assert!(a.bytes.as_ref() == b.bytes.as_ref(), "{}", a.name);
    }
    let found = fewbit::formats::imatrix::read(matrix.as_ref()).unwrap();
    assert_eq!(found.entries.len(), 5 * 7);
    let again = dir.join("again.gguf");
    let more = ["--type", "Q4_0", "--calibrate", &text, "--save-imatrix", again.to_str().unwrap()];
    quantize(dir, "c.gguf", &more).succeeds();
    let sequential = fewbit::formats::imatrix::read(&again).unwrap();
    let sums = |m: &fewbit::formats::imatrix::ImportanceMatrix| {
        m.entries["blk.0.attn_q.weight"].sums.clone()
    };
    for (a, b) in sums(&found).iter().zip(sums(&sequential)) {
        assert!((a / b - 1.0).abs() < 1e-4, "{a} {b}");
    }
}

/// Killed again and again, the same command ends with the bytes of a run that nobody disturbed.
#[test]
fn a_killed_job_goes_on_and_gives_the_same_bytes() {
    let Some((dir, text)) = stories() else { return };
    let dir = dir.path();
    let text = format!("{text}@0..1");
    let more = ["--type", "IQ4_NL", "--calibrate", &text, "--threads", "1"];
    let begun = Instant::now();
    quantize(dir, "golden.gguf", &more).succeeds();
    let whole = begun.elapsed();
    let golden = fs::read(dir.join("golden.gguf")).unwrap();
    let mut resumed = false;
    for turn in 0..20u32 {
        let out = format!("out{turn}.gguf");
        let mut child =
            command(dir, &out, &more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // No two turns end at the same moment, whatever the machine's pace.
        let share = turn.wrapping_mul(2_654_435_761) % 1000;
        std::thread::sleep(whole * share / 1000 + Duration::from_millis(u64::from(turn % 3)));
        if child.try_wait().unwrap().is_none() {
            send("-KILL", &child);
        }
        let killed = !child.wait().unwrap().success();
        if let Ok(bytes) = fs::read(dir.join(&out)) {
            assert!(bytes == golden, "turn {turn} left a damaged file");
        }
        if killed {
            // Killed on its way out, it left the whole file.
            let over: &[&str] = if dir.join(&out).exists() { &["--force"] } else { &[] };
            let ran = quantize(dir, &out, &[&more[..], over, &["--json"]].concat());
            resumed |= ran.succeeds().json()["resumed_layers"].as_u64().unwrap() > 0;
        }
        assert!(fs::read(dir.join(&out)).unwrap() == golden, "turn {turn} gave other bytes");
        fs::remove_file(dir.join(&out)).unwrap();
        assert_eq!(names(dir), ["golden.gguf", "model.gguf"], "turn {turn}");
    }
    assert!(resumed, "no turn found a finished layer");
}

#[test]
fn a_journal_of_another_job_is_not_touched() {
    let Some((dir, text)) = stories() else { return };
    let dir = dir.path();
    let journal = dir.join("out.gguf.fewbit-journal");
    fs::create_dir(&journal).unwrap();
    fs::write(journal.join("fingerprint"), "another job").unwrap();
    let more = ["--type", "Q4_0", "--calibrate", &text];
    quantize(dir, "out.gguf", &more).fails(3, &["FB-3715", "out.gguf.fewbit-journal"]);
    assert_eq!(fs::read(journal.join("fingerprint")).unwrap(), b"another job");
    assert!(!dir.join("out.gguf").exists());
    fs::remove_dir_all(&journal).unwrap();
    fs::write(dir.join("out.gguf"), b"precious").unwrap();
    quantize(dir, "out.gguf", &more).fails(2, &["exists", "--force"]);
    assert_eq!(names(dir), ["model.gguf", "out.gguf"]);
}

#[test]
fn flags_that_contradict_are_refused() {
    let Some((dir, text)) = stories() else { return };
    let dir = dir.path();
    let run = |more: &[&str]| quantize(dir, "out.gguf", &[&["--type", "Q4_0"], more].concat());
    run(&["--rounding", "nearest"]).fails(2, &["--calibrate"]);
    run(&["--save-imatrix", "x.gguf"]).fails(2, &["--calibrate"]);
    run(&["--calibrate", &text, "--imatrix", "x.gguf"]).fails(2, &["exclude"]);
    run(&["--calibrate", &text, "--max-memory", "50M"]).fails(5, &["FB-5101", "--rounding"]);
    run(&["--calibrate", &format!("{text}@7..9")]).fails(2, &["FB-2301"]);
    let model = dir.join("model.gguf");
    run(&["--calibrate", &text, "--save-imatrix", model.to_str().unwrap(), "--force"])
        .fails(2, &["input"]);
    let out = dir.join("out.gguf");
    run(&["--calibrate", &text, "--save-imatrix", out.to_str().unwrap()]).fails(2, &["FB-2101"]);
    fs::write(dir.join("x.gguf"), b"precious").unwrap();
    let there = dir.join("x.gguf");
    for rounding in ["calibrated", "nearest"] {
        let save = ["--save-imatrix", there.to_str().unwrap(), "--rounding", rounding];
        run(&[&["--calibrate", text.as_str()][..], &save].concat()).fails(2, &["exists"]);
    }
    fs::remove_file(there).unwrap();
    assert_eq!(names(dir), ["model.gguf"]);
}
