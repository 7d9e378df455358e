//! Zeros around the input of a convolution are its own padding; other borders are not.

use fewbit_core::{Attr, DType, Graph, Model, Node, Tensor, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};

/// A convolution behind a `Pad`.
struct Case {
    pads: &'static [i64],
    /// The axes that `pads` mean, where they are not all.
    axes: Option<&'static [i64]>,
    mode: &'static str,
    fill: f32,
    auto_pad: &'static str,
}

const PLAIN: Case = Case {
    pads: &[0, 0, 1, 0, 0, 0, 2, 3],
    axes: None,
    mode: "constant",
    fill: 0.0,
    auto_pad: "NOTSET",
};

fn model(case: &Case, groups: usize) -> Model {
    let mut graph = Graph::new("net");
    let numbers = |len: usize| (0..len).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>();
    let x = graph.add_value("x", ValueType::fixed(DType::F32, &[2, 4, 6, 5])).unwrap();
    graph.add_input(x);
    let pads = graph.add_constant("pads", Tensor::vector(case.pads)).unwrap();
    let fill = Tensor::from_slice(vec![], &[case.fill]).unwrap();
    let fill = graph.add_constant("fill", fill).unwrap();
    let mut inputs = vec![x, pads, fill];
    if let Some(axes) = case.axes {
        inputs.push(graph.add_constant("axes", Tensor::vector(axes)).unwrap());
    }
    let padded = graph.add_value("padded", ValueType::default()).unwrap();
    let mode = Attr::String(case.mode.into());
    graph.add_node(Node::new("Pad", "pad", &inputs, &[padded]).with("mode", mode));
    let shape = vec![8, 4 / groups, 3, 3];
    let weights = Tensor::from_slice(shape.clone(), &numbers(shape.iter().product())).unwrap();
    let weights = graph.add_constant("w", weights).unwrap();
    let y = graph.add_value("y", ValueType::default()).unwrap();
    let conv = Node::new("Conv", "conv", &[padded, weights], &[y])
        .with("group", Attr::Int(groups as i64))
        .with("auto_pad", Attr::String(case.auto_pad.into()))
        .with("strides", Attr::Ints(vec![2, 1]));
    graph.add_node(match case.auto_pad {
        "NOTSET" => conv.with("pads", Attr::Ints(vec![1, 0, 0, 1])),
        _ => conv,
    });
    graph.add_output(y);
    Model { graph, opsets: vec![(String::new(), 18)], ..Default::default() }
}

/// Whether the `Pad` is a step; the output is that of a session in which the border is observed.
fn pads_apart(case: &Case, groups: usize) -> bool {
    let model = model(case, groups);
    let values: Vec<f32> = (0..240).map(|i| (i as f32 * 0.73).cos()).collect();
    let x = Tensor::from_slice(vec![2, 4, 6, 5], &values).unwrap();
    let whole = Session::new(&model, &SessionOptions::new(Mode::Float)).unwrap();
    let found = whole.run(&[("x", x.clone())]).unwrap().remove(0).1;
    // The definition: the border first, then a convolution of what it gave.
    let mut front = model.clone();
    let padded = front.graph.find_value("padded").unwrap();
    front.graph.add_output(padded);
    let front = Session::new(&front, &SessionOptions::new(Mode::Float)).unwrap();
    let border = front.run(&[("x", x)]).unwrap().remove(1).1;
    let mut back = Graph::new("back");
    let input = back.add_value("padded", ValueType::of(&border)).unwrap();
    back.add_input(input);
    let w = model.graph.find_value("w").and_then(|w| model.graph.constant(w)).unwrap().clone();
    let w = back.add_constant("w", w).unwrap();
    let y = back.add_value("y", ValueType::default()).unwrap();
    let conv = model.graph.nodes().find(|(_, node)| node.op == "Conv").unwrap().1;
    back.add_node(Node {
        inputs: vec![Some(input), Some(w)],
        outputs: vec![Some(y)],
        ..conv.clone()
    });
    back.add_output(y);
    let back = Model { graph: back, opsets: model.opsets.clone(), ..Default::default() };
    let back = Session::new(&back, &SessionOptions::new(Mode::Float)).unwrap();
    let expected = back.run(&[("padded", border)]).unwrap().remove(0).1;
    assert_eq!(found.shape(), expected.shape());
    assert_eq!(found.to_f32().unwrap(), expected.to_f32().unwrap());
    whole.plan().iter().any(|node| node.op == "Pad")
}

#[test]
fn zeros_around_an_image_are_padding_of_the_convolution() {
    for groups in [1, 4] {
        assert!(!pads_apart(&PLAIN, groups));
        assert!(!pads_apart(&Case { auto_pad: "VALID", ..PLAIN }, groups));
        let some = Case { pads: &[2, 1, 0, 3], axes: Some(&[3, -2]), ..PLAIN };
        assert!(!pads_apart(&some, groups));
    }
}

#[test]
fn other_borders_stay() {
    for case in [
        Case { fill: 1.0, ..PLAIN },
        Case { mode: "edge", ..PLAIN },
        Case { pads: &[0, 0, -1, 0, 0, 0, 2, 3], ..PLAIN },
        Case { pads: &[1, 0, 1, 0, 0, 0, 2, 3], ..PLAIN },
        Case { auto_pad: "SAME_UPPER", ..PLAIN },
    ] {
        assert!(pads_apart(&case, 1));
    }
}
