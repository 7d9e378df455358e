//! Writing one file and folders.

use crate::samples::*;
use fewbit_core::{DType, Error};
use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::safetensors::{self, FolderWriter, INDEX_NAME, TensorSpec, Writer, sort};
use std::path::Path;

fn spec(name: &str, dtype: DType, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: shape.to_vec() }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const NONE: OutputOptions =
    OutputOptions { inputs: Vec::new(), keep_existing: false, expected_bytes: 0 };

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let found = read(small()).unwrap();
    let specs: Vec<TensorSpec> = found.tensors().iter().map(TensorSpec::from).collect();
    let mut writer = Writer::create(&path, found.metadata(), &specs, &NONE).unwrap();
    for tensor in found.tensors() {
        for chunk in tensor.bytes.as_ref().chunks(5) {
            let (next, missing) = writer.next_tensor().unwrap();
            assert!(next == tensor.name && missing >= chunk.len());
            writer.write(&tensor.name, chunk).unwrap();
        }
    }
    assert_eq!(writer.next_tensor(), None);
    let bytes = writer.finish().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
    let again = safetensors::read(&path).unwrap();
    assert_eq!(again.metadata(), found.metadata());
    for (a, b) in again.tensors().iter().zip(found.tensors()) {
        assert_eq!((&a.name, a.dtype, &a.shape), (&b.name, b.dtype, &b.shape));
        assert_eq!(a.bytes.as_ref(), b.bytes.as_ref());
    }
    // The reference implementation aligns the data to 8 bytes.
    let header = u64::from_le_bytes(std::fs::read(&path).unwrap()[..8].try_into().unwrap());
    assert_eq!(header % 8, 0);
}

/// A step that no writer may take.
type Wrong = fn(&mut Writer) -> Result<(), Error>;

#[test]
fn an_unfinished_file_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let specs =
        [spec("a", DType::U8, &[4]), spec("none", DType::U8, &[0]), spec("b", DType::U8, &[1])];
    let create = || Writer::create(&path, &[], &specs, &NONE).unwrap();
    let wrong: [Wrong; 4] = [
        |w| w.write("b", b"x"),
        |w| w.write("a", b"12345"),
        |w| w.write("a", b"1234").and_then(|()| w.write("a", b"5")),
        |w| w.write("a", b"1234").and_then(|()| w.write("b", b"12")),
    ];
    for change in wrong {
        assert_eq!(change(&mut create()).unwrap_err().kind().exit_code(), 70);
    }
    let mut writer = create();
    writer.write("a", b"1234").unwrap();
    writer.write("none", b"").unwrap();
    assert_eq!(writer.finish().unwrap_err().kind().exit_code(), 70);
    assert!(names(dir.path()).is_empty());
}

/// Name, metadata, tensors, code.
type Refused<'a> = (&'a str, &'a [(String, String)], Vec<TensorSpec>, &'a str);

