//! Importance matrices: both forms there and back, and damaged ones.

use fewbit_core::Error;
use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::gguf::{self, Metadata};
use fewbit_formats::imatrix::{self, Entry, Form, ImportanceMatrix};
use fewbit_formats::onnx::Bytes;
use std::path::Path;

fn sample() -> ImportanceMatrix {
    let mut found = ImportanceMatrix {
        datasets: vec!["a.txt".into(), "b.txt".into()],
        chunk_count: 4,
        chunk_size: 512,
        ..Default::default()
    };
    let dense = Entry { sums: vec![2048.0, 4096.0, 0.0], counts: vec![2048.0] };
    let experts = Entry { sums: vec![512.0, 1024.0, 0.0, 0.0], counts: vec![512.0, 0.0] };
    found.entries.insert("blk.0.attn_q.weight".into(), dense);
    found.entries.insert("blk.0.ffn_up_exps.weight".into(), experts);
    found
}

fn written(imatrix: &ImportanceMatrix, form: Form) -> Result<Vec<u8>, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("imatrix");
    imatrix.write(&path, form, &OutputOptions::default())?;
    imatrix::read(&path).unwrap();
    Ok(std::fs::read(path).unwrap())
}

fn read(bytes: &[u8]) -> Result<ImportanceMatrix, Error> {
    ImportanceMatrix::from_bytes(&Bytes::copy_from_slice(bytes))
}

#[test]
fn gguf_keeps_everything() {
    assert_eq!(read(&written(&sample(), Form::Gguf).unwrap()).unwrap(), sample());
}

#[test]
fn the_older_form_keeps_the_importance() {
    let found = read(&written(&sample(), Form::Legacy).unwrap()).unwrap();
    assert_eq!((found.chunk_count, found.chunk_size), (4, 0));
    assert_eq!(found.datasets, ["b.txt"]);
    for (name, entry) in &sample().entries {
        assert_eq!(found.entries[name].means(), entry.means(), "{name}");
    }
    // What is read can be written again in either form.
    for form in [Form::Gguf, Form::Legacy] {
        let again = read(&written(&found, form).unwrap()).unwrap();
        assert_eq!(again.entries.keys().count(), 2);
        let mean = |i: &ImportanceMatrix| i.entries["blk.0.attn_q.weight"].means();
        assert_eq!(mean(&again), mean(&found));
    }
}

#[test]
fn the_bytes_of_the_older_form() {
    let mut one = ImportanceMatrix { chunk_count: 2, chunk_size: 4, ..Default::default() };
    one.entries.insert("w".into(), Entry { sums: vec![12.0], counts: vec![6.0] });
    let bytes = written(&one, Form::Legacy).unwrap();
    let mut wanted = Vec::new();
    for number in [1i32, 1] {
        wanted.extend(number.to_le_bytes());
    }
    wanted.push(b'w');
    wanted.extend(2i32.to_le_bytes());
    wanted.extend(1i32.to_le_bytes());
    wanted.extend(4f32.to_le_bytes());
    wanted.extend(2i32.to_le_bytes());
    wanted.extend(0i32.to_le_bytes());
    assert_eq!(bytes, wanted);
}

#[test]
fn importance_by_tensor() {
    let found = sample();
    let of = |name: &str, columns, matrices| found.importance(name, columns, matrices);
    assert_eq!(of("blk.0.attn_q.weight", 3, 1).unwrap(), Some(vec![1.0, 2.0, 0.0]));
    assert_eq!(of("blk.0.ffn_up_exps.weight", 2, 2).unwrap(), Some(vec![1.0, 2.0, 1.0, 1.0]));
    assert_eq!(of("blk.1.attn_q.weight", 3, 1).unwrap(), None);
    for (columns, matrices) in [(4, 1), (3, 2), (usize::MAX, 2), (0, 0)] {
        let error = of("blk.0.attn_q.weight", columns, matrices).unwrap_err();
        assert_eq!(error.stable_code(), "FB-3705");
        assert!(error.to_string().contains("blk.0.attn_q"), "{error}");
    }
}

