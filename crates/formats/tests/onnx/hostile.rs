//! Files that contradict themselves: each has a stable code, a place and no panic.

use crate::samples::*;
use fewbit_core::{DType, Error};
use fewbit_formats::onnx::schema::*;
use fewbit_formats::onnx::{self, Bytes};
use prost::Message;
use std::path::Path;

fn refusal(model: &ModelProto) -> Error {
    onnx::read_bytes(model.encode_to_vec().into(), None).expect_err("must be refused")
}

/// A change of a sound model, the code of its refusal and a part of the message.
type Case = (&'static str, fn(&mut ModelProto), &'static str, &'static str);

fn check(sample: fn() -> ModelProto, cases: &[Case]) {
    for (name, change, code, message) in cases {
        let mut model = sample();
        change(&mut model);
        let error = refusal(&model);
        assert_eq!(error.stable_code(), *code, "{name}: {error:?}");
        assert!(error.to_string().contains(message), "{name}: {error}");
        assert!(matches!(error.kind().exit_code(), 3 | 4), "{name}");
    }
}

fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

fn weight(model: &mut ModelProto) -> &mut TensorProto {
    &mut graph(model).initializer[0]
}

fn bias(model: &mut ModelProto) -> &mut TensorProto {
    &mut graph(model).initializer[1]
}

#[test]
fn headers() {
    check(
        conv,
        &[
            ("no graph", |m| m.graph = None, "FB-3210", "no graph"),
            ("no IR version", |m| m.ir_version = None, "FB-3211", "`ir_version` is 0"),
            ("IR version 2", |m| m.ir_version = Some(2), "FB-4105", "3 to 14"),
            ("IR version 15", |m| m.ir_version = Some(15), "FB-4105", "3 to 14"),
            ("negative IR version", |m| m.ir_version = Some(-1), "FB-3211", "-1"),
            ("no opset_import", |m| m.opset_import.clear(), "FB-3212", "opset_import"),
            ("opset 0", |m| m.opset_import[0].version = Some(0), "FB-3212", "version 0"),
            ("opset 2^31", |m| m.opset_import[0].version = Some(1 << 31), "FB-3212", "2147483648"),
            ("opset 29", |m| m.opset_import[0].version = Some(29), "FB-4105", "29"),
            (
                "two opsets",
                |m| m.opset_import.push(opset("ai.onnx", 9)),
                "FB-3212",
                "opset_import[1]",
            ),
            (
                "only a foreign opset",
                |m| m.opset_import[0].domain = Some("com.microsoft".into()),
                "FB-3212",
                "Conv",
            ),
        ],
    );
}

#[test]
fn graphs() {
    check(
        conv,
        &[
            (
                "undefined input",
                |m| graph(m).node[1].input[0] = "nowhere".into(),
                "FB-3107",
                "reads `nowhere`",
            ),
            ("cycle", |m| graph(m).node[0].input[0] = "y".into(), "FB-3104", "cycle"),
            ("own output", |m| graph(m).node[1].input[0] = "y".into(), "FB-3104", "cycle"),
            (
                "duplicate output",
                |m| graph(m).node[1].output[0] = "c".into(),
                "FB-3102",
                "node[1] Relu",
            ),
            (
                "output twice in one node",
                |m| graph(m).node[1].output.push("y".into()),
                "FB-3102",
                "`y` is defined twice",
            ),
            (
                "input overwritten",
                |m| graph(m).node[0].output[0] = "x".into(),
                "FB-3102",
                "node[0]",
            ),
            (
                "weight overwritten",
                |m| graph(m).node[0].output[0] = "w".into(),
                "FB-3102",
                "node[0]",
            ),
            (
                "duplicate initializer",
                |m| bias(m).name = Some("w".into()),
                "FB-3102",
                "initializer[1]",
            ),
            ("nameless initializer", |m| bias(m).name = None, "FB-3101", "initializer[1]"),
            ("nameless input", |m| graph(m).input[0].name = Some("".into()), "FB-3101", "input[0]"),
            (
                "input twice",
                |m| {
                    let twin = graph(m).input[0].clone();
                    graph(m).input.push(twin);
                },
                "FB-3102",
                "input[1]",
            ),
            (
                "graph output twice",
                |m| {
                    let twin = graph(m).output[0].clone();
                    graph(m).output.push(twin);
                },
                "FB-3102",
                "output[1]",
            ),
            (
                "output never computed",
                |m| graph(m).output[0].name = Some("z".into()),
                "FB-3106",
                "`z` is never computed",
            ),
            ("no operator", |m| graph(m).node[0].op_type = None, "FB-3204", "node[0]"),
            (
                "empty operator",
                |m| graph(m).node[0].op_type = Some("".into()),
                "FB-3109",
                "node[0]",
            ),
            (
                "default of another type",
                |m| graph(m).input.push(value("w", DType::I64, &[2, 3, 3, 3])),
                "FB-3108",
                "input[1] \"w\"",
            ),
            (
                "negative size in a type",
                |m| {
                    let mut ty =
                        TypeProto::decode(graph(m).input[0].r#type.clone().unwrap()).unwrap();
                    ty.tensor_type.as_mut().unwrap().shape.as_mut().unwrap().dim[1].dim_value =
                        Some(-7);
                    graph(m).input[0].r#type = Some(ty.encode_to_vec().into());
                },
                "FB-3220",
                "shape.dim[1] is -7",
            ),
            (
                "unknown element type",
                |m| {
                    let mut ty =
                        TypeProto::decode(graph(m).input[0].r#type.clone().unwrap()).unwrap();
                    ty.tensor_type.as_mut().unwrap().elem_type = Some(999);
                    graph(m).input[0].r#type = Some(ty.encode_to_vec().into());
                },
                "FB-4101",
                "input[0] \"x\"",
            ),
        ],
    );
}

#[test]
fn attributes() {
    check(
        conv,
        &[
            (
                "wrong kind",
                |m| graph(m).node[0].attribute[2].r#type = Some(attribute_type::FLOAT),
                "FB-3103",
                "attribute \"group\": `type` is FLOAT, found INT",
            ),
            (
                "two values",
                |m| graph(m).node[0].attribute[2].ints = vec![1],
                "FB-3103",
                "found INT and INTS",
            ),
            (
                "no value",
                |m| {
                    graph(m).node[0].attribute[2] =
                        AttributeProto { name: Some("a".into()), ..Default::default() }
                },
                "FB-3103",
                "no value",
            ),
            (
                "twice",
                |m| graph(m).node[0].attribute[1].name = Some("group".into()),
                "FB-3110",
                "attribute \"group\"",
            ),
            (
                "tensor missing",
                |m| graph(m).node[0].attribute[2] = attribute("t", attribute_type::TENSOR),
                "FB-3103",
                "`t` is missing",
            ),
            (
                "reference outside a function",
                |m| graph(m).node[0].attribute[2].ref_attr_name = Some("a".into()),
                "FB-3243",
                "function",
            ),
        ],
    );
}

#[test]
fn tensors() {
    check(
        conv,
        &[
            ("UNDEFINED", |m| weight(m).data_type = Some(0), "FB-3220", "UNDEFINED"),
            ("no type", |m| weight(m).data_type = None, "FB-3204", "initializer[0]"),
            ("type 999", |m| weight(m).data_type = Some(999), "FB-4101", "999"),
            ("type -1", |m| weight(m).data_type = Some(-1), "FB-4101", "-1"),
            ("6-bit floats", |m| weight(m).data_type = Some(28), "FB-4101", "float6e3m2"),
            ("negative size", |m| weight(m).dims[1] = -3, "FB-3220", "dims[1] is -3"),
            (
                "product overflows",
                |m| weight(m).dims = vec![1 << 40, 1 << 40],
                "FB-3220",
                "no size",
            ),
            (
                "wraps to 4",
                |m| weight(m).dims = vec![4194305, 4194305, 211106198978564],
                "FB-3220",
                "no size",
            ),
            (
                "bytes overflow",
                |m| weight(m).dims = vec![1 << 62],
                "FB-3221",
                "no representable size",
            ),
            ("too few bytes", |m| weight(m).dims[0] = 3, "FB-3221", "needs 324 bytes, found 216"),
            ("too many bytes", |m| weight(m).dims[0] = 1, "FB-3221", "needs 108 bytes, found 216"),
            ("no data", |m| weight(m).raw_data = None, "FB-3221", "needs 54 entries"),
            ("65 dimensions", |m| weight(m).dims = vec![1; 65], "FB-4103", "65 dimensions"),
            (
                "raw and typed",
                |m| weight(m).float_data = vec![1.0],
                "FB-3220",
                "both `raw_data` and `float_data`",
            ),
            (
                "two typed",
                |m| bias(m).int32_data = vec![1],
                "FB-3220",
                "both `float_data` and `int32_data`",
            ),
            (
                "wrong typed field",
                |m| bias(m).data_type = Some(7),
                "FB-3221",
                "`int64_data`, found 0",
            ),
            ("segment", |m| weight(m).segment = Some(Bytes::new()), "FB-4102", "segment"),
            ("raw strings", |m| weight(m).data_type = Some(8), "FB-3220", "strings"),
            (
                "external without a folder",
                |m| external(m, &[("location", "w.bin")]),
                "FB-4104",
                "initializer[0]",
            ),
            (
                "typed data besides external",
                |m| {
                    bias(m).data_location = Some(1);
                },
                "FB-3220",
                "external",
            ),
        ],
    );
    check(
        quantized,
        &[
            (
                "odd int4",
                |m| graph(m).initializer[5].dims[1] = 7,
                "FB-3221",
                "needs 4 bytes, found 3",
            ),
            (
                "i8 out of range",
                |m| {
                    let tensor = &mut graph(m).initializer[4];
                    tensor.raw_data = None;
                    tensor.int32_data = vec![0, 128, 0];
                },
                "FB-3222",
                "int32_data[1] is 128",
            ),
            (
                "u32 out of range",
                |m| {
                    let tensor = &mut graph(m).initializer[4];
                    tensor.data_type = Some(12);
                    tensor.raw_data = None;
                    tensor.uint64_data = vec![0, 1, 1 << 32];
                },
                "FB-3222",
                "uint64_data[2]",
            ),
        ],
    );
}

#[test]
fn functions() {
    fn function(m: &mut ModelProto) -> &mut FunctionProto {
        &mut m.functions[0]
    }
    check(
        control,
        &[
            (
                "recursive",
                |m| {
                    function(m).node[0].op_type = Some("LeakyAbs".into());
                    function(m).node[0].domain = Some("local".into());
                },
                "FB-3241",
                "calls itself",
            ),
            (
                "defined twice",
                |m| {
                    let twin = function(m).clone();
                    m.functions.push(twin);
                },
                "FB-3240",
                "local::LeakyAbs",
            ),
            (
                "too many inputs",
                |m| graph(m).node[0].input.push("flag".into()),
                "FB-3242",
                "takes 1 inputs",
            ),
            (
                "too many outputs",
                |m| graph(m).node[0].output.push("q".into()),
                "FB-3242",
                "takes 1 outputs",
            ),
            (
                "another opset",
                |m| function(m).opset_import[0].version = Some(17),
                "FB-4106",
                "version 17",
            ),
            (
                "output not computed",
                |m| function(m).output = vec!["q".into()],
                "FB-3107",
                "reads `f`",
            ),
            ("bomb", bomb, "FB-4107", "expand"),
            ("deep", deep, "FB-4107", "deeper"),
            ("subgraphs nested by calls", nested_by_calls, "FB-3105", "nest deeper"),
            ("subgraphs doubled by calls", doubled_by_calls, "FB-4107", "expand"),
        ],
    );
}

/// Function `i` calls function `i + 1` twice: 2^40 nodes.
fn bomb(model: &mut ModelProto) {
    chain(model, 40, 2);
}

/// A thousand functions, one inside the other.
fn deep(model: &mut ModelProto) {
    chain(model, 1000, 1);
}

fn chain(model: &mut ModelProto, count: usize, calls: usize) {
    let base = model.functions[0].clone();
    model.functions = (0..count)
        .map(|i| {
            let call = |k: usize| {
                let (from, to) = (format!("v{k}"), format!("v{}", k + 1));
                let mut call = node(&format!("f{}", i + 1), &[&from], &[&to]);
                call.domain = Some("local".into());
                call
            };
            FunctionProto {
                name: Some(format!("f{i}")),
                input: vec!["v0".into()],
                output: vec![format!("v{calls}")],
                node: (0..calls).map(call).collect(),
                ..base.clone()
            }
        })
        .collect();
    graph(model).node[0].op_type = Some("f0".into());
}

/// Forty functions, each with the call of the next one inside an `If`.
fn nested_by_calls(model: &mut ModelProto) {
    chain(model, 40, 1);
    for function in &mut model.functions {
        let call = function.node.remove(0);
        let branch = GraphProto {
            node: vec![NodeProto { output: vec!["r".into()], ..call }],
            output: vec![value("r", DType::F32, &[4])],
            ..Default::default()
        };
        function.node = vec![with(node("If", &["v0"], &["v1"]), vec![subgraph("b", branch)])];
    }
}

/// Each function hands on a subgraph that holds its own subgraph twice.
fn doubled_by_calls(model: &mut ModelProto) {
    chain(model, 30, 1);
    let reference = |name: &str| AttributeProto {
        ref_attr_name: Some("g".into()),
        ..attribute(name, attribute_type::GRAPH)
    };
    for function in &mut model.functions {
        let twice = with(node("Twice", &[], &["t"]), vec![reference("a"), reference("b")]);
        let graph = GraphProto { node: vec![twice], ..Default::default() };
        function.node[0].attribute = vec![subgraph("g", graph)];
    }
    graph(model).node[0].attribute = vec![subgraph("g", GraphProto::default())];
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) }
}

fn external(model: &mut ModelProto, entries: &[(&str, &str)]) {
    let tensor = weight(model);
    tensor.raw_data = None;
    tensor.data_location = Some(1);
    tensor.external_data = entries.iter().map(|(k, v)| entry(k, v)).collect();
}

/// Reads the sample with its weights declared elsewhere.
fn read_external(dir: &Path, entries: &[(&str, &str)]) -> fewbit_core::Result<fewbit_core::Model> {
    let mut model = conv();
    external(&mut model, entries);
    let path = dir.join("model.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    onnx::read(&path)
}

#[test]
fn external_data_stays_in_its_folder() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("model");
    std::fs::create_dir_all(dir.join("below")).unwrap();
    let secret = outer.path().join("secret");
    std::fs::write(&secret, [1u8; 216]).unwrap();
    std::fs::write(dir.join("w.bin"), [1u8; 216]).unwrap();
    std::fs::write(dir.join("below/w.bin"), [1u8; 216]).unwrap();
    std::os::unix::fs::symlink(&secret, dir.join("link")).unwrap();
    std::os::unix::fs::symlink(outer.path(), dir.join("parent")).unwrap();
    std::os::unix::fs::symlink(dir.join("w.bin"), dir.join("inside")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.join("device")).unwrap();
    std::fs::hard_link(&secret, dir.join("hard")).unwrap();

    for location in ["w.bin", "./w.bin", "below/w.bin", "inside"] {
        read_external(&dir, &[("location", location)]).unwrap_or_else(|e| panic!("{e:?}"));
    }
    let absolute = secret.to_str().unwrap();
    for location in [
        "../secret",
        "below/../../secret",
        absolute,
        "link",
        "parent/secret",
        "device",
        "hard",
        "",
        "w.bin\0",
        "..\\secret",
        "*/_ORT_MEM_ADDR_/*",
    ] {
        let error = read_external(&dir, &[("location", location)]).expect_err(location);
        assert_eq!(error.stable_code(), "FB-3231", "{location:?}: {error:?}");
        assert!(error.place().contains("initializer[0] \"w\""), "{error}");
    }
    let codes = [("missing", "FB-3001"), ("below", "FB-3002")];
    for (location, code) in codes {
        let error = read_external(&dir, &[("location", location)]).expect_err(location);
        assert_eq!(error.stable_code(), code, "{location:?}: {error:?}");
    }
}

/// A cache of Hugging Face: names that are links into a folder of contents.
#[test]
fn links_of_a_cache_lead_to_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in ["blobs", "snapshot/onnx", "other"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    std::fs::write(at("blobs/2"), [1u8; 216]).unwrap();
    std::fs::write(at("other/2"), [1u8; 216]).unwrap();
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(Path::new("../..").join(to), at("snapshot/onnx").join(name))
    };
    link("blobs/1", "model.onnx").unwrap();
    link("blobs/2", "weights").unwrap();
    link("other/2", "astray").unwrap();
    let read = |location: &str| {
        let mut model = conv();
        external(&mut model, &[("location", location)]);
        std::fs::write(at("blobs/1"), model.encode_to_vec()).unwrap();
        onnx::read(&at("snapshot/onnx/model.onnx"))
    };
    read("weights").unwrap_or_else(|e| panic!("{e:?}"));
    for location in ["astray", "../../blobs/2", "../../other/2"] {
        assert_eq!(read(location).unwrap_err().stable_code(), "FB-3231", "{location}");
    }
    // A model that is no link has one folder.
    let mut model = conv();
    external(&mut model, &[("location", "weights")]);
    std::fs::write(at("snapshot/onnx/plain.onnx"), model.encode_to_vec()).unwrap();
    let error = onnx::read(&at("snapshot/onnx/plain.onnx")).unwrap_err();
    assert_eq!(error.stable_code(), "FB-3231");
}

