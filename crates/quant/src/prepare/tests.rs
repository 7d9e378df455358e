use super::*;
use fewbit_core::{Attr, DType, Dim, Graph, Node, Tensor, ValueId, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};

/// Small pseudo-random numbers.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

struct Net(Graph);

impl Net {
    fn new(channels: usize) -> (Self, ValueId) {
        let mut graph = Graph::new("net");
        let shape = [Dim::Named("n".into()), Dim::Known(channels), Dim::Known(6), Dim::Known(6)];
        let x = graph.add_value("x", ValueType::tensor(DType::F32, shape.to_vec())).unwrap();
        graph.add_input(x);
        (Net(graph), x)
    }

    fn constant(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let values = noise(shape.iter().product(), name.len() as u32 * 77 + shape[0] as u32);
        self.0.add_constant(name, Tensor::from_slice(shape.to_vec(), &values).unwrap()).unwrap()
    }

    fn node(&mut self, op: &str, inputs: &[ValueId], out: &str) -> (ValueId, Node) {
        let out = self.0.add_value(out, ValueType::default()).unwrap();
        (out, Node::new(op, "", inputs, &[out]))
    }

    fn push(&mut self, op: &str, inputs: &[ValueId], out: &str) -> ValueId {
        let (value, node) = self.node(op, inputs, out);
        self.0.add_node(node);
        value
    }

    fn model(mut self, output: ValueId) -> Model {
        self.0.add_output(output);
        Model {
            graph: self.0,
            opsets: vec![(String::new(), 17)],
            ir_version: 8,
            ..Default::default()
        }
    }
}

fn run(model: &Model, channels: usize) -> Vec<f32> {
    let session = Session::new(model, &SessionOptions::new(Mode::Float)).unwrap();
    let x = Tensor::from_slice(vec![1, channels, 6, 6], &noise(channels * 36, 5)).unwrap();
    session.run(&[("x", x)]).unwrap()[0].1.to_f32().unwrap()
}

/// Conv - BN - Identity - depthwise Conv - BN.
fn with_batch_norm() -> Model {
    let (mut net, x) = Net::new(3);
    let w = net.constant("w", &[4, 3, 3, 3]);
    let c = net.push("Conv", &[x, w], "c");
    let n = net.norm(c, "n1");
    let i = net.push("Identity", &[n], "i");
    let (wd, bd) = (net.constant("wd", &[4, 1, 3, 3]), net.constant("bd", &[4]));
    let (d, node) = net.node("Conv", &[i, wd, bd], "d");
    net.0.add_node(node.with("group", Attr::Int(4)));
    let y = net.norm(d, "y");
    net.model(y)
}

impl Net {
    fn norm(&mut self, x: ValueId, out: &str) -> ValueId {
        let parameters =
            ["gamma", "beta", "mean"].map(|p| self.constant(&format!("{out}.{p}"), &[4]));
        let var = Tensor::vector(&[0.5f32, 1.0, 2.0, 0.1]);
        let var = self.0.add_constant(format!("{out}.var"), var).unwrap();
        let [gamma, beta, mean] = parameters;
        self.push("BatchNormalization", &[x, gamma, beta, mean, var], out)
    }
}

