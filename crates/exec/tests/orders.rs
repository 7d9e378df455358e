//! Operators behind a convolution read its output as it lies, channels-last, and give the bits
//! that they give for values as ONNX writes them.

use fewbit_core::{Attr, DType, Graph, Model, Node, Tensor, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};
use std::slice::from_ref;

const SHAPE: [usize; 4] = [2, 6, 5, 7];

/// An operator, its attributes and what it reads beside the data.
struct Case {
    op: &'static str,
    attrs: Vec<(&'static str, Attr)>,
    inputs: Vec<Tensor>,
    outputs: usize,
    opset: i64,
    /// Values that change their order.
    changes: usize,
}

fn case(op: &'static str, inputs: &[&[i64]], attrs: &[(&'static str, Attr)]) -> Case {
    let inputs = inputs.iter().map(|values| Tensor::vector(values)).collect();
    // The input, and the output for the caller.
    Case { op, attrs: attrs.to_vec(), inputs, outputs: 1, opset: 18, changes: 2 }
}

fn numbers(shape: &[usize]) -> Tensor {
    let len = shape.iter().product();
    let values: Vec<f32> = (0..len).map(|i| (i as f32 * 0.73).sin()).collect();
    Tensor::from_slice(shape.to_vec(), &values).unwrap()
}

/// The operator on the value `c`, which is an input or that of a convolution with the identity.
fn model(case: &Case, convolved: bool) -> Model {
    let mut graph = Graph::new("net");
    let x = graph.add_value("x", ValueType::fixed(DType::F32, &SHAPE)).unwrap();
    graph.add_input(x);
    let mut data = x;
    if convolved {
        let eye: Vec<f32> = (0..36).map(|i| f32::from(i % 7 == 0)).collect();
        let eye = Tensor::from_slice(vec![6, 6, 1, 1], &eye).unwrap();
        let eye = graph.add_constant("eye", eye).unwrap();
        data = graph.add_value("c", ValueType::default()).unwrap();
        graph.add_node(Node::new("Conv", "conv", &[x, eye], &[data]));
    }
    let mut inputs = vec![data];
    for (i, tensor) in case.inputs.iter().enumerate() {
        inputs.push(graph.add_constant(format!("p{i}"), tensor.clone()).unwrap());
    }
    let output = |i: usize| format!("y{i}");
    let outputs: Vec<_> = (0..case.outputs)
        .map(|i| graph.add_value(output(i), ValueType::default()).unwrap())
        .collect();
    let node = Node::new(case.op, case.op, &inputs, &outputs);
    graph
        .add_node(case.attrs.iter().fold(node, |node, (name, attr)| node.with(name, attr.clone())));
    outputs.into_iter().for_each(|y| graph.add_output(y));
    Model { graph, opsets: vec![(String::new(), case.opset)], ..Default::default() }
}

fn run(model: &Model) -> (Vec<Tensor>, usize) {
    let (outputs, ops) = profiled(model, numbers(&SHAPE));
    let changes = ops.iter().filter(|op| *op == "Layout").count();
    (outputs, changes)
}

/// The outputs, and the operators of the steps.
fn profiled(model: &Model, x: Tensor) -> (Vec<Tensor>, Vec<String>) {
    let options = SessionOptions { profile: true, ..SessionOptions::new(Mode::Float) };
    let session = Session::new(model, &options).unwrap();
    let outputs = session.run(&[("x", x)]).unwrap();
    let ops = session.profile().into_iter().map(|step| step.op).collect();
    (outputs.into_iter().map(|(_, tensor)| tensor).collect(), ops)
}

