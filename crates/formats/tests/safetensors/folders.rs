//! Folders, their index, and what an index may not do.

use crate::samples::*;
use fewbit_core::Error;
use fewbit_formats::safetensors::{self, INDEX_NAME};
use std::path::Path;

fn shard(name: &str) -> Vec<u8> {
    of(&[entry(name, "U8", "[4]", 0, 4)], name.repeat(4).as_bytes())
}

/// A folder of two files, `a` in the first and `b` in the second, with this index.
fn folder(index: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("1.safetensors"), shard("a")).unwrap();
    std::fs::write(dir.path().join("2.safetensors"), shard("b")).unwrap();
    std::fs::write(dir.path().join(INDEX_NAME), index).unwrap();
    dir
}

const SOUND: &str =
    r#"{"metadata":{"total_size":8},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#;

fn refusal(path: &Path) -> Error {
    safetensors::read(path).expect_err("must be refused")
}

#[test]
fn a_folder_is_one_model() {
    let dir = folder(SOUND);
    for path in [dir.path().to_path_buf(), dir.path().join(INDEX_NAME)] {
        let found = safetensors::read(&path).unwrap();
        assert_eq!(found.files().len(), 2);
        let b = found.require("b").unwrap();
        assert_eq!((b.bytes.as_ref(), b.file), (&b"bbbb"[..], 1));
    }
}

#[test]
fn a_folder_without_an_index() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(refusal(dir.path()).stable_code(), "FB-3513");
    std::fs::write(dir.path().join("weights.safetensors"), shard("a")).unwrap();
    assert_eq!(safetensors::read(dir.path()).unwrap().tensors()[0].name, "a");
    std::fs::write(dir.path().join("other.safetensors"), shard("b")).unwrap();
    assert_eq!(refusal(dir.path()).stable_code(), "FB-3513");
    std::fs::write(dir.path().join("model.safetensors"), shard("c")).unwrap();
    assert_eq!(safetensors::read(dir.path()).unwrap().tensors()[0].name, "c");
}

#[test]
fn hostile_indices() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("x.safetensors"), shard("x")).unwrap();
    let absolute = outside.path().join("x.safetensors").display().to_string();
    let map = |entries: &str| format!(r#"{{"weight_map":{{{entries}}}}}"#);
    let cases = [
        ("no JSON", "{".to_string(), "FB-3510", "byte"),
        ("no object", "[]".into(), "FB-3510", "a list"),
        ("no map", r#"{"metadata":{}}"#.into(), "FB-3510", "weight_map"),
        ("no file name", map(r#""a":7"#), "FB-3510", "\"a\" is 7"),
        ("missing", map(r#""a":"3.safetensors""#), "FB-3511", "missing"),
        ("parent", map(r#""a":"../x.safetensors""#), "FB-3511", "no file of this folder"),
        ("itself", map(r#""a":".""#), "FB-3511", "no file of this folder"),
        ("below", map(r#""a":"./1.safetensors""#), "FB-3511", "no file of this folder"),
        ("absolute", map(&format!(r#""a":{absolute:?}"#)), "FB-3511", "no file of this folder"),
        ("empty", map(r#""a":"""#), "FB-3511", "no file of this folder"),
        ("twice", map(r#""a":"1.safetensors","a":"2.safetensors""#), "FB-3503", "twice"),
        ("elsewhere", map(r#""a":"2.safetensors""#), "FB-3512", "in no file"),
        (
            "swapped",
            map(r#""a":"2.safetensors","b":"1.safetensors""#),
            "FB-3512",
            "should lie in \"2.safetensors\"",
        ),
        ("itself as weights", map(&format!(r#""a":"{INDEX_NAME}""#)), "FB-3501", INDEX_NAME),
    ];
    for (name, index, code, message) in cases {
        let dir = folder(&index);
        let error = refusal(dir.path());
        assert_eq!(error.stable_code(), code, "{name}: {error:?}");
        assert!(error.to_string().contains(message), "{name}: {error}");
        assert_eq!(error.kind().exit_code(), 3, "{name}");
    }
}

#[test]
fn a_tensor_in_two_files() {
    let dir = folder(SOUND);
    let both = of(&[entry("a", "U8", "[4]", 0, 4), entry("b", "U8", "[4]", 4, 8)], b"aaaabbbb");
    std::fs::write(dir.path().join("2.safetensors"), both).unwrap();
    let error = refusal(dir.path());
    assert_eq!(error.stable_code(), "FB-3512");
    assert!(error.to_string().contains("2.safetensors"), "{error}");
}

#[test]
fn one_file_under_two_names() {
    let dir = folder(SOUND);
    std::fs::remove_file(dir.path().join("2.safetensors")).unwrap();
    std::fs::hard_link(dir.path().join("1.safetensors"), dir.path().join("2.safetensors")).unwrap();
    assert_eq!(refusal(dir.path()).stable_code(), "FB-3511");
}

#[test]
fn a_short_file_among_several_is_named() {
    let dir = folder(SOUND);
    let whole = shard("b");
    std::fs::write(dir.path().join("2.safetensors"), &whole[..whole.len() - 1]).unwrap();
    let error = refusal(dir.path());
    assert_eq!(error.stable_code(), "FB-3506");
    assert!(error.place().contains("2.safetensors"), "{error}");
    assert!(error.advice().unwrap().contains("cut off"));
}

#[test]
fn links_in_a_folder_are_followed() {
    let store = tempfile::tempdir().unwrap();
    std::fs::write(store.path().join("blob"), shard("a")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("model.safetensors");
    std::os::unix::fs::symlink(store.path().join("blob"), link).unwrap();
    assert_eq!(safetensors::read(dir.path()).unwrap().tensors().len(), 1);
}
