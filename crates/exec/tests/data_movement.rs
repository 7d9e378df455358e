//! Operators that only move elements do so for every type, and refuse sizes that no memory holds.

use fewbit_core::{Attr, DType, Error, Graph, Node, Result, Tensor};
use fewbit_exec::{Arena, EvalCtx, OpTable};
use fewbit_kernels::{Ctx, Isa, Pool};

fn eval(node: Node, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let (pool, arena, table) = (Pool::single(), Arena::new(), OpTable::standard());
    let kernels = Ctx { isa: Isa::scalar(), pool: &pool };
    let inputs = inputs.into_iter().map(Some).collect();
    let def = table.of(&node).ok_or_else(|| Error::unsupported(node.op.clone()))?;
    let mut ctx = EvalCtx {
        node: &node,
        opset: 21,
        kernels: &kernels,
        arena: &arena,
        subgraphs: None,
        inputs,
    };
    (def.eval)(&mut ctx)
}

fn op(name: &str) -> Node {
    Node { op: name.into(), ..Default::default() }
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::vector(values)
}

/// 0 to 5 as a 2 x 3 matrix of any type.
fn matrix(dtype: DType) -> Tensor {
    let values = [0.0, 1.0, 1.0, 1.0, 0.0, 1.0];
    if dtype == DType::String {
        let texts = values.map(|v| if v == 0.0 { vec![] } else { b"one".to_vec() });
        return Tensor::from_strings(vec![2, 3], texts.to_vec()).unwrap();
    }
    if matches!(dtype, DType::C64 | DType::C128 | DType::F8E8M0) {
        let size = dtype.size().unwrap();
        let raw: Vec<u8> =
            values.iter().flat_map(|&v| vec![if v == 0.0 { 0 } else { 127 }; size]).collect();
        let bytes = fewbit_core::AlignedBytes::copy_of(&raw);
        return Tensor::from_bytes(dtype, vec![2, 3], bytes.into()).unwrap();
    }
    Tensor::from_f64(dtype, vec![2, 3], &values).unwrap()
}

/// The elements that are not the type's zero bytes.
fn ones(tensor: &Tensor) -> Vec<bool> {
    if let Some(strings) = tensor.strings() {
        return strings.iter().map(|s| !s.is_empty()).collect();
    }
    match tensor.dtype().size() {
        Some(size) => tensor.bytes().chunks(size).map(|c| c.iter().any(|&b| b != 0)).collect(),
        None => tensor.to_f64().unwrap().iter().map(|&v| v != 0.0).collect(),
    }
}

fn movers() -> Vec<(Node, Vec<Tensor>, &'static str)> {
    let axis = |node: Node, axis: i64| node.with("axis", Attr::Int(axis));
    vec![
        (op("Transpose"), vec![], "011011"),
        (axis(op("Gather"), 1), vec![ints(&[2, -3])], "1011"),
        (axis(op("GatherElements"), 1), vec![ints(&[1, 0]).reshape(vec![2, 1]).unwrap()], "11"),
        (op("GatherND"), vec![ints(&[1, 1]).reshape(vec![1, 2]).unwrap()], "0"),
        (op("Slice"), vec![ints(&[1]), ints(&[-10]), ints(&[0]), ints(&[-1])], "101011"),
        (op("Pad"), vec![ints(&[0, 1, 0, 0])], "00110101"),
        (
            op("Pad").with("mode", Attr::String(b"edge".to_vec())),
            vec![ints(&[0, 1, 0, 0])],
            "00111101",
        ),
        (op("Tile"), vec![ints(&[1, 2])], "011011101101"),
        (op("Expand"), vec![ints(&[2, 2, 3])], "011101011101"),
        (axis(op("Flatten"), 0), vec![], "011101"),
        (op("Trilu"), vec![ints(&[1]).reshape(vec![]).unwrap()], "011001"),
        (op("Upsample").with("scales", Attr::Floats(vec![1.0, 2.0])), vec![], "001111110011"),
        (op("CenterCropPad"), vec![ints(&[2, 1])], "10"),
        (
            axis(op("Compress"), 0),
            vec![Tensor::from_bools(vec![2], &[false, true]).unwrap()],
            "101",
        ),
    ]
}

