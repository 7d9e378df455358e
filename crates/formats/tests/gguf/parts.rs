//! Models divided into files.

use fewbit_core::Error;
use fewbit_core::codec::block::BlockType;
use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::gguf::{self, Metadata, Part, PartLimits, TensorInfo, Writer};
use std::path::{Path, PathBuf};

const NONE: OutputOptions =
    OutputOptions { inputs: Vec::new(), keep_existing: false, expected_bytes: 0 };

/// Seven tensors of growing size; the fourth is empty.
fn tensors() -> Vec<TensorInfo> {
    let info = |i: usize| TensorInfo {
        name: format!("tensor.{}", "x".repeat(i)),
        shape: vec![if i == 3 { 0 } else { 3 + i }, 4 * i + 1],
        ty: BlockType::F32,
    };
    (0..7).map(info).collect()
}

fn metadata(alignment: u32) -> Metadata {
    let mut metadata: Metadata = [("general.architecture", "llama")].into_iter().collect();
    metadata.set("general.alignment", alignment);
    metadata
}

fn byte(tensor: usize, i: usize) -> u8 {
    (tensor * 37 + i) as u8
}

fn create(path: &Path, limits: PartLimits, options: &OutputOptions) -> (Writer, Vec<PathBuf>) {
    let parts = gguf::divide(&metadata(64), &tensors(), limits).unwrap();
    let paths = gguf::part_paths(path, parts.len(), limits).unwrap();
    (Writer::create_parts(&paths, &parts, &tensors(), options).unwrap(), paths)
}

fn fill(writer: &mut Writer) {
    for (no, info) in tensors().iter().enumerate() {
        let bytes: Vec<u8> = (0..info.byte_len().unwrap()).map(|i| byte(no, i)).collect();
        for piece in bytes.chunks(50) {
            writer.write(&info.name, piece).unwrap();
        }
    }
}

fn sizes(parts: &[Part]) -> Vec<u64> {
    parts.iter().map(|part| part.bytes).collect()
}

#[test]
fn parts_hold_what_the_limits_allow_and_all_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    for (bytes, tensors_of_part, count) in [
        (Some(1300), None, 4),
        (None, Some(2), 4),
        (Some(1 << 40), None, 1),
        (Some(2000), Some(3), 3),
    ] {
        let limits = PartLimits { bytes, tensors: tensors_of_part };
        let (mut writer, paths) = create(&dir.path().join("m.gguf"), limits, &NONE);
        assert_eq!(paths.len(), count, "{limits:?}");
        fill(&mut writer);
        assert_eq!(writer.next_tensor(), None);
        let written = writer.finish().unwrap();
        let parts = gguf::divide(&metadata(64), &tensors(), limits).unwrap();
        let found: Vec<u64> = paths.iter().map(|p| p.metadata().unwrap().len()).collect();
        assert_eq!((sizes(&parts), written), (found.clone(), found.iter().sum()), "{limits:?}");
        assert!(found.iter().all(|&size| size <= bytes.unwrap_or(u64::MAX)));
        let back = gguf::read(&paths[count - 1]).unwrap();
        assert_eq!(back.metadata(), &metadata(64));
        for (no, (tensor, info)) in back.tensors().iter().zip(tensors()).enumerate() {
            assert_eq!(tensor.info, info);
            assert!(tensor.bytes.as_ref().iter().enumerate().all(|(i, &b)| b == byte(no, i)));
        }
        assert_eq!(back.tensors().len(), 7);
    }
}

#[test]
fn without_limits_the_file_is_that_of_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("any.name");
    let (mut writer, paths) = create(&path, PartLimits::default(), &NONE);
    assert_eq!(paths, std::slice::from_ref(&path));
    fill(&mut writer);
    writer.finish().unwrap();
    let plain = dir.path().join("plain");
    let mut writer = Writer::create(&plain, &metadata(64), &tensors(), &NONE).unwrap();
    fill(&mut writer);
    writer.finish().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), std::fs::read(plain).unwrap());
}

#[test]
fn all_files_appear_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let left = || std::fs::read_dir(dir.path()).unwrap().count();
    let limits = PartLimits { bytes: None, tensors: Some(3) };
    let (path, keep) = (dir.path().join("m.gguf"), OutputOptions { keep_existing: true, ..NONE });
    let (mut writer, paths) = create(&path, limits, &keep);
    fill(&mut writer);
    drop(writer);
    assert_eq!(left(), 0);
    let (mut writer, _) = create(&path, limits, &keep);
    fill(&mut writer);
    // Somebody else takes the name of the last one to appear.
    std::fs::write(&paths[0], b"theirs").unwrap();
    assert_eq!(writer.finish().unwrap_err().stable_code(), "FB-2102");
    assert_eq!((left(), std::fs::read(&paths[0]).unwrap()), (1, b"theirs".to_vec()));
}

#[test]
fn limits_and_names_that_cannot_be_are_refused() {
    let divide = |bytes, tensors_of_part| {
        let limits = PartLimits { bytes, tensors: tensors_of_part };
        gguf::divide(&metadata(32), &tensors(), limits).map(|parts| parts.len())
    };
    let mut limit = 100;
    let refused = |error: Error| {
        assert_eq!(error.stable_code(), "FB-2106");
        let needed = error.advice().and_then(|advice| advice.split(' ').nth(3)?.parse().ok());
        (needed.unwrap(), error.to_string())
    };
    // The advice leads to the least size that does.
    let mut said = Vec::new();
    while let Err(error) = divide(Some(limit), None) {
        let (needed, what) = refused(error);
        assert!(needed > limit && divide(Some(needed - 1), None).is_err());
        limit = needed;
        said.push(what);
    }
    assert!(said[0].contains("the metadata"), "{said:?}");
    assert!(said.last().unwrap().contains("\"tensor.xxxxxx\""), "{said:?}");
    let many: Vec<TensorInfo> = (0..600)
        .map(|i| TensorInfo { name: format!("t{i}"), shape: vec![1], ty: BlockType::F32 })
        .collect();
    let one = PartLimits { bytes: None, tensors: Some(1) };
    let error = gguf::divide(&metadata(32), &many, one).unwrap_err();
    assert_eq!(error.stable_code(), "FB-2104");
    for name in ["model", "model.bin", ".gguf", "m-00001-of-00003.gguf"] {
        let error = gguf::part_paths(Path::new(name), 2, one).unwrap_err();
        assert_eq!(error.stable_code(), "FB-2103", "{name}");
    }
    let paths = gguf::part_paths(Path::new("a/m-v2.GGUF"), 2, one).unwrap();
    assert_eq!(paths[1], Path::new("a/m-v2-00002-of-00002.gguf"));
}
