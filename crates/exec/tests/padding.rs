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

/// Codes, a `Pad` of 0 or `fill`, a pair of another scale or the same one, and an operator on codes.
fn quantized(op: &str, pair: Option<f32>, fill: f32, mode: &str) -> Model {
    let mut graph = Graph::new("net");
    let mut add = |name: &str, tensor: Tensor| graph.add_constant(name, tensor).unwrap();
    let step = add("step", Tensor::scalar(0.02f32));
    let other = add("other", Tensor::scalar(pair.unwrap_or(0.02)));
    let (wide, zero) = (add("wide", Tensor::scalar(0.05f32)), add("zero", Tensor::scalar(117u8)));
    let pads = add("pads", Tensor::vector(&[0i64, 0, 1, 0, 0, 0, 2, 1]));
    let fill = add("fill", Tensor::scalar(fill));
    let codes: Vec<i8> = (0..8 * 4 * 9).map(|i| (i * 37 % 100) as i8 - 50).collect();
    let codes = add("codes", Tensor::from_slice(vec![8, 4, 3, 3], &codes).unwrap());
    let names = ["x", "q", "d", "p", "pq", "pd", "w", "y", "out"];
    let [x, q, d, p, pq, pd, w, y, out] =
        names.map(|name| graph.add_value(name, ValueType::default()).unwrap());
    graph.set_type(x, ValueType::fixed(DType::F32, &[2, 4, 6, 5]));
    graph.add_input(x);
    graph.add_node(Node::new("QuantizeLinear", "", &[x, step, zero], &[q]));
    graph.add_node(Node::new("DequantizeLinear", "", &[q, step, zero], &[d]));
    let mode = Attr::String(mode.into());
    graph.add_node(Node::new("Pad", "pad", &[d, pads, fill], &[p]).with("mode", mode));
    let mut data = p;
    if pair.is_some() {
        graph.add_node(Node::new("QuantizeLinear", "", &[p, other, zero], &[pq]));
        graph.add_node(Node::new("DequantizeLinear", "", &[pq, other, zero], &[pd]));
        data = pd;
    }
    match op {
        "Conv" => {
            graph.add_node(Node::new("DequantizeLinear", "", &[codes, step], &[w]));
            graph.add_node(Node::new("Conv", "reader", &[data, w], &[y]));
        }
        _ => {
            let kernel = Attr::Ints(vec![3, 3]);
            graph.add_node(Node::new(op, "reader", &[data], &[y]).with("kernel_shape", kernel));
        }
    }
    graph.add_node(Node::new("QuantizeLinear", "", &[y, wide, zero], &[out]));
    graph.add_output(out);
    Model { graph, opsets: vec![(String::new(), 18)], ..Default::default() }
}

#[test]
fn zeros_around_codes_are_padding_too() {
    let values: Vec<f32> = (0..240).map(|i| (i as f32 * 0.73).cos()).collect();
    let x = Tensor::from_slice(vec![2, 4, 6, 5], &values).unwrap();
    // What reads the border, the scale behind it, its number and kind; whether a step stays, and
    // whether it is one on codes.
    let cases = [
        ("Conv", None, 0.0, "constant", false, true),
        ("Conv", Some(0.02), 0.0, "constant", false, true),
        ("Conv", Some(0.03), 0.0, "constant", true, true),
        ("Conv", Some(0.02), 1.0, "constant", true, false),
        ("Conv", Some(0.02), 0.0, "reflect", true, true),
        ("AveragePool", None, 0.0, "constant", false, true),
        ("AveragePool", Some(0.02), 0.0, "constant", false, true),
        ("MaxPool", Some(0.02), 0.0, "constant", true, true),
    ];
    for (op, pair, fill, mode, stays, integer) in cases {
        let model = quantized(op, pair, fill, mode);
        let session = |mode| Session::new(&model, &SessionOptions::new(mode)).unwrap();
        let [simulated, found] = [Mode::Simulate, Mode::Integer]
            .map(|mode| session(mode).run(&[("x", x.clone())]).unwrap().remove(0).1);
        assert_eq!(found, simulated, "{op} {pair:?} {fill} {mode}");
        let codes = found.to_i64().unwrap();
        assert!(codes.iter().any(|&code| code != codes[0]), "{codes:?}");
        let plan = session(Mode::Integer).plan().to_vec();
        let line = |op: &str| plan.iter().find(|line| line.op == op);
        assert_eq!(line("Pad").is_some(), stays, "{op} {pair:?} {fill} {mode}");
        assert!(line("Pad").is_none_or(|line| line.integer == integer), "{op} {fill} {mode}");
        assert!(line(op).is_some_and(|line| line.integer), "{op} {pair:?} {fill} {mode}");
        // The border where it is watched.
        let mut options = SessionOptions::new(Mode::Integer);
        options.taps.insert("p".to_string());
        let watched = Session::new(&model, &options).unwrap().run(&[("x", x.clone())]).unwrap();
        assert_eq!(watched[0].1, found, "{op} {pair:?} {fill} {mode}");
    }
}
