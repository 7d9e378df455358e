//! What must be accepted.

use crate::samples::*;
use fewbit_core::codec::block::BlockType;
use fewbit_formats::gguf::{Array, Value};

#[test]
fn tensors_are_views_with_their_types() {
    let found = read(File::small().bytes()).unwrap();
    assert_eq!(found.version(), 3);
    let b = found.require("b").unwrap();
    assert_eq!((b.ty, &b.shape[..], b.ne()), (BlockType::Q8_0, &[2, 32][..], vec![32, 2]));
    assert_eq!((b.row_elements(), b.rows()), (32, 2));
    assert!(b.bytes.is_view());
    assert_eq!(b.bytes.as_ref(), (32..100).collect::<Vec<u8>>());
    assert_eq!(found.get("c").unwrap().bytes.as_ref().len(), 10);
    assert!(b.to_plain().is_none());
    assert_eq!(b.to_f32().unwrap().shape(), [2, 32]);
    assert_eq!(found.get("a").unwrap().to_plain().unwrap().unwrap().shape(), [2, 3]);
    assert_eq!(found.tensor_bytes(), 24 + 68 + 10);
    assert!(found.get("d").is_none());
    assert_eq!(found.require("d").unwrap_err().stable_code(), "FB-3615");
}

#[test]
fn both_versions_are_read() {
    let mut file = File::small();
    file.version = 2;
    assert_eq!(read(file.bytes()).unwrap().version(), 2);
}

#[test]
fn every_type_of_value() {
    let mut file = File::new();
    file.metadata = vec![
        entry("u8", 0, &[200]),
        entry("i8", 1, &[200]),
        entry("u16", 2, &[1, 2]),
        entry("i16", 3, &[255, 255]),
        entry("u32", 4, &7u32.to_le_bytes()),
        entry("i32", 5, &(-7i32).to_le_bytes()),
        entry("f32", 6, &1.5f32.to_le_bytes()),
        entry("bool", 7, &[1]),
        entry("string", 8, &text("größe".as_bytes())),
        entry("u64", 10, &u64::MAX.to_le_bytes()),
        entry("i64", 11, &i64::MIN.to_le_bytes()),
        entry("f64", 12, &0.1f64.to_le_bytes()),
        array("texts", 8, 2, &[text(b"a"), text(b"")].concat()),
        array("none", 6, 0, &[]),
        array("bools", 7, 2, &[0, 1]),
    ];
    let found = read(file.bytes()).unwrap();
    let metadata = found.metadata();
    let wanted: Vec<(&str, Value)> = vec![
        ("u8", 200u8.into()),
        ("i8", (-56i8).into()),
        ("u16", 513u16.into()),
        ("i16", (-1i16).into()),
        ("u32", 7u32.into()),
        ("i32", (-7i32).into()),
        ("f32", 1.5f32.into()),
        ("bool", true.into()),
        ("string", "größe".into()),
        ("u64", u64::MAX.into()),
        ("i64", i64::MIN.into()),
        ("f64", 0.1f64.into()),
        ("texts", vec!["a".to_string(), String::new()].into()),
        ("none", Value::Array(Array::F32(vec![]))),
        ("bools", vec![false, true].into()),
    ];
    assert!(metadata.iter().eq(wanted.iter().map(|(key, value)| (*key, value))));
    assert_eq!(metadata.require::<u64>("u64").unwrap(), u64::MAX);
    assert_eq!(metadata.require::<i32>("u8").unwrap(), 200);
    assert_eq!(metadata.require::<f32>("u32").unwrap(), 7.0);
    assert_eq!(metadata.require::<&str>("string").unwrap(), "größe");
    assert_eq!(metadata.require::<&[String]>("texts").unwrap().len(), 2);
    assert_eq!(metadata.find::<bool>("nothing").unwrap(), None);
}

