//! What a sound file may hold: it is understood, or it passes through untouched.

use crate::samples::*;
use fewbit_core::{Attr, DType, Dim, Model, Tensor};
use fewbit_formats::onnx::schema::*;
use fewbit_formats::onnx::{self, Bytes, ExternalData, WriteOptions};
use prost::Message;

fn read(model: &ModelProto) -> Model {
    onnx::read_bytes(model.encode_to_vec().into(), None).unwrap_or_else(|e| panic!("{e:?}"))
}

fn written(model: &Model) -> ModelProto {
    ModelProto::decode(&onnx::to_bytes(model).unwrap()[..]).unwrap()
}

fn ops(model: &Model) -> Vec<&str> {
    model.graph.nodes().map(|(_, n)| n.op.as_str()).collect()
}

fn constant<'a>(model: &'a Model, name: &str) -> &'a Tensor {
    model.graph.constant(model.graph.find_value(name).unwrap()).unwrap()
}

#[test]
fn functions_are_inlined_with_their_attributes() {
    let model = read(&control());
    assert_eq!(ops(&model), ["LeakyRelu", "Abs", "If"]);
    let (_, leaky) = model.graph.nodes().next().unwrap();
    assert_eq!(leaky.float("alpha").unwrap(), Some(0.25));
    assert_eq!(model.graph.name_of(leaky.input(0).unwrap()), "x");
    let (_, branch) = model.graph.nodes().nth(2).unwrap();
    assert_eq!(branch.graph("then_branch").unwrap().unwrap().captures(), ["f"]);
}

#[test]
fn functions_call_functions_and_default_their_attributes() {
    let mut file = control();
    let graph = file.graph.as_mut().unwrap();
    graph.node[0].op_type = Some("Outer".into());
    graph.node[0].attribute.clear();
    let mut inner = node("LeakyAbs", &["p"], &["q"]);
    inner.domain = Some("local".into());
    inner.attribute = vec![AttributeProto {
        ref_attr_name: Some("steep".into()),
        ..attribute("slope", attribute_type::FLOAT)
    }];
    file.functions.push(FunctionProto {
        name: Some("Outer".into()),
        domain: Some("local".into()),
        input: vec!["p".into()],
        output: vec!["q".into()],
        attribute_proto: vec![AttributeProto {
            f: Some(0.75),
            ..attribute("steep", attribute_type::FLOAT)
        }],
        node: vec![inner],
        ..Default::default()
    });
    let model = read(&file);
    assert_eq!(ops(&model), ["LeakyRelu", "Abs", "If"]);
    assert_eq!(model.graph.nodes().next().unwrap().1.float("alpha").unwrap(), Some(0.75));
}

#[test]
fn an_absent_attribute_and_a_passed_through_output_are_sound() {
    let mut file = control();
    file.graph.as_mut().unwrap().node[0].attribute.clear();
    file.functions[0].output = vec!["a".into()];
    let model = read(&file);
    assert_eq!(ops(&model), ["LeakyRelu", "Abs", "Identity", "If"]);
    assert!(model.graph.nodes().next().unwrap().1.attrs.is_empty());
}

#[test]
fn subgraphs_inside_functions_keep_their_captures() {
    let mut file = control();
    let body = &mut file.functions[0];
    let branch = |op: &str| GraphProto {
        name: Some(op.into()),
        node: vec![node(op, &["l"], &["r"])],
        output: vec![value("r", DType::F32, &[4])],
        ..Default::default()
    };
    let choose = with(
        node("If", &["c"], &["z"]),
        vec![subgraph("then_branch", branch("Neg")), subgraph("else_branch", branch("Abs"))],
    );
    body.input.push("c".into());
    body.node[1] = choose;
    file.graph.as_mut().unwrap().node[0].input.push("flag".into());
    let model = read(&file);
    let (_, leaky) = model.graph.nodes().next().unwrap();
    let name = model.graph.name_of(leaky.output(0).unwrap());
    let (_, choose) = model.graph.nodes().nth(1).unwrap();
    assert_eq!(choose.graph("else_branch").unwrap().unwrap().captures(), [name]);
}