#[test]
fn operators_read_values_as_they_lie() {
    let (keep, go) = (("keepdims", Attr::Int(1)), ("keepdims", Attr::Int(0)));
    let axes = |axes: &[i64]| ("axes", Attr::Ints(axes.to_vec()));
    let perm = |perm: [i64; 4]| ("perm", Attr::Ints(perm.to_vec()));
    let cases = [
        case("ReduceMean", &[&[2, 3]], from_ref(&keep)),
        case("ReduceMean", &[&[-1, -2]], &[]),
        case("ReduceMean", &[&[1]], &[]),
        case("ReduceMax", &[&[0, 3]], &[]),
        Case { opset: 13, ..case("ReduceMean", &[], &[axes(&[2, 3]), keep]) },
        // The result is a matrix, which lies in both orders.
        Case { changes: 1, ..case("ReduceMean", &[&[3, 2]], from_ref(&go)) },
        case("ReduceSum", &[&[3]], from_ref(&go)),
        // Not in these: sums of channels and places have an order.
        case("ReduceMean", &[&[1, 2]], &[]),
        Case { changes: 2, ..case("ReduceMean", &[&[1]], &[go]) },
        case("Slice", &[&[1, 0], &[4, 3], &[1, 3]], &[]),
        case("Slice", &[&[0, 1], &[2, 5]], &[]),
        case("Slice", &[&[-1], &[-9], &[1], &[-2]], &[]),
        Case {
            opset: 9,
            ..case(
                "Slice",
                &[],
                &[("starts", Attr::Ints(vec![1, 2])), ("ends", Attr::Ints(vec![2, 4]))],
            )
        },
        Case { outputs: 2, changes: 3, ..case("Split", &[&[2, 4]], &[("axis", Attr::Int(1))]) },
        Case { outputs: 2, changes: 3, ..case("Split", &[], &[]) },
        case("Pad", &[&[0, 1, 2, 3, 0, 0, 1, 0]], &[]),
        case("Pad", &[&[0, 0, 1, 1, 0, 0, 1, 2]], &[("mode", Attr::String("reflect".into()))]),
        Case {
            opset: 9,
            ..case("Pad", &[], &[("pads", Attr::Ints(vec![0, 0, 1, 2, 0, 0, 3, 0]))])
        },
        // What is only another name for the input, and what is not.
        Case { changes: 1, ..case("Transpose", &[], &[perm([0, 2, 3, 1])]) },
        case("Transpose", &[], &[perm([0, 2, 1, 3])]),
    ];
    for case in &cases {
        let (expected, _) = run(&model(case, false));
        let (found, changes) = run(&model(case, true));
        assert_eq!(found, expected, "{} {:?} {:?}", case.op, case.attrs, case.inputs);
        assert_eq!(changes, case.changes, "{} {:?} {:?}", case.op, case.attrs, case.inputs);
    }
}

/// A transposition to channels-first is the value that the convolution behind it reads.
#[test]
fn a_transposed_input_is_not_moved() {
    let mut graph = Graph::new("net");
    let x = graph.add_value("x", ValueType::fixed(DType::F32, &[1, 5, 7, 6])).unwrap();
    graph.add_input(x);
    let [t, y] = ["t", "y"].map(|n| graph.add_value(n, ValueType::default()).unwrap());
    let w = graph.add_constant("w", numbers(&[4, 6, 1, 1])).unwrap();
    let perm = Attr::Ints(vec![0, 3, 1, 2]);
    graph.add_node(Node::new("Transpose", "t", &[x], &[t]).with("perm", perm));
    graph.add_node(Node::new("Conv", "c", &[t, w], &[y]));
    graph.add_output(y);
    graph.add_output(t);
    let model = Model { graph, opsets: vec![(String::new(), 18)], ..Default::default() };
    let x = numbers(&[1, 5, 7, 6]);
    let (outputs, ops) = profiled(&model, x.clone());
    // Both outputs are wanted channels-first.
    assert_eq!(ops, ["Conv", "Layout", "Layout"]);
    let (given, moved) = (x.to_f32().unwrap(), outputs[1].to_f32().unwrap());
    assert_eq!(outputs[1].shape(), [1, 6, 5, 7]);
    assert!((0..210).all(|i| moved[i] == given[i % 35 * 6 + i / 35]));
}