#[test]
fn every_type_moves_alike() {
    for &dtype in DType::ALL {
        for (node, parameters, expected) in movers() {
            let name = node.op.clone();
            let mut inputs = vec![matrix(dtype)];
            inputs.extend(parameters);
            let out = eval(node, inputs).unwrap_or_else(|e| panic!("{name} of {dtype}: {e}"));
            assert_eq!(out[0].dtype(), dtype);
            let expected: Vec<bool> = expected.chars().map(|c| c == '1').collect();
            assert_eq!(ones(&out[0]), expected, "{name} of {dtype}");
        }
    }
}

#[test]
fn split_and_concat_undo_each_other() {
    let mut graph = Graph::new("g");
    let mut split = op("Split").with("axis", Attr::Int(1));
    split.outputs = ["a", "b"].map(|n| graph.value_named_or_new(n).ok()).to_vec();
    for &dtype in DType::ALL {
        let parts = eval(split.clone(), vec![matrix(dtype), ints(&[1, 2])]).unwrap();
        let joined = eval(op("Concat").with("axis", Attr::Int(-1)), parts).unwrap();
        assert_eq!(joined[0], matrix(dtype), "{dtype}");
    }
}

#[test]
fn sizes_that_no_memory_holds_are_refused() {
    let huge = 1i64 << 40;
    let f = || matrix(DType::F32);
    let scalar = |v: i64| Tensor::scalar(v);
    let bombs = [
        (op("Expand"), vec![Tensor::scalar(1f32), ints(&[huge, 2])]),
        (op("Expand"), vec![Tensor::scalar(1f32), ints(&[huge, huge])]),
        (op("Tile"), vec![f(), ints(&[huge, huge])]),
        (op("Range"), vec![scalar(0), scalar(i64::MAX), scalar(1)]),
        (op("Range"), vec![scalar(i64::MIN), scalar(i64::MAX), scalar(1)]),
        (op("Pad"), vec![f(), ints(&[huge, 0, 0, 0])]),
        (op("Pad"), vec![f(), ints(&[i64::MAX, 0, i64::MAX, 0])]),
        (op("Pad").with("mode", Attr::String(b"wrap".to_vec())), vec![f(), ints(&[0, huge, 0, 0])]),
        (op("ConstantOfShape"), vec![ints(&[huge, huge, huge])]),
        (op("OneHot"), vec![ints(&[1]), scalar(huge), ints(&[0, 1])]),
        (op("CenterCropPad"), vec![f(), ints(&[huge, huge])]),
    ];
    for (node, inputs) in bombs {
        let name = node.op.clone();
        let error = eval(node, inputs).expect_err(&name);
        assert!([3, 5].contains(&error.kind().exit_code()), "{name}: {error:?}");
    }
}

#[test]
fn indices_outside_are_refused() {
    let outside = || ints(&[2]);
    let f = || matrix(DType::F32);
    let update = || Tensor::vector(&[1f32]);
    let cases = [
        (op("Gather"), vec![f(), outside()]),
        (op("GatherElements"), vec![f(), outside().reshape(vec![1, 1]).unwrap()]),
        (op("GatherND"), vec![f(), ints(&[0, -4]).reshape(vec![1, 2]).unwrap()]),
        (
            op("ScatterElements"),
            vec![
                f(),
                outside().reshape(vec![1, 1]).unwrap(),
                update().reshape(vec![1, 1]).unwrap(),
            ],
        ),
        (op("ScatterND"), vec![f(), ints(&[2, 0]).reshape(vec![1, 2]).unwrap(), update()]),
    ];
    for (node, inputs) in cases {
        let name = node.op.clone();
        assert_eq!(eval(node, inputs).expect_err(&name).stable_code(), "FB-3204", "{name}");
    }
}