#[test]
fn preparing_keeps_results_and_output_names() {
    let model = with_batch_norm();
    let prepared = prepare(&model).unwrap();
    let ops: Vec<&str> = prepared.graph.nodes().map(|(_, n)| n.op.as_str()).collect();
    assert_eq!(ops, ["Conv", "Conv"]);
    assert!(prepared.graph.nodes().all(|(_, n)| !n.name.is_empty()));
    assert_eq!(prepared.graph.name_of(prepared.graph.outputs()[0]), "y");
    let (before, after) = (run(&model, 3), run(&prepared, 3));
    for (a, b) in before.iter().zip(&after) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

/// Conv - Relu - depthwise Conv - Relu - Conv, with channels of very different ranges.
fn unbalanced() -> Model {
    let (mut net, x) = Net::new(2);
    let mut weight = noise(4 * 2, 9);
    weight.iter_mut().enumerate().for_each(|(i, v)| *v *= 10f32.powi((i / 2) as i32));
    let w1 =
        net.0.add_constant("w1", Tensor::from_slice(vec![4, 2, 1, 1], &weight).unwrap()).unwrap();
    let b1 = net.constant("b1", &[4]);
    let c = net.push("Conv", &[x, w1, b1], "c1");
    let r = net.push("Relu", &[c], "r1");
    let wd = net.constant("wd", &[4, 1, 3, 3]);
    let (d, node) = net.node("Conv", &[r, wd], "d");
    net.0.add_node(node.with("group", Attr::Int(4)));
    let r = net.push("Relu", &[d], "r2");
    let w2 = net.constant("w2", &[3, 4, 1, 1]);
    let y = net.push("Conv", &[r, w2], "y");
    net.model(y)
}

#[test]
fn equalization_balances_channels_and_changes_no_bit() {
    let model = unbalanced();
    let equalized = equalize(&model).unwrap();
    assert_eq!(run(&model, 2), run(&equalized, 2));
    let spread = |m: &Model| {
        let w = m.graph.constant(m.graph.find_value("w1").unwrap()).unwrap().to_f32().unwrap();
        let rows: Vec<f32> = w.chunks(2).map(|r| r[0].abs().max(r[1].abs())).collect();
        rows.iter().cloned().fold(0.0, f32::max) / rows.iter().cloned().fold(f32::MAX, f32::min)
    };
    assert!(spread(&equalized) < spread(&model) / 4.0);
}

/// Conv - ReduceMean over `axes`, given as an attribute or as an input.
fn with_mean(axes: &[i64], keep: i64, attribute: bool) -> Model {
    let (mut net, x) = Net::new(3);
    let w = net.constant("w", &[4, 3, 3, 3]);
    let c = net.push("Conv", &[x, w], "c");
    let mut inputs = vec![c];
    if !attribute {
        inputs.push(net.0.add_constant("axes", Tensor::vector(axes)).unwrap());
    }
    let (y, node) = net.node("ReduceMean", &inputs, "y");
    let node = node.with("keepdims", Attr::Int(keep));
    net.0.add_node(if attribute { node.with("axes", Attr::Ints(axes.to_vec())) } else { node });
    let mut model = net.model(y);
    model.opsets[0].1 = if attribute { 17 } else { 18 };
    model
}

#[test]
fn means_over_planes_are_pools() {
    let pool = ["Conv", "GlobalAveragePool"].as_slice();
    let flat = ["Conv", "GlobalAveragePool", "Flatten"].as_slice();
    let mean = ["Conv", "ReduceMean"].as_slice();
    let cases: [(&[i64], i64, &[&str]); 6] = [
        (&[2, 3], 1, pool),
        (&[-1, -2], 1, pool),
        (&[2, 3], 0, flat),
        (&[3], 1, mean),
        (&[1], 1, mean),
        (&[1, 2, 3], 0, mean),
    ];
    for (axes, keep, expected) in cases {
        for attribute in [true, false] {
            let model = with_mean(axes, keep, attribute);
            let prepared = prepare(&model).unwrap();
            let ops: Vec<&str> = prepared.graph.nodes().map(|(_, n)| n.op.as_str()).collect();
            assert_eq!(ops, expected, "{axes:?}");
            assert_eq!(prepared.graph.name_of(prepared.graph.outputs()[0]), "y");
            let (before, after) = (run(&model, 3), run(&prepared, 3));
            assert_eq!(before.len(), after.len());
            for (a, b) in before.iter().zip(&after) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }
}

/// Convolution and product as ONNX Runtime fuses them with what follows.
fn fused() -> Model {
    let (mut net, x) = Net::new(3);
    let (w, b) = (net.constant("w", &[4, 3, 3, 3]), net.constant("b", &[4]));
    let (c, conv) = net.node("FusedConv", &[x, w, b], "c");
    let bounds = Attr::Floats(vec![-0.1, 0.2]);
    let conv = conv.with("activation", Attr::String("Clip".into()));
    let product_of = net.constant("m", &[2, 4]);
    let (y, product) = net.node("FusedMatMul", &[c, product_of], "y");
    let product = product.with("transB", Attr::Int(1));
    for node in [conv.with("activation_params", bounds), product] {
        net.0.add_node(Node { domain: "com.microsoft".into(), ..node });
    }
    let mut model = net.model(y);
    model.opsets.push(("com.microsoft".into(), 1));
    model
}

#[test]
fn fused_products_are_taken_apart() {
    let model = fused();
    let prepared = prepare(&model).unwrap();
    let mut ops: Vec<_> = prepared.graph.nodes().map(|(_, node)| node.op.clone()).collect();
    ops.sort();
    assert_eq!(ops, ["Clip", "Conv", "MatMul"]);
    assert_eq!(run(&prepared, 3), run(&model, 3));
}
