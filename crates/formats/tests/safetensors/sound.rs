//! What must be accepted.

use crate::samples::*;
use fewbit_core::DType;

#[test]
fn tensors_are_views_with_their_types() {
    let found = read(small()).unwrap();
    assert_eq!(found.metadata(), [("format".to_string(), "pt".to_string())]);
    let a = found.require("a").unwrap();
    assert_eq!((a.dtype, &a.shape[..]), (DType::F32, &[2, 2][..]));
    assert!(a.bytes.is_view());
    assert_eq!(a.bytes.as_ref(), (0..16).collect::<Vec<u8>>());
    assert_eq!(found.get("b").unwrap().to_tensor().unwrap().to_i64().unwrap(), [16, 17, 18]);
    assert_eq!(found.tensor_bytes(), 19);
    assert!(found.get("c").is_none());
    assert_eq!(found.require("c").unwrap_err().stable_code(), "FB-3514");
}

#[test]
fn every_element_type_is_known() {
    let names = [
        ("BOOL", DType::Bool, 8),
        ("F4", DType::F4E2M1, 4),
        ("F8_E4M3", DType::F8E4M3FN, 8),
        ("F8_E5M2", DType::F8E5M2, 8),
        ("F8_E8M0", DType::F8E8M0, 8),
        ("F16", DType::F16, 16),
        ("BF16", DType::BF16, 16),
        ("U16", DType::U16, 16),
        ("I64", DType::I64, 64),
        ("F64", DType::F64, 64),
        ("C64", DType::C64, 64),
    ];
    for (name, dtype, bits) in names {
        let found = read(of(&[entry("x", name, "[4]", 0, bits / 2)], &vec![1; bits as usize / 2]));
        assert_eq!(found.unwrap().tensors()[0].dtype, dtype, "{name}");
    }
}

#[test]
fn scalars_and_empty_tensors() {
    let entries = [
        entry("none", "F32", "[2,0]", 4, 4),
        entry("one", "F32", "[]", 0, 4),
        entry("e", "U8", "[0]", 0, 0),
    ];
    let found = read(of(&entries, &1.5f32.to_le_bytes())).unwrap();
    assert_eq!(found.get("one").unwrap().to_tensor().unwrap().to_f32().unwrap(), [1.5]);
    assert!(found.get("none").unwrap().to_tensor().unwrap().is_empty());
    assert_eq!(read(file(b"{}", b"")).unwrap().tensors().len(), 0);
}

#[test]
fn white_space_around_the_header() {
    let text = format!("\n  {{{}}}\t\n   ", entry("a", "U8", "[1]", 0, 1));
    assert_eq!(read(file(text.as_bytes(), b"x")).unwrap().tensors().len(), 1);
}

#[test]
fn entries_need_not_be_in_the_order_of_their_bytes() {
    let entries = [entry("b", "U8", "[1]", 1, 2), entry("a", "U8", "[1]", 0, 1)];
    let found = read(of(&entries, b"ab")).unwrap();
    let bytes = |name: &str| found.get(name).unwrap().bytes.as_ref().to_vec();
    assert_eq!((bytes("a"), bytes("b")), (b"a".to_vec(), b"b".to_vec()));
    assert_eq!(found.tensors()[0].name, "a");
}

#[test]
fn booleans_other_than_0_and_1_mean_true() {
    let found = read(of(&[entry("x", "BOOL", "[3]", 0, 3)], &[0, 7, 1])).unwrap();
    assert_eq!(found.tensors()[0].to_tensor().unwrap().bytes(), [0, 1, 1]);
}

#[test]
fn a_million_tiny_tensors_take_linear_time() {
    let time = |count: u64| {
        let entries: Vec<String> =
            (0..count).map(|i| entry(&i.to_string(), "U8", "[1]", i, i + 1)).collect();
        let file = of(&entries, &vec![0; count as usize]);
        let start = std::time::Instant::now();
        assert_eq!(read(file).unwrap().tensors().len(), count as usize);
        start.elapsed().as_secs_f64()
    };
    let (small, large) = (time(100_000), time(1_000_000));
    assert!(large < 40.0 * small.max(0.02), "{small} s, then {large} s");
}
