//! Three small models, made with the messages of the schema as an exporter would.

use fewbit_core::DType;
use fewbit_formats::onnx::Bytes;
use fewbit_formats::onnx::schema::*;
use prost::Message;

/// A tensor with raw bytes.
pub fn raw(name: &str, dtype: DType, dims: &[i64], bytes: &[u8]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(dtype.to_onnx()),
        dims: dims.to_vec(),
        raw_data: Some(Bytes::copy_from_slice(bytes)),
        ..Default::default()
    }
}

/// A float tensor in its typed field.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(1),
        dims: dims.to_vec(),
        float_data: values.to_vec(),
        ..Default::default()
    }
}

/// A value of a tensor type; negative sizes become the name `batch`.
pub fn value(name: &str, dtype: DType, dims: &[i64]) -> ValueInfoProto {
    let dim = |&d: &i64| match d {
        0.. => DimensionProto { dim_value: Some(d), ..Default::default() },
        _ => DimensionProto { dim_param: Some("batch".into()), ..Default::default() },
    };
    let ty = TypeProto {
        tensor_type: Some(TensorTypeProto {
            elem_type: Some(dtype.to_onnx()),
            shape: Some(TensorShapeProto { dim: dims.iter().map(dim).collect() }),
        }),
        denotation: None,
    };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(ty.encode_to_vec().into()),
        ..Default::default()
    }
}

/// A node of the default domain.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        name: Some(format!("{op}_{}", outputs.first().unwrap_or(&""))),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        ..Default::default()
    }
}

/// Adds attributes to a node.
pub fn with(mut node: NodeProto, attributes: Vec<AttributeProto>) -> NodeProto {
    node.attribute = attributes;
    node
}

/// An attribute of the given kind, its value still to be set.
pub fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind), ..Default::default() }
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, attribute_type::INT) }
}

/// An integer-list attribute.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, attribute_type::INTS) }
}

/// A subgraph attribute.
pub fn subgraph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(graph), ..attribute(name, attribute_type::GRAPH) }
}

/// A model of opset 21 around a graph.
pub fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        producer_name: Some("samples".into()),
        opset_import: vec![opset("", 21)],
        graph: Some(graph),
        ..Default::default()
    }
}

/// An imported operator set.
pub fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

/// A convolution with raw weights and a typed bias, then an activation.
pub fn conv() -> ModelProto {
    let weights: Vec<u8> = (0..2 * 3 * 3 * 3).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let conv = with(
        node("Conv", &["x", "w", "b"], &["c"]),
        vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1, 1, 1, 1]), int("group", 1)],
    );
    let mut model = model(GraphProto {
        name: Some("conv".into()),
        node: vec![conv, node("Relu", &["c"], &["y"])],
        initializer: vec![
            raw("w", DType::F32, &[2, 3, 3, 3], &weights),
            floats("b", &[2], &[0.5, -0.5]),
        ],
        input: vec![value("x", DType::F32, &[-1, 3, 8, 8])],
        output: vec![value("y", DType::F32, &[-1, 2, 8, 8])],
        value_info: vec![value("c", DType::F32, &[-1, 2, 8, 8])],
        ..Default::default()
    });
    model.metadata_props =
        vec![StringStringEntryProto { key: Some("origin".into()), value: Some("test".into()) }];
    model
}

/// An `If` whose branches capture, and a call of a function with an attribute reference.
pub fn control() -> ModelProto {
    let branch = |op: &str| GraphProto {
        name: Some(op.into()),
        node: vec![node(op, &["f"], &["r"])],
        output: vec![value("r", DType::F32, &[4])],
        ..Default::default()
    };
    let condition = with(
        node("If", &["flag"], &["y"]),
        vec![subgraph("then_branch", branch("Neg")), subgraph("else_branch", branch("Abs"))],
    );
    let mut call = with(
        node("LeakyAbs", &["x"], &["f"]),
        vec![AttributeProto { f: Some(0.25), ..attribute("slope", attribute_type::FLOAT) }],
    );
    call.domain = Some("local".into());
    let reference = AttributeProto {
        ref_attr_name: Some("slope".into()),
        ..attribute("alpha", attribute_type::FLOAT)
    };
    let mut model = model(GraphProto {
        name: Some("control".into()),
        node: vec![call, condition],
        input: vec![value("x", DType::F32, &[4]), value("flag", DType::Bool, &[])],
        output: vec![value("y", DType::F32, &[4])],
        ..Default::default()
    });
    model.opset_import.push(opset("local", 1));
    model.functions = vec![FunctionProto {
        name: Some("LeakyAbs".into()),
        domain: Some("local".into()),
        input: vec!["a".into()],
        output: vec!["z".into()],
        attribute: vec!["slope".into()],
        opset_import: vec![opset("", 21)],
        node: vec![
            with(node("LeakyRelu", &["a"], &["l"]), vec![reference]),
            node("Abs", &["l"], &["z"]),
        ],
        ..Default::default()
    }];
    model
}

/// Quantized weights of eight and of four bits (an odd number of them) with their scales.
pub fn quantized() -> ModelProto {
    let dequantize = |name: &str, axis| {
        let inputs = [format!("{name}_q"), format!("{name}_s"), format!("{name}_z")];
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        with(node("DequantizeLinear", &inputs, &[name]), vec![int("axis", axis)])
    };
    model(GraphProto {
        name: Some("quantized".into()),
        node: vec![
            node("QuantizeLinear", &["x", "x_s", "x_z"], &["x_q"]),
            dequantize("x", 0),
            dequantize("a", 0),
            dequantize("b", 1),
            node("MatMul", &["x_d", "a"], &["m"]),
            node("Add", &["m", "b"], &["y"]),
        ]
        .into_iter()
        .map(|mut n| {
            // The dequantized input needs a name of its own.
            n.output.iter_mut().filter(|o| *o == "x").for_each(|o| *o = "x_d".into());
            n
        })
        .collect(),
        initializer: vec![
            floats("x_s", &[], &[0.1]),
            raw("x_z", DType::U8, &[], &[128]),
            raw("a_q", DType::I8, &[3, 5], &[7; 15]),
            floats("a_s", &[3], &[0.1, 0.2, 0.3]),
            raw("a_z", DType::I8, &[3], &[0; 3]),
            raw("b_q", DType::I4, &[1, 5], &[0x21, 0x43, 0x05]),
            floats("b_s", &[5], &[1.0; 5]),
            raw("b_z", DType::I4, &[5], &[0; 3]),
        ],
        input: vec![value("x", DType::F32, &[1, 3])],
        output: vec![value("y", DType::F32, &[1, 5])],
        ..Default::default()
    })
}