#[test]
fn constant_nodes_become_constants() {
    let one = |name: &str, attribute: AttributeProto| {
        with(node("Constant", &[], &[name]), vec![attribute])
    };
    let kinds = vec![
        one(
            "t",
            AttributeProto { t: Some(floats("", &[2], &[1.0, 2.0])), ..attribute("value", 4) },
        ),
        one("f", AttributeProto { f: Some(0.0), ..attribute("value_float", 1) }),
        one("fs", AttributeProto { floats: vec![3.0], ..attribute("value_floats", 6) }),
        one("i", int("value_int", -4)),
        one("is", ints("value_ints", &[5, 6])),
        one("s", AttributeProto { s: Some("a".into()), ..attribute("value_string", 3) }),
        one("ss", AttributeProto { strings: vec!["b".into()], ..attribute("value_strings", 8) }),
    ];
    let names = ["t", "f", "fs", "i", "is", "s", "ss"];
    let mut node_of_all = node("Custom", &names, &["y"]);
    node_of_all.domain = Some("some.where".into());
    let file = model(GraphProto {
        node: kinds.into_iter().chain([node_of_all]).collect(),
        output: vec![value("y", DType::F32, &[1]), value("fs", DType::F32, &[1])],
        ..Default::default()
    });
    let model = read(&file);
    assert_eq!(ops(&model), ["Custom"]);
    assert_eq!(constant(&model, "t"), &Tensor::vector(&[1f32, 2.0]));
    assert_eq!(constant(&model, "f"), &Tensor::scalar(0f32));
    assert_eq!(constant(&model, "i"), &Tensor::scalar(-4i64));
    assert_eq!(constant(&model, "is"), &Tensor::vector(&[5i64, 6]));
    assert_eq!(constant(&model, "s").strings().unwrap(), [b"a".to_vec()]);
    assert_eq!(constant(&model, "ss").shape(), [1]);
    // A constant that the graph gives out is written as a node again.
    let out = written(&model).graph.unwrap();
    assert_eq!(out.initializer.len(), 6);
    assert_eq!(out.node[0].output, ["fs"]);
}

#[test]
fn ir_version_3_keeps_its_constants_in_nodes() {
    let mut file = conv();
    file.ir_version = Some(3);
    let graph = file.graph.as_mut().unwrap();
    graph.input.push(value("w", DType::F32, &[2, 3, 3, 3]));
    graph.initializer.pop();
    graph.node.insert(
        0,
        with(
            node("Constant", &[], &["b"]),
            vec![AttributeProto {
                t: Some(floats("", &[2], &[0.5, -0.5])),
                ..attribute("value", attribute_type::TENSOR)
            }],
        ),
    );
    let model = read(&file);
    assert_eq!(model.graph.required_inputs().count(), 1);
    let out = written(&model).graph.unwrap();
    assert_eq!(out.initializer.len(), 1);
    assert_eq!(out.node[0].op_type(), "Constant");
    assert_eq!(out.input.len(), 2);
}

#[test]
fn unsorted_nodes_are_sorted() {
    let mut file = conv();
    file.graph.as_mut().unwrap().node.reverse();
    assert_eq!(ops(&read(&file)), ["Conv", "Relu"]);
}

