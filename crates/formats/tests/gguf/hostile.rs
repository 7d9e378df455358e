//! Files that contradict themselves: each has a stable code, a place and no panic.

use crate::samples::*;
use fewbit_core::Error;

fn refusal(bytes: Vec<u8>) -> Error {
    read(bytes).expect_err("must be refused")
}

/// Name, change of a sound file, code, part of the message.
type Case = (&'static str, fn(&mut File), &'static str, &'static str);

fn check(cases: &[Case]) {
    for (name, change, code, message) in cases {
        let mut file = File::small();
        change(&mut file);
        check_bytes(name, file.bytes(), code, message);
    }
}

fn check_bytes(name: &str, bytes: Vec<u8>, code: &str, message: &str) {
    let start = std::time::Instant::now();
    let error = refusal(bytes);
    assert_eq!(error.stable_code(), code, "{name}: {error:?}");
    assert!(error.to_string().contains(message), "{name}: {error}");
    assert!(error.to_string().len() < 1000, "{name}: the message is a flood");
    let unsupported = error.stable_code().starts_with("FB-4");
    assert_eq!(error.kind().exit_code(), if unsupported { 4 } else { 3 }, "{name}");
    assert!(start.elapsed().as_secs_f64() < 1.0, "{name} took {:?}", start.elapsed());
}

#[test]
fn headers() {
    check(&[
        ("bad magic", |f| f.magic = *b"GGML", "FB-3004", "begins with `GGUF`"),
        ("magic reversed", |f| f.magic = *b"FUGG", "FB-3004", "big-endian"),
        ("version 0", |f| f.version = 0, "FB-3601", "version: is 0"),
        ("version 1", |f| f.version = 1, "FB-4601", "is 1"),
        ("version 4", |f| f.version = 4, "FB-4601", "is 4"),
        ("last version", |f| f.version = u32::MAX, "FB-4601", "4294967295"),
        ("version swapped", |f| f.version = 3u32.swap_bytes(), "FB-4602", "big-endian"),
        ("-1 tensors", |f| f.tensor_count = Some(u64::MAX), "FB-3602", "number of tensors: -1"),
        ("-1 keys", |f| f.key_count = Some(u64::MAX), "FB-3602", "number of keys: -1"),
        ("2^62 tensors", |f| f.tensor_count = Some(1 << 62), "FB-4604", "at most"),
        ("2^62 keys", |f| f.key_count = Some(1 << 62), "FB-4604", "at most"),
        ("more tensors", |f| f.tensor_count = Some(1000), "FB-3602", "1000 cannot lie"),
        ("more keys", |f| f.key_count = Some(1000), "FB-3602", "1000 cannot lie"),
        ("one tensor more", |f| f.tensor_count = Some(4), "FB-3603", "tensor[3]"),
        ("one key more", |f| f.key_count = Some(3), "FB-3603", "tensor[0]: name"),
    ]);
    for (name, bytes) in
        [("nothing", &b""[..]), ("one byte", b"G"), ("another file", b"hello, world")]
    {
        check_bytes(name, bytes.to_vec(), "FB-3004", "GGUF");
    }
    check_bytes("magic only", b"GGUF".to_vec(), "FB-3603", "header: version: byte 4");
    check_bytes("a picture", b"\x89PNG\r\n\x1a\n".to_vec(), "FB-3004", "a PNG image");
}

/// Puts an entry of our own in the place of the second one.
fn second(file: &mut File, entry: Vec<u8>) {
    file.metadata[1] = entry;
}

#[test]
fn metadata() {
    check(&[
        (
            "empty key",
            |f| second(f, entry("", 0, &[1])),
            "FB-3605",
            "metadata[1]: the key is empty",
        ),
        (
            "key twice",
            |f| second(f, entry("general.architecture", 0, &[1])),
            "FB-3605",
            "stands twice",
        ),
        ("long key", |f| second(f, entry(&"x".repeat(65536), 0, &[1])), "FB-3605", "65536 bytes"),
        ("key of 2^64 - 1", |f| second(f, vec![255; 8]), "FB-3603", "metadata[1]: key: byte"),
        (
            "key not UTF-8",
            |f| second(f, [&text(b"a\xff")[..], &[0; 5]].concat()),
            "FB-3604",
            "not UTF-8",
        ),
        ("type 13", |f| second(f, entry("k", 13, &[0; 8])), "FB-3608", "value type 13"),
        ("type -1", |f| second(f, entry("k", u32::MAX, &[0; 8])), "FB-3608", "\"k\": byte"),
        ("boolean 2", |f| second(f, entry("k", 7, &[2])), "FB-3604", "a boolean is 2"),
        ("text of 2^64 - 1", |f| second(f, entry("k", 8, &[255; 8])), "FB-3603", "\"k\""),
        (
            "text of 2^63",
            |f| second(f, entry("k", 8, &(1u64 << 63).to_le_bytes())),
            "FB-3603",
            "needs",
        ),
        ("text not UTF-8", |f| second(f, entry("k", 8, &text(b"\xc3"))), "FB-3604", "not UTF-8"),
        ("array of type 13", |f| second(f, array("k", 13, 0, &[])), "FB-3608", "value type 13"),
        (
            "array of 2^62",
            |f| second(f, array("k", 4, 1 << 62, &[])),
            "FB-3603",
            "4611686018427387904",
        ),
        ("array of 2^64 - 1", |f| second(f, array("k", 0, u64::MAX, &[])), "FB-3603", "elements"),
        (
            "bytes as f32",
            |f| second(f, array("k", 6, 4000, &[0; 4000])),
            "FB-3603",
            "4000 elements",
        ),
        ("texts bomb", |f| second(f, array("k", 8, 1 << 40, &[0; 64])), "FB-3603", "elements"),
        ("a text of them cut off", |f| second(f, array("k", 8, 1, &[255; 8])), "FB-3603", "needs"),
        (
            "array of arrays",
            |f| second(f, array("k", 9, 1, &[0; 12])),
            "FB-4603",
            "array of arrays",
        ),
        ("nested 1000 deep", |f| second(f, nested(1000)), "FB-4603", "array of arrays"),
        ("alignment 0", |f| second(f, aligned(4, &[0; 4])), "FB-3609", "is 0"),
        ("alignment 3", |f| second(f, aligned(4, &[3, 0, 0, 0])), "FB-3609", "is 3"),
        ("alignment 2^31", |f| second(f, aligned(4, &[0, 0, 0, 128])), "FB-3609", "2147483648"),
        ("alignment 2^32 - 1", |f| second(f, aligned(4, &[255; 4])), "FB-3609", "4294967295"),
        (
            "alignment as u64",
            |f| second(f, aligned(10, &[32, 0, 0, 0, 0, 0, 0, 0])),
            "FB-3609",
            "u64",
        ),
        ("alignment as text", |f| second(f, aligned(8, &text(b"32"))), "FB-3609", "string"),
    ]);
}

fn aligned(ty: u32, value: &[u8]) -> Vec<u8> {
    entry("general.alignment", ty, value)
}

fn nested(depth: usize) -> Vec<u8> {
    let level = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    entry("k", 9, &level.repeat(depth))
}

#[test]
fn tensors() {
    check(&[
        ("empty name", |f| f.tensors[1].name.clear(), "FB-3610", "tensor[1]: the name has 0 bytes"),
        ("long name", |f| f.tensors[1].name = vec![b'x'; 64], "FB-3610", "64 bytes"),
        ("name twice", |f| f.tensors[1].name = b"a".to_vec(), "FB-3610", "\"a\" stands twice"),
        ("name not UTF-8", |f| f.tensors[1].name = vec![0xff], "FB-3604", "tensor[1]: name"),
        ("5 dimensions", |f| f.tensors[1].ne = vec![32, 2, 1, 1, 1], "FB-3611", "5 dimensions"),
        ("2^32 - 1 dimensions", |f| f.tensors[1].dims = Some(u32::MAX), "FB-3611", "4294967295"),
        (
            "negative size",
            |f| f.tensors[1].ne[1] = u64::MAX,
            "FB-3611",
            "ne[1]: a size is negative",
        ),
        ("2^63", |f| f.tensors[1].ne[0] = 1 << 63, "FB-3611", "ne[0]: a size is negative"),
        ("overflow", |f| f.tensors[0].ne = vec![1 << 40, 1 << 40], "FB-3611", "has no size"),
        (
            "wraps to 4",
            |f| f.tensors[0].ne = vec![4194305, 4194305, 211106198978564],
            "FB-3611",
            "has no size",
        ),
        ("elements overflow", |f| f.tensors[0].ne = vec![1 << 62, 4], "FB-3611", "too long"),
        ("bytes overflow", |f| f.tensors[0].ne = vec![1 << 62], "FB-3611", "F32"),
        ("part of a block", |f| f.tensors[1].ne[0] = 33, "FB-3611", "33 elements"),
        ("rows as columns", |f| f.tensors[1].ne = vec![2, 32], "FB-3611", "2 elements"),
        ("unknown type", |f| f.tensors[1].ty = 999, "FB-4101", "tensor type 999 is unknown"),
        ("type -1", |f| f.tensors[1].ty = u32::MAX, "FB-4101", "tensor[1] \"b\": type"),
        ("removed type", |f| f.tensors[1].ty = 4, "FB-4101", "removed"),
        ("intermediate type", |f| f.tensors[1].ty = 15, "FB-4101", "intermediate"),
        ("unaligned", |f| f.tensors[1].offset = 33, "FB-3612", "no multiple of the alignment 32"),
        ("a hole", |f| f.tensors[1].offset = 64, "FB-3612", "the tensors before end at 32"),
        ("same place", |f| f.tensors[1].offset = 0, "FB-3612", "\"b\": offset"),
        ("far away", |f| f.tensors[1].offset = u64::MAX - 31, "FB-3612", "is 18446744073709551584"),
        ("first not at 0", |f| f.tensors[0].offset = 32, "FB-3612", "end at 0"),
        ("swapped", |f| f.tensors.swap(0, 1), "FB-3612", "tensor[0] \"b\""),
        ("last leaves the file", |f| f.data.truncate(137), "FB-3613", "10 bytes at offset 128"),
        ("all leave the file", |f| f.data.clear(), "FB-3613", "tensor[0]"),
        ("larger than the file", |f| f.tensors[2].ne = vec![1 << 40], "FB-3613", "tensor[2] \"c\""),
        ("2^62 bytes", |f| f.tensors[2].ne = vec![1 << 61], "FB-3613", "leave the data"),
    ]);
}

#[test]
fn alignment_and_offsets_must_agree() {
    let mut file = File::small();
    file.metadata[1] = aligned(4, &64u32.to_le_bytes());
    file.alignment = 64;
    check_bytes("offsets for 32", file.bytes(), "FB-3612", "alignment 64");
    file.tensors[1].offset = 64;
    file.tensors[2].offset = 192;
    file.data.resize(202, 0);
    assert!(read(file.bytes()).is_ok());
    file.data.truncate(201);
    check_bytes("cut off", file.bytes(), "FB-3613", "\"c\"");
}

#[test]
fn a_name_from_the_file_cannot_write_to_the_terminal() {
    let mut file = File::small();
    file.tensors[1].name = b"\x1b[2J\n<script>".to_vec();
    file.tensors[1].offset = 1;
    let error = refusal(file.bytes());
    assert!(error.to_string().chars().all(|c| !c.is_control()), "{error}");
}

#[test]
fn every_truncation_is_refused() {
    let whole = File::small().bytes();
    // Behind the last tensor stand 22 bytes of padding.
    for len in 0..whole.len() - 22 {
        refusal(whole[..len].to_vec());
    }
}

#[test]
fn every_flipped_byte_is_refused_or_harmless() {
    let whole = File::small().bytes();
    for at in 0..whole.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            let Ok(found) = read(bytes) else { continue };
            for tensor in found.tensors() {
                assert_eq!(tensor.bytes.as_ref().len(), tensor.byte_len().unwrap());
                assert_eq!(tensor.to_f32().unwrap().shape(), tensor.shape);
            }
        }
    }
}

/// A sparse file of zeros costs neither time nor memory.
#[test]
fn five_gibibytes_of_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zeros.gguf");
    std::fs::File::create(&path).unwrap().set_len(5 << 30).unwrap();
    let start = std::time::Instant::now();
    let error = fewbit_formats::gguf::read(&path).unwrap_err();
    assert_eq!(error.stable_code(), "FB-3004");
    let error = fewbit_formats::safetensors::read(&path).unwrap_err();
    assert_eq!(error.stable_code(), "FB-3501");
    assert!(start.elapsed().as_secs_f64() < 1.0);
}