#[test]
fn unsound_matrices_are_neither_read_nor_written() {
    type Change = fn(&mut Entry);
    let cases: [(&str, Change, &str); 8] = [
        ("NaN", |e| e.sums[0] = f32::NAN, "FB-3703"),
        ("infinite", |e| e.sums[1] = f32::INFINITY, "FB-3703"),
        ("negative", |e| e.sums[2] = -1.0, "FB-3703"),
        ("NaN count", |e| e.counts[0] = f32::NAN, "FB-3703"),
        ("negative count", |e| e.counts[0] = -1.0, "FB-3703"),
        ("next to no count", |e| e.counts[0] = f32::from_bits(1), "FB-3703"),
        ("no sums", |e| e.sums.clear(), "FB-3702"),
        ("more counts than sums", |e| e.counts = vec![1.0; 2], "FB-3702"),
    ];
    for (name, change, code) in cases {
        let mut unsound = sample();
        change(unsound.entries.get_mut("blk.0.attn_q.weight").unwrap());
        for form in [Form::Gguf, Form::Legacy] {
            let error = written(&unsound, form).unwrap_err();
            assert_eq!(error.stable_code(), code, "{name}: {error:?}");
            assert!(error.place().contains("attn_q"), "{name}: {error}");
        }
    }
    let empty = ImportanceMatrix::default();
    assert_eq!(written(&empty, Form::Gguf).unwrap_err().stable_code(), "FB-3701");
    // The same values in a file: the bytes of 2048.0 become those of a NaN, then of -1.
    for (form, value) in [(Form::Gguf, f32::NAN), (Form::Gguf, -1.0)] {
        let mut bytes = written(&sample(), form).unwrap();
        let at = bytes.windows(4).rposition(|w| w == 2048f32.to_le_bytes()).unwrap();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert_eq!(read(&bytes).unwrap_err().stable_code(), "FB-3703");
    }
}

#[test]
fn other_files_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let metadata: Metadata = [("general.architecture", "llama")].into_iter().collect();
    gguf::write(&path, &metadata, [], &OutputOptions::default()).unwrap();
    assert_eq!(imatrix::read(&path).unwrap_err().stable_code(), "FB-3701");
    for bytes in [&b"hello, world, this is text"[..], &[0; 64], &[1], &[0xff; 64], &[1; 64]] {
        let error = read(bytes).unwrap_err();
        assert_eq!(error.kind().exit_code(), 3);
        assert!(matches!(error.stable_code(), "FB-3701" | "FB-3603"), "{error:?}");
    }
    assert_eq!(imatrix::read(Path::new("/dev/zero")).unwrap_err().stable_code(), "FB-3002");
}

#[test]
fn every_truncation_and_every_flipped_byte() {
    for form in [Form::Gguf, Form::Legacy] {
        let whole = written(&sample(), form).unwrap();
        let refused = (0..whole.len()).filter(|&len| read(&whole[..len]).is_err()).count();
        // The older form may end behind its entries and before the data set; the newer one may
        // lack the padding at its end.
        let may_end = if form == Form::Legacy { 2 } else { 24 };
        assert!(refused + may_end >= whole.len(), "{form:?}: {refused} of {}", whole.len());
        for at in 0..whole.len() {
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                if let Ok(found) = read(&bytes) {
                    found.entries.values().for_each(|e| assert_eq!(e.means().len(), e.sums.len()));
                }
            }
        }
    }
}

#[test]
fn legacy_counts_that_cannot_be() {
    let whole = written(&sample(), Form::Legacy).unwrap();
    // Entries, length of the name, calls, values: as 2^31 and as 2^32 - 1.
    for at in [0, 4, 8 + 19, 8 + 19 + 4] {
        for value in [0x8000_0000u32, u32::MAX, 0x7fff_ffff] {
            let mut bytes = whole.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            match read(&bytes) {
                Err(error) => assert_eq!(error.kind().exit_code(), 3, "{at} {value}: {error}"),
                Ok(_) => assert_eq!((at, value), (27, 0x7fff_ffff), "{at} {value}"),
            }
        }
    }
}
