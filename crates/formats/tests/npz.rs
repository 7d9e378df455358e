//! Archives of arrays: what is read, what is written, and every way to be refused.

use fewbit_core::{DType, Error, Tensor};
use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::data::{npy, npz};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn array() -> Vec<u8> {
    npy::encode(&Tensor::vector(&[1.0f32, 2.0, 3.0])).unwrap()
}

fn archive(members: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, data) in members {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(*name, options).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn save(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("a.npz");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn refused(bytes: &[u8], code: &str) -> Error {
    let folder = folder();
    let e = npz::read(&save(&folder, bytes)).unwrap_err();
    assert_eq!(e.stable_code(), code, "{e:?}");
    assert_eq!(e.kind().exit_code(), code.as_bytes()[3] - b'0');
    assert!(e.place().contains("a.npz"), "{e}");
    e
}

/// Replaces a pattern everywhere, as an attacker edits both directories of a zip.
fn patch(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    for i in 0..bytes.len() - from.len() + 1 {
        if bytes[i..].starts_with(from) {
            bytes[i..i + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

#[test]
fn arrays_round_trip_under_the_names_of_a_graph() {
    let folder = folder();
    let path = folder.path().join("out.npz");
    let logits = Tensor::from_slice(vec![1, 2], &[0.5f32, -1.0]).unwrap();
    let codes = Tensor::from_f64(DType::I4, vec![3], &[-8.0, 0.0, 7.0]).unwrap();
    let arrays = [("encoder/layer.0/add:0", &logits), ("codes", &codes)];
    npz::write(&path, &arrays, &OutputOptions::default()).unwrap();
    let back = npz::read(&path).unwrap();
    assert_eq!(back[0], ("encoder/layer.0/add:0".to_owned(), logits));
    assert_eq!((back[1].1.dtype(), back[1].1.to_i64().unwrap()), (DType::I8, vec![-8, 0, 7]));
}

#[test]
fn the_same_arrays_give_the_same_bytes() {
    let t = Tensor::vector(&[1u8, 2]);
    let write = || npz::write_to(Cursor::new(Vec::new()), &[("a", &t)]).unwrap().into_inner();
    assert_eq!(write(), write());
}

#[test]
fn names_may_begin_with_a_slash_as_those_of_pytorch_do() {
    let folder = folder();
    let t = Tensor::vector(&[1u8, 2]);
    let written = npz::write_to(Cursor::new(Vec::new()), &[("/layer/y", &t)]).unwrap();
    let path = folder.path().join("slash.npz");
    std::fs::write(&path, written.into_inner()).unwrap();
    assert_eq!(npz::read(&path).unwrap()[0].0, "/layer/y");
}

#[test]
fn names_that_leave_an_archive_are_not_written() {
    let t = Tensor::vector(&[1u8]);
    for name in ["../../x", "/../x", "a/../../b", "", "a\\..\\b", "x\0y"] {
        let e = npz::write_to(Cursor::new(Vec::new()), &[(name, &t)]).unwrap_err();
        assert_eq!(e.stable_code(), "FB-3321", "{name}");
    }
    let e = npz::write_to(Cursor::new(Vec::new()), &[("a", &t), ("a", &t)]).unwrap_err();
    assert_eq!(e.stable_code(), "FB-3322");
}

#[test]
fn stored_and_deflated_members_are_read() {
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let folder = folder();
        let path = save(&folder, &archive(&[("x.npy", &array())], method));
        let arrays = npz::read(&path).unwrap();
        assert_eq!((arrays[0].0.as_str(), arrays[0].1.len()), ("x", 3));
    }
}

#[test]
fn members_that_are_no_plain_arrays_are_refused() {
    let a = array();
    let stored = CompressionMethod::Stored;
    refused(&archive(&[("../x.npy", &a)], stored), "FB-3321");
    let inner = archive(&[("x.npy", &a)], stored);
    assert!(
        refused(&archive(&[("inner.npz", &inner)], stored), "FB-3323").place().contains("inner")
    );
    refused(&archive(&[("x.npy", b"not an array")], stored), "FB-3310");
    let pickle = {
        let dict = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n";
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((dict.len() as u16).to_le_bytes());
        out.extend(dict.as_bytes());
        out.extend(b"\x80\x04N.");
        out
    };
    let e = refused(&archive(&[("x.npy", &pickle)], stored), "FB-4310");
    assert!(e.place().contains("array `x`"), "{e}");
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let a = array();
    let zip = archive(&[("x.npy", &a), ("y.npy", &a)], CompressionMethod::Stored);
    refused(&patch(zip, b"y.npy", b"x.npy"), "FB-3322");
}

#[test]
fn an_encrypted_member_is_refused() {
    let mut zip = archive(&[("x.npy", &array())], CompressionMethod::Stored);
    let central = zip.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    zip[6] |= 1;
    zip[central + 8] |= 1;
    assert!(refused(&zip, "FB-4320").what().contains("encrypted"));
}

#[test]
fn a_member_cannot_claim_more_than_its_bytes_can_hold() {
    let mut zip = archive(&[("x.npy", &array())], CompressionMethod::Deflated);
    let central = zip.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    for at in [22, central + 24] {
        zip[at..at + 4].copy_from_slice(&0xFFFF_0000u32.to_le_bytes());
    }
    let e = refused(&zip, "FB-3324");
    assert!(e.what().contains("4294901760"), "{e}");
    // A believable lie: twice the real size is more than the header accounts for.
    let mut zip = archive(&[("x.npy", &array())], CompressionMethod::Deflated);
    for at in [22, central + 24] {
        zip[at..at + 4].copy_from_slice(&280u32.to_le_bytes());
    }
    refused(&zip, "FB-3312");
}

#[test]
fn a_zip_bomb_is_stopped_by_its_own_header() {
    let zeros = vec![0u8; 40 << 20];
    let mut bomb = array();
    bomb.extend(&zeros);
    let zip = archive(&[("x.npy", &bomb)], CompressionMethod::Deflated);
    assert!(zip.len() < 100_000);
    assert!(refused(&zip, "FB-3312").place().contains("`shape`"));
}

#[test]
fn damage_in_compressed_data_is_noticed() {
    let values: Vec<u8> = (0..4000u32).map(|i| ((i * i) >> 3) as u8).collect();
    let a = npy::encode(&Tensor::vector(&values)).unwrap();
    let mut zip = archive(&[("x.npy", &a)], CompressionMethod::Deflated);
    let middle = zip.len() / 2;
    zip[middle] ^= 0x10;
    let folder = folder();
    let e = npz::read(&save(&folder, &zip)).unwrap_err();
    assert_eq!(e.kind().exit_code(), 3, "{e:?}");
}

#[test]
fn no_truncation_and_no_flipped_byte_panics() {
    let a = array();
    let good = archive(&[("x.npy", &a), ("y.npy", &a)], CompressionMethod::Deflated);
    let folder = folder();
    let try_read = |bytes: &[u8]| npz::read(&save(&folder, bytes));
    for n in 0..good.len() {
        assert!(try_read(&good[..n]).is_err(), "{n} bytes");
    }
    for i in 0..good.len() {
        let mut bytes = good.clone();
        bytes[i] ^= 0xff;
        if let Ok(arrays) = try_read(&bytes) {
            assert!(arrays.len() <= 2);
        }
    }
}

#[test]
fn a_folder_is_no_archive() {
    let e = npz::read(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err();
    assert_eq!(e.stable_code(), "FB-3300");
}