#[test]
fn what_would_not_be_read_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let twice = [("a".to_string(), String::new()), ("a".to_string(), String::new())];
    let cases: Vec<Refused> = vec![
        ("same name", &[], vec![spec("a", DType::U8, &[1]), spec("a", DType::U8, &[1])], "FB-3503"),
        ("same key", &twice, vec![], "FB-3503"),
        ("reserved name", &[], vec![spec("__metadata__", DType::U8, &[1])], "FB-3509"),
        ("no such type", &[], vec![spec("a", DType::I4, &[2])], "FB-4501"),
        ("half a byte", &[], vec![spec("a", DType::F4E2M1, &[3])], "FB-3505"),
        ("overflow", &[], vec![spec("a", DType::F32, &[1 << 40, 1 << 40])], "FB-3505"),
        (
            "sum",
            &[],
            vec![spec("a", DType::U8, &[1 << 62]), spec("b", DType::U8, &[1 << 62])],
            "FB-3505",
        ),
    ];
    for (name, metadata, specs, code) in cases {
        let error = Writer::create(&path, metadata, &specs, &NONE).unwrap_err();
        assert_eq!(error.stable_code(), code, "{name}: {error:?}");
        assert!(error.place().contains("x.safetensors"), "{name}: {error}");
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn an_input_is_never_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, small()).unwrap();
    let link = dir.path().join("link.safetensors");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let hard = dir.path().join("hard.safetensors");
    std::fs::hard_link(&path, &hard).unwrap();
    let options = OutputOptions { inputs: vec![path.clone()], ..NONE };
    for output in [&path, &link, &hard] {
        let error = Writer::create(output, &[], &[], &options).unwrap_err();
        assert_eq!(error.stable_code(), "FB-2101");
    }
    let specs = [spec("a", DType::U8, &[4]), spec("b", DType::U8, &[4])];
    // Neither as one of our files, nor as one that would hide ours.
    for shard_bytes in [1 << 30, 4] {
        let folder = FolderWriter::create(dir.path(), &[], &specs, shard_bytes, &options);
        assert_eq!(folder.unwrap_err().stable_code(), "FB-2101");
    }
    assert_eq!(std::fs::read(&path).unwrap(), small());
}

fn write_folder(dir: &Path, shard_bytes: u64) -> Result<u64, Error> {
    let specs: Vec<TensorSpec> =
        ["a", "b", "c"].iter().map(|name| spec(name, DType::U8, &[4])).collect();
    let metadata = [("format".to_string(), "pt".to_string())];
    let mut writer = FolderWriter::create(dir, &metadata, &specs, shard_bytes, &NONE)?;
    for name in ["a", "b", "c"] {
        assert_eq!(writer.next_tensor(), Some((name, 4)));
        writer.write(name, name.repeat(4).as_bytes())?;
    }
    writer.finish()
}

#[test]
fn a_folder_of_one_or_several_files() {
    let dir = tempfile::tempdir().unwrap();
    for (shard_bytes, count) in [(100, 1), (8, 2), (1, 3), (100, 1)] {
        // What an earlier run left must not be read instead.
        write_folder(dir.path(), shard_bytes).unwrap();
        let found = safetensors::read(dir.path()).unwrap();
        assert_eq!(found.files().len(), count, "{shard_bytes}");
        assert_eq!(found.metadata().len(), 1);
        for name in ["a", "b", "c"] {
            assert_eq!(found.require(name).unwrap().bytes.as_ref(), name.repeat(4).as_bytes());
        }
        assert_eq!(dir.path().join(INDEX_NAME).exists(), count > 1);
        assert_eq!(dir.path().join("model.safetensors").exists(), count == 1);
    }
    let index = tempfile::tempdir().unwrap();
    write_folder(index.path(), 8).unwrap();
    let text = std::fs::read_to_string(index.path().join(INDEX_NAME)).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["metadata"]["total_size"], 12);
    assert_eq!(value["weight_map"]["c"], "model-00002-of-00002.safetensors");
}

#[test]
fn an_unfinished_folder_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let specs = [spec("a", DType::U8, &[4]), spec("b", DType::U8, &[4])];
    let mut writer = FolderWriter::create(dir.path(), &[], &specs, 4, &NONE).unwrap();
    writer.write("a", b"aaaa").unwrap();
    assert_eq!(writer.finish().unwrap_err().kind().exit_code(), 70);
    assert!(names(dir.path()).is_empty());
    let many: Vec<TensorSpec> = (0..600).map(|i| spec(&i.to_string(), DType::U8, &[1])).collect();
    let error = FolderWriter::create(dir.path(), &[], &many, 1, &NONE).unwrap_err();
    assert_eq!(error.stable_code(), "FB-2104");
}

#[test]
fn the_usual_order() {
    let mut specs = [
        spec("b", DType::U8, &[1]),
        spec("z", DType::F32, &[1]),
        spec("a", DType::U8, &[1]),
        spec("m", DType::F16, &[1]),
    ];
    sort(&mut specs);
    let order: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(order, ["z", "m", "a", "b"]);
}
