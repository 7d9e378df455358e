//! The same output bytes for any number of threads and any instruction set.

mod process;

use fewbit::Isa;
use process::{Ran, calibrated, digits, fewbit};
use tempfile::tempdir;

#[test]
fn quantized_files_do_not_depend_on_the_machine() {
    let dir = tempdir().unwrap();
    let mut files = Vec::new();
    for isa in Isa::available() {
        for threads in ["1", "2", "3"] {
            let out = dir.path().join(format!("{isa}-{threads}.onnx"));
            let mut command = fewbit();
            command.env("FEWBIT_ISA", isa.to_string()).args(["quantize", &digits("digits.onnx")]);
            command.args(calibrated()).args(["--threads", threads, "-o"]).arg(&out);
            command.args(["--calibration", "entropy"]);
            Ran::of(command.output().unwrap()).succeeds();
            files.push((out.clone(), std::fs::read(out).unwrap()));
        }
    }
    let (first, bytes) = &files[0];
    for (path, other) in &files[1..] {
        assert!(bytes == other, "{} differs from {}", path.display(), first.display());
    }
}