#[test]
fn external_ranges_and_keys_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("w.bin"), [1u8; 300]).unwrap();
    let at = ("location", "w.bin");
    read_external(dir.path(), &[at, ("offset", "84"), ("length", "216")]).unwrap();
    let max = u64::MAX.to_string();
    let wraps = (u64::MAX - 100).to_string();
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[at, ("offset", "85")], "FB-3232"),
        (&[at, ("offset", &max)], "FB-3232"),
        (&[at, ("offset", &wraps), ("length", "216")], "FB-3232"),
        (&[at, ("length", &max)], "FB-3221"),
        (&[at, ("length", "215")], "FB-3221"),
        (&[at, ("offset", "-1")], "FB-3230"),
        (&[at, ("offset", "1e3")], "FB-3230"),
        (&[at, ("offset", "18446744073709551616")], "FB-3230"),
        (&[at, ("__class__", "x")], "FB-3230"),
        (&[at, at], "FB-3230"),
        (&[("offset", "0")], "FB-3230"),
        (&[], "FB-3230"),
    ];
    for (entries, code) in cases {
        let error = read_external(dir.path(), entries).unwrap_err();
        assert_eq!(error.stable_code(), *code, "{entries:?}: {error:?}");
    }
}

#[test]
fn other_formats_are_recognized() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let cases: &[(&[u8], &str, u8)] = &[
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "FB-4001", 4),
        (b"GGUF\x03\0\0\0", "FB-4001", 4),
        (b"\x80\x02}q\0.", "FB-4001", 4),
        (b"\x89HDF\r\n\x1a\n", "FB-4001", 4),
        (b"hello, world", "FB-3004", 3),
        (&[0; 4096], "FB-3004", 3),
        (b"\x08", "FB-3004", 3),
        (b"x", "FB-3004", 3),
        (b"", "FB-3003", 3),
    ];
    for (bytes, code, exit) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = onnx::read(&path).unwrap_err();
        assert_eq!((error.stable_code(), error.kind().exit_code()), (*code, *exit), "{error:?}");
        assert!(error.place().contains("model.onnx"), "{error}");
        assert!(error.advice().is_some() || bytes.is_empty(), "{error:?}");
    }
}

#[test]
fn tensor_files_hold_tensors_only() {
    let tensor = floats("t", &[2], &[1.0, 2.0]);
    let read = onnx::tensor_from_bytes(&tensor.encode_to_vec().into()).unwrap();
    assert_eq!(read.to_f32().unwrap(), [1.0, 2.0]);
    // A sequence: its name, its kind, then tensors.
    let mut sequence = b"\x0a\x01s\x10\x01\x1a".to_vec();
    prost::encoding::encode_varint(tensor.encoded_len() as u64, &mut sequence);
    sequence.extend(tensor.encode_to_vec());
    let error = onnx::tensor_from_bytes(&sequence.into()).unwrap_err();
    assert_eq!(error.stable_code(), "FB-4102");
    assert!(error.advice().unwrap().contains("sequence"), "{error:?}");
}
