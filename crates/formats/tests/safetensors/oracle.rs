//! The `safetensors` package as judge of what we read and write.

use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::safetensors::{self, TensorSpec, Writer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;

/// Runs the script; `None` when there is no Python of the oracle environment.
fn oracle(task: &str, path: &Path) -> Option<String> {
    let Some(python) = std::env::var_os("FEWBIT_PYTHON") else {
        eprintln!("skipped: FEWBIT_PYTHON is not set");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/safetensors/oracle.py");
    let output = Command::new(python).arg(script).arg(task).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn describe(path: &Path) -> Value {
    serde_json::from_str(&oracle("describe", path).unwrap()).unwrap()
}

#[test]
fn both_read_what_the_other_writes() {
    let dir = tempfile::tempdir().unwrap();
    if oracle("write", dir.path()).is_none() {
        return;
    }
    let (theirs, ours) =
        (dir.path().join("theirs.safetensors"), dir.path().join("ours.safetensors"));
    let found = safetensors::read(&theirs).unwrap();
    assert_eq!(found.tensors().len(), 14);
    let specs: Vec<TensorSpec> = found.tensors().iter().map(TensorSpec::from).collect();
    let options = OutputOptions::default();
    let mut writer = Writer::create(&ours, found.metadata(), &specs, &options).unwrap();
    for tensor in found.tensors() {
        writer.write(&tensor.name, tensor.bytes.as_ref()).unwrap();
    }
    writer.finish().unwrap();
    let described = describe(&ours);
    assert_eq!(described, describe(&theirs));
    for tensor in found.tensors() {
        let hash: String =
            Sha256::digest(tensor.bytes.as_ref()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(described["tensors"][&tensor.name][1], hash.as_str(), "{}", tensor.name);
    }
}