#[test]
fn values_of_another_type_are_named() {
    let found = read(File::small().bytes()).unwrap();
    let metadata = found.metadata();
    let error = metadata.require::<u32>("general.architecture").unwrap_err();
    assert_eq!(error.stable_code(), "FB-3606");
    assert!(error.to_string().contains("expected an integer (u32), found string"), "{error}");
    let error = metadata.require::<u32>("llama.block_count").unwrap_err();
    assert_eq!(error.stable_code(), "FB-3607");
    assert_eq!(metadata.require::<Vec<i64>>("numbers").unwrap(), [1, -1]);
    assert_eq!(metadata.require::<Vec<f64>>("numbers").unwrap(), [1.0, -1.0]);
    assert!(metadata.require::<&[f32]>("numbers").is_err());
    let mut negative = metadata.clone();
    negative.set("n", -1i32);
    let error = negative.require::<usize>("n").unwrap_err();
    assert!(error.to_string().contains("found -1 (i32)"), "{error}");
}

#[test]
fn metadata_keeps_its_order_when_edited() {
    let mut metadata = read(File::small().bytes()).unwrap().metadata().clone();
    metadata.set("z", 1u32);
    metadata.set("numbers", 2u32);
    assert_eq!(metadata.remove("general.architecture"), Some("llama".into()));
    assert_eq!(metadata.remove("general.architecture"), None);
    let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["numbers", "z"]);
    assert_eq!(metadata.require::<u32>("z").unwrap(), 1);
    assert_eq!(metadata.require::<u32>("numbers").unwrap(), 2);
}

#[test]
fn nothing_at_all() {
    let found = read(File::new().bytes()).unwrap();
    assert!(found.tensors().is_empty() && found.metadata().is_empty());
}

#[test]
fn scalars_and_tensors_without_elements() {
    let mut file = File::new();
    file.tensors = vec![
        tensor("scalar", &[], 0, 0),
        tensor("none", &[0], 0, 32),
        tensor("no rows", &[256, 0, 7], 12, 32),
        tensor("one", &[1, 1, 1, 1], 1, 32),
    ];
    file.data = vec![0; 34];
    let found = read(file.bytes()).unwrap();
    let lens: Vec<usize> = found.tensors().iter().map(|t| t.bytes.as_ref().len()).collect();
    assert_eq!(lens, [4, 0, 0, 2]);
}

#[test]
fn alignment_of_the_files_own() {
    for alignment in [1usize, 2, 8, 64, 4096] {
        let mut file = File::new();
        file.alignment = alignment;
        file.metadata = vec![entry("general.alignment", 4, &(alignment as u32).to_le_bytes())];
        let second = 4usize.next_multiple_of(alignment);
        file.tensors = vec![tensor("a", &[4], 24, 0), tensor("b", &[1], 24, second as u64)];
        file.data = vec![7; second];
        file.data.push(9);
        let found = read(file.bytes()).unwrap();
        assert_eq!(found.require("b").unwrap().bytes.as_ref(), [9], "{alignment}");
    }
}

#[test]
fn padding_behind_the_last_tensor_may_be_there_or_not() {
    let file = File::small();
    let whole = file.bytes();
    assert!(read(whole[..whole.len() - 22].to_vec()).is_ok());
    assert!(read(whole).is_ok());
}

#[test]
fn every_tensor_type() {
    for &ty in BlockType::ALL {
        let mut file = File::new();
        file.tensors = vec![tensor("x", &[ty.elements() as u64, 3], ty.ggml_id(), 0)];
        file.data = vec![0; 3 * ty.bytes()];
        assert_eq!(read(file.bytes()).unwrap().tensors()[0].ty, ty);
    }
}

#[test]
fn a_million_tiny_tensors_take_linear_time() {
    let time = |count: u64| {
        let mut file = File::new();
        file.alignment = 1;
        file.metadata = vec![entry("general.alignment", 4, &1u32.to_le_bytes())];
        file.tensors = (0..count).map(|i| tensor(&i.to_string(), &[1], 24, i)).collect();
        file.data = vec![0; count as usize];
        let bytes = file.bytes();
        let start = std::time::Instant::now();
        assert_eq!(read(bytes).unwrap().tensors().len(), count as usize);
        start.elapsed().as_secs_f64()
    };
    let (small, large) = (time(100_000), time(1_000_000));
    assert!(large < 40.0 * small.max(0.02), "{small} s, then {large} s");
}
