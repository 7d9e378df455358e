use super::*;
use crate::atomic::OutputOptions;
use fewbit_core::{DType, Error};
use std::io::Cursor;

/// A version 1 file with this dictionary and data.
fn file(dict: &str, data: &[u8]) -> Vec<u8> {
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((dict.len() as u16).to_le_bytes());
    out.extend(dict.as_bytes());
    out.extend(data);
    out
}

fn array(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let dict = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    file(&dict, data)
}

fn parse(bytes: &[u8]) -> Result<Tensor> {
    read_from(&mut Cursor::new(bytes), bytes.len() as u64)
}

fn refused(bytes: &[u8], code: &str) -> Error {
    let e = parse(bytes).unwrap_err();
    assert_eq!(e.stable_code(), code, "{e:?}");
    assert_eq!(e.kind().exit_code(), code.as_bytes()[3] - b'0');
    e
}

#[test]
fn both_byte_orders_give_the_same_numbers() {
    let values = [1.5f32, -2.0, 3.25];
    let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
    assert_eq!(parse(&array("<f4", "False", "(3,)", &little)).unwrap().to_f32().unwrap(), values);
    assert_eq!(parse(&array(">f4", "False", "(3,)", &big)).unwrap().to_f32().unwrap(), values);
}

#[test]
fn a_complex_number_is_swapped_in_halves() {
    let big = [1f32.to_be_bytes(), 2f32.to_be_bytes()].concat();
    let t = parse(&array(">c8", "False", "()", &big)).unwrap();
    assert_eq!((t.dtype(), t.rank()), (DType::C64, 0));
    assert_eq!(t.bytes(), [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
}

#[test]
fn fortran_order_becomes_row_major() {
    // The array [[0, 1, 2], [3, 4, 5]] column by column.
    let t = parse(&array("|u1", "True", "(2, 3)", &[0, 3, 1, 4, 2, 5])).unwrap();
    assert_eq!(t.to_i64().unwrap(), [0, 1, 2, 3, 4, 5]);
    let t = parse(&array("<i2", "True", "(2, 1, 2)", &[1, 0, 2, 0, 3, 0, 4, 0])).unwrap();
    assert_eq!(t.to_i64().unwrap(), [1, 3, 2, 4]);
}

#[test]
fn every_dtype_of_numpy_round_trips() {
    for dtype in DType::ALL {
        let Some(text) = dtype::text(*dtype) else { continue };
        let t = Tensor::zeros(*dtype, vec![2, 3]).unwrap();
        let bytes = encode(&t).unwrap();
        assert_eq!(bytes.len() % 64, t.bytes().len() % 64, "{text}");
        assert_eq!(parse(&bytes).unwrap(), t, "{text}");
    }
}

#[test]
fn headers_are_written_as_numpy_writes_them() {
    let text = |shape: Vec<usize>| {
        let bytes = encode(&Tensor::zeros(DType::U8, shape).unwrap()).unwrap();
        String::from_utf8_lossy(&bytes[10..128]).trim_end().to_owned()
    };
    assert_eq!(text(vec![]), "{'descr': '|u1', 'fortran_order': False, 'shape': (), }");
    assert_eq!(text(vec![3]), "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }");
    assert_eq!(text(vec![2, 0]), "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 0), }");
}

#[test]
fn types_without_a_numpy_dtype_are_widened() {
    for (dtype, wide) in [
        (DType::BF16, DType::F32),
        (DType::F8E5M2, DType::F32),
        (DType::I4, DType::I8),
        (DType::U2, DType::U8),
    ] {
        let t = Tensor::from_f64(dtype, vec![3], &[0.0, 1.0, 1.0]).unwrap();
        let back = parse(&encode(&t).unwrap()).unwrap();
        assert_eq!((back.dtype(), back.to_f64().unwrap()), (wide, vec![0.0, 1.0, 1.0]));
    }
    let text = Tensor::from_strings(vec![1], vec![b"a".to_vec()]).unwrap();
    assert_eq!(encode(&text).unwrap_err().stable_code(), "FB-4312");
}

#[test]
fn a_header_length_is_checked_before_the_header_is_read() {
    let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.extend([b' '; 40]);
    let e = refused(&bytes, "FB-3311");
    assert!(e.place().contains("byte 8") && e.what().contains("4294967295"), "{e}");
    // Long, and all there, but more than NumPy would read.
    let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
    bytes.extend((1u32 << 20).to_le_bytes());
    bytes.resize(2 << 20, b' ');
    refused(&bytes, "FB-3311");
}

#[test]
fn a_shape_must_match_the_file() {
    let e = refused(&array("<f8", "False", "(65536, 65536)", &[0; 8]), "FB-3312");
    assert!(e.what().contains("34359738368"), "{e}");
    assert_eq!(e.place(), "`shape`");
    refused(&array("<f4", "False", "(18446744073709551615, 2)", &[0; 8]), "FB-3312");
    refused(&array("<f4", "False", "(4611686018427387904,)", &[]), "FB-3312");
    refused(&array("<f4", "False", "(2,)", &[0; 9]), "FB-3312");
    refused(&array("<f4", "False", "(-1,)", &[]), "FB-3310");
    refused(&array("<f4", "False", "(99999999999999999999,)", &[]), "FB-3310");
    refused(&array("<f4", "False", &format!("({})", "1,".repeat(65)), &[0; 4]), "FB-3312");
}

#[test]
fn empty_arrays_and_scalars_are_arrays() {
    assert_eq!(parse(&array("<f4", "False", "()", &[0; 4])).unwrap().shape(), [0usize; 0]);
    assert_eq!(parse(&array("<f4", "True", "(9223372036854775807, 0)", &[])).unwrap().len(), 0);
    let t = parse(&array("|b1", "False", "(2,)", &[0, 7])).unwrap();
    assert_eq!(t.bytes(), [0, 1]);
}

#[test]
fn pickles_and_other_dtypes_are_refused_with_advice() {
    let e = refused(&array("|O", "False", "(1,)", b"\x80\x04N."), "FB-4310");
    assert!(e.what().contains("pickle") && e.advice().is_some());
    for descr in ["<U5", "|S3", "|V2", "<M8[ns]", "<f16", "<c32"] {
        assert!(refused(&array(descr, "False", "(1,)", &[0; 16]), "FB-4311").advice().is_some());
    }
    let fields = "{'descr': [('a', '<f4'), ('b', '<i4')], 'fortran_order': False, 'shape': (1,)}";
    assert!(refused(&file(fields, &[0; 8]), "FB-4311").what().contains("structured"));
    refused(&array("nonsense", "False", "(1,)", &[0]), "FB-3310");
}

#[test]
fn damaged_headers_are_refused_with_their_place() {
    refused(b"", "FB-3310");
    refused(b"\x93", "FB-3310");
    refused(b"\x93NUMPY", "FB-3310");
    refused(b"PK\x03\x04aaaaaaaaaaaa", "FB-3310");
    refused(b"\x93NUMPY\x09\x00\x00\x00", "FB-3310");
    refused(&file("{'descr': '<f4', 'shape': (1,)}", &[0; 4]), "FB-3310");
    refused(&file("{'descr': '<f4', 'descr': '<f4'}", &[0; 4]), "FB-3310");
    refused(&file("{'descr: 3}", &[]), "FB-3310");
    let e = refused(&file("{'descr': __import__('os')}", &[]), "FB-3310");
    assert_eq!(e.place(), "header, byte 10");
}

#[test]
fn no_truncation_and_no_flipped_byte_panics() {
    let good = encode(&Tensor::from_slice(vec![2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap()).unwrap();
    for n in 0..good.len() {
        assert!(parse(&good[..n]).is_err(), "{n} bytes");
    }
    for i in 0..good.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[i] ^= flip;
            // Some flips change only a number; what matters is that each ends in a value.
            let _ = parse(&bytes);
        }
    }
}

#[test]
fn files_are_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let t = Tensor::from_slice(vec![3], &[1i64, -2, 3]).unwrap();
    write(&path, &t, &OutputOptions::default()).unwrap();
    assert_eq!(read(&path).unwrap(), t);
    std::fs::write(&path, b"").unwrap();
    assert!(read(&path).unwrap_err().place().contains("a.npy"));
}
