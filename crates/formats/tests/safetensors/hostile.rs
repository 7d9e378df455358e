//! Files that contradict themselves: each has a stable code, a place and no panic.

use crate::samples::*;
use fewbit_core::Error;

fn refusal(bytes: Vec<u8>) -> Error {
    read(bytes).expect_err("must be refused")
}

/// Name, file, code, exit code, part of the message.
type Case = (&'static str, Vec<u8>, &'static str, u8, &'static str);

fn check(cases: Vec<Case>) {
    for (name, bytes, code, exit, message) in cases {
        let start = std::time::Instant::now();
        let error = refusal(bytes);
        assert_eq!(error.stable_code(), code, "{name}: {error:?}");
        assert_eq!(error.kind().exit_code(), exit, "{name}");
        assert!(error.to_string().contains(message), "{name}: {error}");
        assert!(error.to_string().len() < 1000, "{name}: the message is a flood");
        assert!(start.elapsed().as_secs_f64() < 1.0, "{name} took {:?}", start.elapsed());
    }
}

fn lengths(length: u64) -> Vec<u8> {
    [&length.to_le_bytes()[..], b"{}"].concat()
}

#[test]
fn header_lengths() {
    check(vec![
        ("one byte", vec![0], "FB-3501", 3, "1 bytes"),
        ("seven bytes", vec![0; 7], "FB-3501", 3, "7 bytes"),
        ("zero", lengths(0), "FB-3501", 3, "0 bytes"),
        ("one", lengths(1), "FB-3501", 3, "1 bytes"),
        ("past the end", lengths(3), "FB-3501", 3, "only 2 follow"),
        ("largest", lengths(100_000_000), "FB-3501", 3, "only 2 follow"),
        ("too large", lengths(100_000_001), "FB-3501", 3, "100000000 are allowed"),
        ("2^63", lengths(1 << 63), "FB-3501", 3, "header length"),
        ("2^64 - 1", lengths(u64::MAX), "FB-3501", 3, "header length"),
        ("zeros", vec![0; 4096], "FB-3501", 3, "0 bytes"),
    ]);
}

#[test]
fn headers_that_are_no_json() {
    let deep = "[".repeat(100_000);
    let deep_entry = format!(r#"{{"a":{}}}"#, r#"{"a":"#.repeat(100_000));
    let wide = format!(r#"{{"a":[{}0]}}"#, "0,".repeat(2000));
    check(vec![
        ("no UTF-8", file(b"{\"\xff\":1}", b""), "FB-3502", 3, "byte 10"),
        ("text", file(b"hello, world", b""), "FB-3502", 3, "byte 8"),
        ("a list", file(b"[1,2]", b""), "FB-3502", 3, "an object"),
        ("a number", file(b"12", b""), "FB-3502", 3, "an object"),
        ("not closed", file(b"{\"a\":{}", b""), "FB-3504", 3, "dtype"),
        ("cut off", file(b"{\"a\":{", b""), "FB-3502", 3, "EOF"),
        ("two values", file(b"{}{}", b""), "FB-3502", 3, "trailing"),
        ("deep", file(deep.as_bytes(), b""), "FB-3502", 3, "an object"),
        ("deep entry", file(deep_entry.as_bytes(), b""), "FB-3502", 3, "recursion"),
        ("wide entry", file(wide.as_bytes(), b""), "FB-3502", 3, "more than 1024 members"),
        ("control character", file(b"{\"a\x1b\":{}}", b""), "FB-3502", 3, "control character"),
        ("NUL padding", file(b"{}\0\0\0\0", b""), "FB-3502", 3, "byte 10"),
    ]);
}

fn one(fields: &str) -> Vec<u8> {
    file(format!(r#"{{"a":{{{fields}}}}}"#).as_bytes(), &[0; 4])
}

#[test]
fn entries() {
    let good = r#""dtype":"U8","shape":[4],"data_offsets":[0,4]"#;
    assert!(read(one(good)).is_ok());
    let with = |from: &str, to: &str| one(&good.replace(from, to));
    check(vec![
        ("no object", file(br#"{"a":7}"#, b""), "FB-3504", 3, "tensor \"a\": expected an object"),
        ("no dtype", with(r#""dtype":"U8","#, ""), "FB-3504", 3, "`dtype` is missing"),
        ("no shape", with(r#""shape":[4],"#, ""), "FB-3504", 3, "`shape` is missing"),
        ("no offsets", with("data_offsets", "offsets"), "FB-3504", 3, "`data_offsets` is missing"),
        ("dtype twice", with("\"U8\"", r#""U8","dtype":"I8""#), "FB-3503", 3, "twice"),
        ("dtype number", with("\"U8\"", "7"), "FB-3504", 3, "dtype: expected a text"),
        ("unknown dtype", with("U8", "F6_E2M3"), "FB-4501", 4, "F6_E2M3"),
        ("lower case", with("U8", "u8"), "FB-4501", 4, "\"u8\""),
        ("negative offset", with("[0,4]", "[-1,3]"), "FB-3504", 3, "[0] is -1"),
        ("fraction", with("[0,4]", "[0,4.0]"), "FB-3504", 3, "[1] is 4"),
        ("text offset", with("[0,4]", r#"["0",4]"#), "FB-3504", 3, "a text"),
        ("null offset", with("[0,4]", "[null,4]"), "FB-3504", 3, "null"),
        ("huge offset", with("[0,4]", "[0,36893488147419103232]"), "FB-3504", 3, "[1]"),
        ("one offset", with("[0,4]", "[4]"), "FB-3504", 3, "two numbers"),
        ("three offsets", with("[0,4]", "[0,2,4]"), "FB-3504", 3, "two numbers"),
        ("begin after end", with("[0,4]", "[4,0]"), "FB-3504", 3, "begins at 4"),
        ("shape no list", with("[4]", "4"), "FB-3504", 3, "shape: expected a list"),
        ("negative shape", with("[4]", "[-4]"), "FB-3504", 3, "shape: [0] is -4"),
        ("65 dimensions", with("[4]", &format!("[4{}]", ",1".repeat(64))), "FB-4502", 4, "65"),
        ("needs more", with("[4]", "[5]"), "FB-3505", 3, "needs 5 bytes, found 4"),
        ("needs less", with("[4]", "[3]"), "FB-3505", 3, "needs 3 bytes, found 4"),
        ("product", with("[4]", "[2,18446744073709551614]"), "FB-3505", 3, "no size"),
        ("product 2", with("[4]", "[2,9223372036854775807]"), "FB-3505", 3, "no size"),
        ("wraps to 4", with("[4]", "[4194305,4194305,211106198978564]"), "FB-3505", 3, "no size"),
        (
            "half a byte",
            with("\"U8\",\"shape\":[4]", "\"F4\",\"shape\":[7]"),
            "FB-3505",
            3,
            "28 bits",
        ),
        ("past the end", with("[0,4]", "[1,5]"), "FB-3506", 3, "1 to 5"),
        (
            "far past",
            with("[0,4]", "[18446744073709551611,18446744073709551615]"),
            "FB-3506",
            3,
            "leave",
        ),
        (
            "hole before",
            one(&good.replace("[4]", "[3]").replace("[0,4]", "[1,4]")),
            "FB-3507",
            3,
            "hole",
        ),
        (
            "left over",
            one(&good.replace("[4]", "[3]").replace("[0,4]", "[0,3]")),
            "FB-3508",
            3,
            "1 bytes",
        ),
    ]);
}

#[test]
fn neighbours() {
    let u8s = |name: &str, begin: u64, end: u64| {
        entry(name, "U8", &format!("[{}]", end - begin), begin, end)
    };
    let twice = [u8s("a", 0, 2), u8s("a", 2, 4)];
    check(vec![
        ("overlap", of(&[u8s("a", 0, 3), u8s("b", 2, 4)], &[0; 4]), "FB-3507", 3, "\"b\""),
        ("same place", of(&[u8s("a", 0, 4), u8s("b", 0, 4)], &[0; 4]), "FB-3507", 3, "overlaps"),
        ("inside", of(&[u8s("a", 0, 4), u8s("b", 1, 2)], &[0; 4]), "FB-3507", 3, "overlaps"),
        ("hole", of(&[u8s("a", 0, 1), u8s("b", 2, 4)], &[0; 4]), "FB-3507", 3, "hole"),
        ("empty one apart", of(&[u8s("a", 0, 4), u8s("b", 2, 2)], &[0; 4]), "FB-3507", 3, "\"b\""),
        ("same name", of(&twice, &[0; 4]), "FB-3503", 3, "\"a\" stands twice"),
        (
            "second file behind",
            [small(), b"PK\x03\x04zip".to_vec()].concat(),
            "FB-3508",
            3,
            "7 bytes",
        ),
        ("data for none", file(b"{}", b"x"), "FB-3508", 3, "1 bytes"),
    ]);
}

#[test]
fn metadata() {
    let with = |text: &str| file(format!(r#"{{"__metadata__":{text}}}"#).as_bytes(), b"");
    let bomb = format!("{{{}\"z\":\"\"}}", "\"\":\"\",".repeat(100_000));
    check(vec![
        ("number", with(r#"{"a":1}"#), "FB-3509", 3, "\"a\" is 1"),
        ("nested", with(r#"{"a":{"b":"c"}}"#), "FB-3509", 3, "an object"),
        ("list", with("[]"), "FB-3509", 3, "a list"),
        ("key twice", with(r#"{"a":"1","a":"2"}"#), "FB-3503", 3, "__metadata__"),
        ("metadata twice", with(r#"{},"__metadata__":{}"#), "FB-3503", 3, "twice"),
        ("100,000 entries", with(&bomb), "FB-3502", 3, "more than 65536"),
    ]);
}

#[test]
fn a_name_from_the_file_cannot_write_to_the_terminal() {
    let name = "\\u001b[2J\\n".to_string() + &"x".repeat(4096);
    let error = refusal(of(&[entry(&name, "U8", "[1]", 0, 2)], &[0; 2]));
    assert!(error.to_string().chars().all(|c| !c.is_control()), "{error}");
}

#[test]
fn other_formats_are_named() {
    for (bytes, name) in [(&b"GGUF\x03\0\0\0\0\0\0\0"[..], "GGUF"), (b"\x80\x02}q\0.", "pickle")] {
        let error = refusal(bytes.to_vec());
        assert_eq!(error.stable_code(), "FB-3004");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let whole = small();
    for len in 0..whole.len() {
        refusal(whole[..len].to_vec());
    }
}

#[test]
fn every_flipped_byte_is_refused_or_harmless() {
    let whole = small();
    for at in 0..whole.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            if let Ok(found) = read(bytes) {
                let sizes = found.tensors().iter().map(|t| t.to_tensor().unwrap().bytes().len());
                assert_eq!(sizes.sum::<usize>(), 19);
            }
        }
    }
}
