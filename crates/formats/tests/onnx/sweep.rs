//! Damage of every kind to three small files: an error or a model, never a panic.

use crate::samples::{control, conv, quantized};
use fewbit_formats::onnx::{self, Bytes};
use prost::Message;

/// The samples as exported and as fewbit writes them.
fn files() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for model in [conv(), control(), quantized()] {
        let exported = model.encode_to_vec();
        let read = onnx::read_bytes(exported.clone().into(), None).unwrap();
        files.push(onnx::to_bytes(&read).unwrap());
        files.push(exported);
    }
    files
}

/// Reads what may be anything; a model that comes out must also go in again.
fn try_read(bytes: Vec<u8>, what: &str) -> bool {
    match onnx::read_bytes(Bytes::from(bytes), None) {
        Err(e) => {
            assert!(matches!(e.kind().exit_code(), 3 | 4), "{what}: {e:?}");
            assert!(!e.what().is_empty());
            false
        }
        Ok(model) => {
            let written = onnx::to_bytes(&model).unwrap_or_else(|e| panic!("{what}: {e:?}"));
            let again = onnx::read_bytes(Bytes::from(written), None);
            again.unwrap_or_else(|e| panic!("{what}: {e:?}"));
            true
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for file in files() {
        for len in 0..file.len() {
            let whole = try_read(file[..len].to_vec(), &format!("the first {len} bytes"));
            // Only a cut between two fields of the outermost message leaves a sound file.
            assert!(!whole || onnx::scan::scan(&file[..len], onnx::scan::Kind::Model).is_ok());
        }
    }
}

#[test]
fn written_files_have_no_sound_prefix() {
    for file in files().iter().step_by(2) {
        for len in 0..file.len() {
            assert!(!try_read(file[..len].to_vec(), &format!("the first {len} bytes")));
        }
    }
}

#[test]
fn no_flipped_byte_panics() {
    let mut refused = 0;
    for file in files() {
        for position in 0..file.len() {
            for mask in [0x01, 0x04, 0x10, 0x40, 0x80, 0xff] {
                let mut bytes = file.clone();
                bytes[position] ^= mask;
                refused += !try_read(bytes, &format!("byte {position} ^ {mask:#x}")) as usize;
            }
        }
    }
    // Structure is damaged about as often as values are.
    assert!(refused > 5_000, "{refused}");
}

#[test]
fn no_splice_panics() {
    let files = files();
    // A linear congruential generator (Knuth's MMIX): the same splices on every run.
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below.max(1)
    };
    let mut refused = 0;
    for round in 0..20_000 {
        let mut bytes = files[random(files.len())].clone();
        let other = &files[random(files.len())];
        for _ in 0..1 + random(3) {
            let at = random(bytes.len());
            let end = at + random((bytes.len() - at).min(40));
            let from = random(other.len());
            let piece = &other[from..from + random((other.len() - from).min(40))];
            bytes.splice(at..end, piece.iter().copied());
        }
        refused += !try_read(bytes, &format!("round {round}")) as usize;
    }
    assert!(refused > 10_000, "{refused}");
}

#[test]
fn trailing_bytes_are_not_ignored() {
    for file in files() {
        let mut bytes = file.clone();
        bytes.extend(b"PK\x03\x04");
        assert!(!try_read(bytes, "trailing zip"));
    }
}
