//! The `gguf` package of llama.cpp as judge of what we read and write.

use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::gguf::{self, GgufFile, Value};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;

/// Runs the script; `None` when there is no Python of the oracle environment.
fn oracle(task: &str, path: &Path) -> Option<String> {
    let Some(python) = std::env::var_os("FEWBIT_PYTHON") else {
        eprintln!("skipped: FEWBIT_PYTHON is not set");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf/oracle.py");
    let output = Command::new(python).arg(script).arg(task).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Every tensor decoded by us against the same decoded by the package, bit by bit.
fn check_values(found: &GgufFile, folder: &Path) {
    for tensor in found.tensors() {
        let wanted = std::fs::read(folder.join(format!("{}.f32", tensor.name))).unwrap();
        let wanted: Vec<f32> = bytemuck::pod_collect_to_vec(&wanted);
        let decoded = tensor.to_f32().unwrap().to_vec::<f32>().unwrap();
        let far = decoded.iter().zip(&wanted).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!((far, decoded.len()), (None, wanted.len()), "{}", tensor.name);
    }
}

#[test]
fn files_of_the_package_are_read() {
    let dir = tempfile::tempdir().unwrap();
    if oracle("write", dir.path()).is_none() {
        return;
    }
    let found = gguf::read(&dir.path().join("theirs.gguf")).unwrap();
    assert_eq!(found.tensors().len(), 20);
    check_values(&found, dir.path());
    let metadata = found.metadata();
    assert_eq!(metadata.get("v.u64"), Some(&Value::U64((1 << 63) + 1)));
    assert_eq!(metadata.get("v.i16"), Some(&Value::I16(-30000)));
    assert_eq!(metadata.require::<&str>("v.string").unwrap(), "größe 你");
    assert_eq!(metadata.require::<Vec<i64>>("a.ints").unwrap(), [1, -2, 3]);

    let split = gguf::read(&dir.path().join("split-00002-of-00004.gguf")).unwrap();
    assert_eq!(split.files().len(), 4);
    check_values(&split, dir.path());
    assert_eq!(split.metadata().get("general.name"), metadata.get("general.name"));
}

#[test]
fn our_files_are_read_by_the_package() {
    let dir = tempfile::tempdir().unwrap();
    if oracle("write", dir.path()).is_none() {
        return;
    }
    let theirs = gguf::read(&dir.path().join("theirs.gguf")).unwrap();
    let path = dir.path().join("ours.gguf");
    let options = OutputOptions::default();
    gguf::write(&path, theirs.metadata(), theirs.tensors(), &options).unwrap();
    let described = oracle("describe", &path).unwrap();
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    let original = oracle("describe", &dir.path().join("theirs.gguf")).unwrap();
    assert_eq!(described, serde_json::from_str::<serde_json::Value>(&original).unwrap());
    for (tensor, seen) in theirs.tensors().iter().zip(described["tensors"].as_array().unwrap()) {
        let hash: String =
            Sha256::digest(tensor.bytes.as_ref()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(seen[0], tensor.name.as_str());
        assert_eq!(seen[1], tensor.ty.name());
        assert_eq!(seen[3], hash.as_str(), "{}", tensor.name);
    }
}