#[test]
fn what_is_not_modelled_passes_through() {
    let mut file = conv();
    let entry = StringStringEntryProto { key: Some("k".into()), value: Some("v".into()) };
    file.training_info = vec![Bytes::from_static(b"\x0a\x00")];
    file.configuration = vec![Bytes::from_static(b"\x0a\x01g\x10\x02")];
    file.doc_string = Some("model".into());
    file.domain = Some("org.example".into());
    file.model_version = Some(7);
    file.producer_version = Some("1.2".into());
    let graph = file.graph.as_mut().unwrap();
    graph.doc_string = Some("graph".into());
    graph.metadata_props = vec![entry.clone()];
    graph.quantization_annotation = vec![TensorAnnotation {
        tensor_name: Some("c".into()),
        quant_parameter_tensor_names: vec![entry.clone()],
    }];
    graph.sparse_initializer = vec![SparseTensorProto {
        values: Some(floats("sparse", &[1], &[2.0])),
        indices: Some(TensorProto { int64_data: vec![3], ..raw("", DType::I64, &[1], &[]) }),
        dims: vec![10],
    }];
    graph.sparse_initializer[0].indices.as_mut().unwrap().raw_data = None;
    let ty = TypeProto {
        denotation: Some("IMAGE".into()),
        ..TypeProto::decode(graph.input[0].r#type.clone().unwrap()).unwrap()
    };
    graph.input[0].r#type = Some(ty.encode_to_vec().into());
    graph.input[0].doc_string = Some("pixels".into());
    graph.value_info[0].metadata_props = vec![entry.clone()];
    graph.initializer[0].doc_string = Some("weights".into());
    graph.initializer[0].metadata_props = vec![entry.clone()];
    graph.node[0].metadata_props = vec![entry.clone()];
    graph.node[0].device_configurations = vec![Bytes::from_static(b"\x0a\x01g")];
    graph.node[0].attribute[0].doc_string = Some("size".into());
    graph.node[0].doc_string = Some("node".into());
    let mut custom = with(
        node("Custom", &["c", "", "sparse"], &["s", "", "u"]),
        vec![
            AttributeProto { tp: Some(Bytes::from_static(b"\x22\x00")), ..attribute("tp", 13) },
            AttributeProto {
                sparse_tensor: Some(SparseTensorProto {
                    values: Some(floats("", &[1], &[2.0])),
                    ..Default::default()
                }),
                ..attribute("st", 11)
            },
            AttributeProto {
                strings: vec!["a".into(), Bytes::from_static(b"\xff")],
                ..attribute("n", 8)
            },
            AttributeProto { r#type: Some(77), ..attribute("kind of the future", 77) },
        ],
    );
    custom.domain = Some("org.example".into());
    custom.overload = Some("second".into());
    graph.node.push(custom);
    // A sequence of tensors as an output.
    let sequence = Bytes::from_static(b"\x22\x06\x0a\x04\x0a\x02\x08\x01");
    graph.output.push(ValueInfoProto {
        name: Some("s".into()),
        r#type: Some(sequence.clone()),
        ..Default::default()
    });

    let model = read(&file);
    let s = model.graph.value(model.graph.find_value("s").unwrap());
    assert_eq!(s.ty.opaque.as_deref(), Some(&sequence[..]));
    assert_eq!(ops(&model), ["Constant", "Conv", "Relu", "Custom"]);
    let (_, custom) = model.graph.nodes().nth(3).unwrap();
    assert!(matches!(custom.attr("tp"), Some(Attr::Opaque(_))));
    assert!(custom.outputs[1].is_none());

    let out = written(&model);
    let mut expected = file.clone();
    let weights = &mut expected.graph.as_mut().unwrap().initializer;
    weights[1] = raw("b", DType::F32, &[2], bytemuck::cast_slice(&[0.5f32, -0.5]));
    assert_eq!(out.graph, expected.graph);
    assert_eq!(out, expected);
}

#[test]
fn dimensions_keep_their_names() {
    let mut file = conv();
    let graph = file.graph.as_mut().unwrap();
    let dims = [
        DimensionProto { dim_param: Some("n".into()), ..Default::default() },
        DimensionProto { dim_value: Some(-1), ..Default::default() },
        DimensionProto::default(),
        DimensionProto { dim_value: Some(0), ..Default::default() },
    ];
    let ty = TypeProto {
        tensor_type: Some(TensorTypeProto {
            elem_type: Some(1),
            shape: Some(TensorShapeProto { dim: dims.to_vec() }),
        }),
        denotation: None,
    };
    graph.input[0].r#type = Some(ty.encode_to_vec().into());
    let model = read(&file);
    let shape = &model.graph.value(model.graph.inputs()[0]).ty.shape;
    let expected = vec![Dim::Named("n".into()), Dim::Unknown, Dim::Unknown, Dim::Known(0)];
    assert_eq!(shape.as_ref(), Some(&expected));
}

#[test]
fn typed_fields_of_every_type_are_decoded() {
    let ints = |dtype: DType, values: &[i32]| TensorProto {
        data_type: Some(dtype.to_onnx()),
        dims: vec![values.len() as i64],
        int32_data: values.to_vec(),
        ..Default::default()
    };
    for (dtype, values) in [
        (DType::I8, [-128, 127]),
        (DType::U8, [0, 255]),
        (DType::I16, [-32768, 32767]),
        (DType::U16, [0, 65535]),
        (DType::I32, [i32::MIN, i32::MAX]),
        (DType::Bool, [0, 1]),
    ] {
        let tensor = onnx::tensor_from_proto(&ints(dtype, &values)).unwrap();
        let read: Vec<i32> = tensor.to_i64().unwrap().iter().map(|&v| v as i32).collect();
        assert_eq!(read, values, "{dtype}");
    }
    let half = onnx::tensor_from_proto(&ints(DType::F16, &[0x3c00, 0xc000])).unwrap();
    assert_eq!(half.to_f32().unwrap(), [1.0, -2.0]);
    let packed = TensorProto { dims: vec![3], ..ints(DType::I4, &[0x2f, 0x07]) };
    assert_eq!(onnx::tensor_from_proto(&packed).unwrap().to_i64().unwrap(), [-1, 2, 7]);
    let wide = TensorProto {
        data_type: Some(13),
        dims: vec![1],
        uint64_data: vec![u64::MAX],
        ..Default::default()
    };
    assert_eq!(onnx::tensor_from_proto(&wide).unwrap().to_vec::<u64>().unwrap(), [u64::MAX]);
    let complex = TensorProto {
        data_type: Some(14),
        dims: vec![2],
        float_data: vec![1.0, 2.0, 3.0, 4.0],
        ..Default::default()
    };
    assert_eq!(onnx::tensor_from_proto(&complex).unwrap().bytes().len(), 16);
    let truth = raw("", DType::Bool, &[3], &[0, 1, 255]);
    assert_eq!(onnx::tensor_from_proto(&truth).unwrap().bytes(), [0, 1, 1]);
}

#[test]
fn empty_and_scalar_tensors_are_sound() {
    let mut file = conv();
    let graph = file.graph.as_mut().unwrap();
    graph.initializer.extend([
        raw("none", DType::F32, &[2, 0], &[]),
        raw("vast", DType::F32, &[i64::MAX, i64::MAX, 0], &[]),
        TensorProto { raw_data: None, ..raw("untold", DType::I4, &[0], &[]) },
        raw("one", DType::I64, &[], &7i64.to_le_bytes()),
    ]);
    let model = read(&file);
    let again = onnx::read_bytes(onnx::to_bytes(&model).unwrap().into(), None).unwrap();
    for name in ["none", "vast", "untold"] {
        assert!(constant(&again, name).is_empty(), "{name}");
        assert_eq!(constant(&again, name), constant(&model, name));
    }
    assert_eq!(constant(&again, "vast").shape(), [i64::MAX as usize, i64::MAX as usize, 0]);
    assert_eq!(constant(&again, "one").to_i64().unwrap(), [7]);
}

#[test]
fn special_numbers_keep_their_bits() {
    let bits = [0x7fc0_1234u32, 0xff80_0000, 0x8000_0000, 1];
    let values = bits.map(f32::from_bits);
    let mut file = conv();
    let graph = file.graph.as_mut().unwrap();
    graph.initializer.push(floats("special", &[4], &values));
    graph.node[1].attribute = vec![
        AttributeProto { f: Some(values[0]), ..attribute("nan", attribute_type::FLOAT) },
        AttributeProto { f: Some(-0.0), ..attribute("zero", attribute_type::FLOAT) },
    ];
    let again = onnx::read_bytes(onnx::to_bytes(&read(&file)).unwrap().into(), None).unwrap();
    let stored = constant(&again, "special").to_vec::<f32>().unwrap();
    assert_eq!(stored.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), bits);
    let (_, relu) = again.graph.nodes().nth(1).unwrap();
    assert_eq!(relu.float("nan").unwrap().unwrap().to_bits(), bits[0]);
    assert_eq!(relu.float("zero").unwrap().unwrap().to_bits(), 1 << 31);
}

#[test]
fn weights_go_out_to_a_file_of_their_own_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = conv();
    let weights: Vec<u8> = (0..64 * 3 * 9 * 4).map(|i| i as u8).collect();
    let graph = file.graph.as_mut().unwrap();
    graph.initializer[0] = raw("w", DType::F32, &[64, 3, 3, 3], &weights);
    graph.initializer[1] = raw("b", DType::F32, &[64 * 8], &weights[..64 * 8 * 4]);
    let model = read(&file);

    let path = dir.path().join("deep/model.onnx");
    let options = WriteOptions { external_data: ExternalData::Always, ..Default::default() };
    let total = onnx::write(&model, &path, &options).unwrap();
    let side = dir.path().join("deep/model.onnx.data");
    let lens = [&path, &side].map(|p| std::fs::metadata(p).unwrap().len());
    assert_eq!(total, lens[0] + lens[1]);
    assert_eq!(lens[1], (weights.len() + 64 * 8 * 4) as u64);

    // A second run replaces both.
    assert_eq!(onnx::write(&model, &path, &options).unwrap(), total);
    let (again, files) = onnx::read_with_files(&path).unwrap();
    assert_eq!(files.len(), 2);
    assert!(onnx::to_bytes(&again).unwrap() == onnx::to_bytes(&model).unwrap());

    // Written over itself, also through the weights' own file, it is refused.
    let inputs = files.iter().map(|f| f.path().to_path_buf()).collect();
    let options = WriteOptions { inputs, ..options };
    let error = onnx::write(&again, &path, &options).unwrap_err();
    assert_eq!(error.stable_code(), "FB-2101");
    let keep = WriteOptions { keep_existing: true, ..Default::default() };
    assert_eq!(onnx::write(&again, &path, &keep).unwrap_err().stable_code(), "FB-2102");

    // Back into one file, where the old weights' file may be replaced safely.
    let single = dir.path().join("single.onnx");
    onnx::write(&again, &single, &WriteOptions::default()).unwrap();
    assert!(!dir.path().join("single.onnx.data").exists());
    assert_eq!(std::fs::read(&single).unwrap(), onnx::to_bytes(&model).unwrap());
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    for file in [conv(), control(), quantized()] {
        let model = read(&file);
        let first = onnx::to_bytes(&model).unwrap();
        assert_eq!(first, onnx::to_bytes(&read(&file)).unwrap());
        assert_eq!(
            first,
            onnx::to_bytes(&onnx::read_bytes(first.clone().into(), None).unwrap()).unwrap()
        );
    }
}

#[test]
fn models_over_two_gigabytes_need_external_data() {
    let dir = tempfile::tempdir().unwrap();
    // A sparse file stands for 2.5 GB of weights: mapped, never touched before they are written.
    let big = dir.path().join("w.bin");
    std::fs::File::create(&big).unwrap().set_len(5 << 29).unwrap();
    let mut file = conv();
    let weight = &mut file.graph.as_mut().unwrap().initializer[0];
    *weight = raw("w", DType::U8, &[5 << 29], &[]);
    weight.raw_data = None;
    weight.data_location = Some(1);
    weight.external_data =
        vec![StringStringEntryProto { key: Some("location".into()), value: Some("w.bin".into()) }];
    let path = dir.path().join("big.onnx");
    std::fs::write(&path, file.encode_to_vec()).unwrap();
    let model = onnx::read(&path).unwrap();
    let error = onnx::to_bytes(&model).unwrap_err();
    assert_eq!(error.stable_code(), "FB-4108");
    let never = WriteOptions { external_data: ExternalData::Never, ..Default::default() };
    let out = dir.path().join("out.onnx");
    assert_eq!(onnx::write(&model, &out, &never).unwrap_err().stable_code(), "FB-4108");
    assert!(!out.exists());
}
