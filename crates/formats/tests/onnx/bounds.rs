//! Hostile files may cost neither time nor memory; large sound ones cost in proportion.
//!
//! Measured in a process of its own: other tests would count too.

use crate::samples::*;
use fewbit_core::DType;
use fewbit_formats::onnx;
use fewbit_formats::onnx::schema::*;
use prost::Message;
use std::time::{Duration, Instant};

/// Resident bytes: now, or at their highest since the last reset.
fn resident(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Runs `work` and returns its time and how far memory rose.
fn measure(work: impl FnOnce()) -> (Duration, u64) {
    // Writing 5 resets the high-water mark of this process.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = resident("VmRSS");
    let start = Instant::now();
    work();
    (start.elapsed(), resident("VmHWM").saturating_sub(before))
}

/// A file of one kind of message, repeated up to `bytes`.
fn repeated(field: u8, message: &[u8], bytes: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(bytes + 64);
    while body.len() < bytes {
        body.push(field << 3 | 2);
        prost::encoding::encode_varint(message.len() as u64, &mut body);
        body.extend(message);
    }
    let mut file = vec![0x08, 10, 0x3a];
    prost::encoding::encode_varint(body.len() as u64, &mut file);
    file.extend(body);
    file
}

/// Functions that double, `levels` deep.
fn doubling(levels: usize) -> Vec<u8> {
    let call = |i: usize, from: &str, to: &str| NodeProto {
        domain: Some("d".into()),
        ..node(&format!("f{i}"), &[from], &[to])
    };
    let mut file = model(GraphProto {
        node: vec![call(0, "x", "y")],
        input: vec![value("x", DType::F32, &[1])],
        output: vec![value("y", DType::F32, &[1])],
        ..Default::default()
    });
    file.functions = (0..levels)
        .map(|i| FunctionProto {
            name: Some(format!("f{i}")),
            domain: Some("d".into()),
            input: vec!["a".into()],
            output: vec!["c".into()],
            node: vec![call(i + 1, "a", "b"), call(i + 1, "b", "c")],
            ..Default::default()
        })
        .collect();
    file.encode_to_vec()
}

fn sparse_file(dir: &std::path::Path) -> std::path::PathBuf {
    let path = dir.join("zeros.onnx");
    std::fs::File::create(&path).unwrap().set_len(5 << 30).unwrap();
    path
}

/// Set in the process that measures.
const MEASURING: &str = "FEWBIT_TEST_BOUNDS";

#[test]
fn hostile_files_are_refused_cheaply() {
    if std::env::var_os(MEASURING).is_some() {
        return measure_all();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "bounds::hostile_files_are_refused_cheaply", "--nocapture"])
        .env(MEASURING, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

fn measure_all() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = sparse_file(dir.path());
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("doubling functions", doubling(40)),
        ("long doubling functions", doubling(60)),
        ("empty nodes", repeated(1, b"", 8 << 20)),
        ("empty tensors", repeated(5, b"", 8 << 20)),
        ("empty types", repeated(13, b"", 8 << 20)),
        ("smallest nodes", repeated(1, b"\x22\x01x", 1 << 19)),
        ("smallest tensors", repeated(5, b"\x10\x01", 1 << 18)),
        ("groups", [0x0b; 1 << 20].to_vec()),
    ];
    let mut shape = conv();
    let weight = &mut shape.graph.as_mut().unwrap().initializer[0];
    weight.dims = vec![1 << 20, 1 << 20];
    cases.push(("a tensor of 4 TiB", shape.encode_to_vec()));

    for (name, file) in cases {
        let (time, memory) = measure(|| {
            onnx::read_bytes(file.into(), None).expect_err(name);
        });
        eprintln!("{name}: {time:?}, {} KiB", memory >> 10);
        assert!(time < Duration::from_secs(1), "{name}: {time:?}");
        assert!(memory < 64 << 20, "{name}: {memory} bytes");
    }
    let (time, memory) = measure(|| {
        onnx::read(&sparse).expect_err("zeros");
    });
    assert!(time < Duration::from_secs(1) && memory < 64 << 20, "{time:?} {memory}");
}

/// As many additions of one-element constants, one after the other.
fn additions(count: usize) -> Vec<u8> {
    let value_name = |i: usize| format!("v{i}");
    let weight = |i: usize| format!("w{i}");
    let add = |i| node("Add", &[&value_name(i), &weight(i)], &[&value_name(i + 1)]);
    let file = model(GraphProto {
        node: (0..count).map(add).collect(),
        initializer: (0..count).map(|i| floats(&weight(i), &[1], &[1.0])).collect(),
        input: vec![value("v0", DType::F32, &[1])],
        output: vec![value(&value_name(count), DType::F32, &[1])],
        ..Default::default()
    });
    file.encode_to_vec()
}

#[test]
fn many_small_tensors_take_linear_time() {
    let time = |count| {
        let file = additions(count);
        let start = Instant::now();
        let model = onnx::read_bytes(file.into(), None).unwrap();
        onnx::read_bytes(onnx::to_bytes(&model).unwrap().into(), None).unwrap();
        start.elapsed()
    };
    let (few, many) = (time(10_000), time(100_000));
    eprintln!("10,000: {few:?}, 100,000: {many:?}");
    // Quadratic time would be a hundred times as much; noise of a busy machine is not.
    assert!(many < 50 * few.max(Duration::from_millis(20)), "{few:?} {many:?}");
}
