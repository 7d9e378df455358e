//! What a session promises whatever the operators do.

use fewbit_core::{Attr, DType, Dim, ErrorKind, Graph, Model, Node, Tensor, ValueType};
use fewbit_exec::{Mode, OpTable, Session, SessionOptions, fold_constants};

fn model(graph: Graph) -> Model {
    Model { graph, opsets: vec![(String::new(), 17)], ..Default::default() }
}

fn numbers(shape: &[usize], seed: u32) -> Tensor {
    let len: usize = shape.iter().product();
    let at =
        |i: usize| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed * 977) >> 16) % 2001;
    let values: Vec<f32> = (0..len).map(|i| at(i) as f32 / 1000.0 - 1.0).collect();
    Tensor::from_slice(shape.to_vec(), &values).unwrap()
}

/// Conv -> MaxPool -> Conv -> GlobalAveragePool over a named batch.
fn network() -> Model {
    let mut g = Graph::new("network");
    let dims = vec![Dim::Named("n".into()), Dim::Known(3), Dim::Known(9), Dim::Known(8)];
    let x = g.add_value("x", ValueType::tensor(DType::F32, dims)).unwrap();
    g.add_input(x);
    let w1 = g.add_constant("w1", numbers(&[4, 3, 3, 3], 1)).unwrap();
    let b1 = g.add_constant("b1", numbers(&[4], 2)).unwrap();
    let w2 = g.add_constant("w2", numbers(&[6, 2, 1, 3], 3)).unwrap();
    let values: Vec<_> =
        ["c1", "p", "c2", "y"].map(|n| g.add_value(n, ValueType::default()).unwrap()).into();
    let pads = Attr::Ints(vec![1, 0, 1, 2]);
    g.add_node(Node::new("Conv", "first", &[x, w1, b1], &values[..1]).with("pads", pads));
    let pool = Node::new("MaxPool", "pool", &values[..1], &values[1..2]);
    g.add_node(pool.with("kernel_shape", Attr::Ints(vec![2, 2])).with("ceil_mode", Attr::Int(1)));
    g.add_node(
        Node::new("Conv", "second", &[values[1], w2], &values[2..3]).with("group", Attr::Int(2)),
    );
    g.add_node(Node::new("GlobalAveragePool", "mean", &values[2..3], &values[3..]));
    g.add_output(values[3]);
    model(g)
}

#[test]
fn taps_show_the_inside_in_both_orders() {
    let model = network();
    let x = numbers(&[2, 3, 9, 8], 7);
    let plain = Session::new(&model, &SessionOptions::new(Mode::Float)).unwrap();
    let expected = plain.run(&[("x", x.clone())]).unwrap();
    assert_eq!(expected[0].1.shape(), [2, 6, 1, 1]);

    let mut options = SessionOptions::new(Mode::Float);
    options.taps.extend(["c1".to_string(), "x".to_string(), "w1".to_string()]);
    let tapped = Session::new(&model, &options).unwrap();
    let mut seen = Vec::new();
    let outputs = tapped
        .run_tapped(&[("x", x.clone())], &mut |event| {
            seen.push((event.name.to_string(), event.to_onnx_layout()?));
            Ok(())
        })
        .unwrap();
    assert_eq!(outputs, expected);
    let c1 = &seen.iter().find(|(name, _)| name == "c1").unwrap().1;
    assert_eq!(c1.shape(), [2, 4, 9, 8]);
    // One output by hand: image 1, channel 2, row 0, column 7 (with padding below and right).
    assert_eq!(c1.as_slice::<f32>().unwrap()[(4 + 2) * 72 + 7], by_hand(&x));
    assert!(seen.iter().any(|(name, t)| name == "x" && *t == x));
    assert!(seen.iter().any(|(name, _)| name == "w1"));
}

/// The sum in the kernels' order: rows, columns, channels.
fn by_hand(x: &Tensor) -> f32 {
    let (x, w) = (x.to_f32().unwrap(), numbers(&[4, 3, 3, 3], 1).to_f32().unwrap());
    let mut sum = 0f32;
    for ky in 1..3 {
        for c in 0..3 {
            // Column 7 is the last one inside; taps 1 and 2 lie in the padding.
            sum = x[((3 + c) * 9 + ky - 1) * 8 + 7].mul_add(w[((2 * 3 + c) * 3 + ky) * 3], sum);
        }
    }
    sum + numbers(&[4], 2).to_f32().unwrap()[2]
}

#[test]
fn threads_and_instruction_sets_do_not_change_a_bit() {
    let model = network();
    let x = numbers(&[3, 3, 9, 8], 5);
    let run = |threads, isa| {
        let options =
            SessionOptions { threads, isa: Some(isa), ..SessionOptions::new(Mode::Float) };
        Session::new(&model, &options).unwrap().run(&[("x", x.clone())]).unwrap()
    };
    let expected = run(1, fewbit_kernels::Level::Scalar);
    for isa in fewbit_kernels::Isa::available() {
        for threads in 1..=3 {
            assert_eq!(run(threads, isa.level()), expected, "{isa} on {threads} threads");
        }
    }
}

#[test]
fn inputs_are_checked() {
    let session = Session::new(&network(), &SessionOptions::default()).unwrap();
    let refused = |inputs: &[(&str, Tensor)]| session.run(inputs).unwrap_err().to_string();
    assert!(refused(&[]).contains("input `x` is not given"));
    assert!(refused(&[("z", numbers(&[1], 0))]).contains("no input `z`"));
    assert!(refused(&[("x", numbers(&[1, 3, 9, 9], 0))]).contains("f32[n,3,9,8]"));
    assert!(
        refused(&[("x", Tensor::zeros(DType::F64, vec![1, 3, 9, 8]).unwrap())]).contains("f64")
    );
}

#[test]
fn every_unknown_operator_is_named() {
    let mut g = Graph::new("g");
    let x = g.add_value("x", ValueType::default()).unwrap();
    g.add_input(x);
    let y = g.add_value("y", ValueType::default()).unwrap();
    let z = g.add_value("z", ValueType::default()).unwrap();
    g.add_node(Node::new("Frobnicate", "a", &[x], &[y]));
    g.add_node(Node { domain: "acme".into(), ..Node::new("Twist", "b", &[y], &[z]) });
    g.add_output(z);
    let error = Session::new(&model(g), &SessionOptions::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("Frobnicate (1x)") && text.contains("acme.Twist (1x)"), "{text}");
}

#[test]
fn files_for_one_kind_of_processor_are_told_apart() {
    let mut g = Graph::new("g");
    let x = g.add_value("x", ValueType::default()).unwrap();
    g.add_input(x);
    let y = g.add_value("y", ValueType::default()).unwrap();
    let domain = "com.microsoft.nchwc".into();
    g.add_node(Node { domain, ..Node::new("ReorderOutput", "a", &[x], &[y]) });
    g.add_output(y);
    let error = Session::new(&model(g), &SessionOptions::default()).err().unwrap();
    assert!(error.advice().is_some_and(|hint| hint.contains("ORT_ENABLE_EXTENDED")), "{error:?}");
}

#[test]
fn operators_without_their_graphs_are_refused() {
    for (op, attr) in [("If", "then_branch"), ("Loop", "body"), ("Scan", "body")] {
        let mut g = Graph::new("g");
        let x = g.add_value("x", ValueType::fixed(DType::F32, &[1])).unwrap();
        g.add_input(x);
        let y = g.add_value("y", ValueType::fixed(DType::F32, &[1])).unwrap();
        g.add_node(Node::new(op, "n", &[x], &[y]));
        g.add_output(y);
        let error = Session::new(&model(g), &SessionOptions::default()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::BadInput, "{op}");
        assert!(error.to_string().contains(attr), "{op}: {error}");
    }
}

#[test]
fn nodes_of_constants_are_folded() {
    let mut g = Graph::new("g");
    let a = g.add_constant("a", numbers(&[2, 3], 1)).unwrap();
    let b = g.add_constant("b", numbers(&[3, 2], 2)).unwrap();
    let y = g.add_value("y", ValueType::default()).unwrap();
    g.add_node(Node::new("MatMul", "m", &[a, b], &[y]));
    g.add_output(y);
    let mut model = model(g);
    let session = Session::new(&model, &SessionOptions::default()).unwrap();
    let outputs = session.run(&[]).unwrap();
    fold_constants(&model, &OpTable::standard()).apply(&mut model.graph).unwrap();
    assert_eq!(model.graph.node_count(), 0);
    assert_eq!(model.graph.constant(y), Some(&outputs[0].1));
}

/// Conv -> GlobalAveragePool -> Flatten -> Gemm. The weights are 16-bit floats behind `Cast`, or
/// constants of what they mean.
fn half_weights(stored: bool, transposed: bool) -> Model {
    let mut g = Graph::new("g");
    let x = g.add_value("x", ValueType::fixed(DType::F32, &[2, 3, 9, 8])).unwrap();
    g.add_input(x);
    let weight = |g: &mut Graph, name: &str, shape: &[usize], seed| {
        let half = numbers(shape, seed).cast(DType::F16).unwrap();
        if !stored {
            return g.add_constant(name, half.cast(DType::F32).unwrap()).unwrap();
        }
        let from = g.add_constant(format!("{name}_half"), half).unwrap();
        let to = g.add_value(name, ValueType::default()).unwrap();
        let node = Node::new("Cast", format!("{name}_cast"), &[from], &[to]);
        g.add_node(node.with("to", Attr::Int(DType::F32.to_onnx().into())));
        to
    };
    let filter = weight(&mut g, "filter", &[20, 3, 3, 2], 1);
    let mut matrix = weight(&mut g, "matrix", &[20, 5], 2);
    if transposed {
        let turned = g.add_value("turned", ValueType::default()).unwrap();
        g.add_node(Node::new("Transpose", "turn", &[matrix], &[turned]));
        matrix = turned;
    }
    let values: Vec<_> =
        ["c", "p", "f", "y"].map(|n| g.add_value(n, ValueType::default()).unwrap()).into();
    g.add_node(Node::new("Conv", "conv", &[x, filter], &values[..1]));
    g.add_node(Node::new("GlobalAveragePool", "mean", &values[..1], &values[1..2]));
    g.add_node(Node::new("Flatten", "flat", &values[1..2], &values[2..3]));
    let gemm = Node::new("Gemm", "gemm", &[values[2], matrix], &values[3..]);
    g.add_node(gemm.with("transB", Attr::Int(transposed.into())));
    g.add_output(values[3]);
    model(g)
}

#[test]
fn weights_that_are_computed_while_they_are_packed_mean_the_same() {
    let x = numbers(&[2, 3, 9, 8], 7);
    for (transposed, mode) in [
        (false, Mode::Float),
        (true, Mode::Float),
        (false, Mode::Simulate),
        (true, Mode::Simulate),
        (true, Mode::Integer),
    ] {
        let run = |stored| {
            let model = half_weights(stored, transposed);
            let session = Session::new(&model, &SessionOptions::new(mode)).unwrap();
            let plan: Vec<String> = session.plan().iter().map(|p| p.kernel.clone()).collect();
            assert!(plan.iter().any(|k| k == "conv_f32"), "{plan:?}");
            assert!(plan.iter().any(|k| k == "gemm_f32"), "{plan:?}");
            session.run(&[("x", x.clone())]).unwrap()
        };
        assert_eq!(run(true), run(false), "{transposed} {mode:?}");
    }
}

/// A body that multiplies its state by the outer matrix `m` and yields it.
fn power_loop(trips: Option<i64>) -> Model {
    let mut body = Graph::new("body");
    for (name, dtype) in [("i", DType::I64), ("go", DType::Bool), ("s", DType::F32)] {
        let id =
            body.add_value(name, ValueType { dtype: Some(dtype), ..Default::default() }).unwrap();
        body.add_input(id);
    }
    let value = |g: &mut Graph, name: &str| g.value_named_or_new(name).unwrap();
    let (go, s, m) = (value(&mut body, "go"), value(&mut body, "s"), value(&mut body, "m"));
    let (go_on, next, seen) =
        (value(&mut body, "go_on"), value(&mut body, "next"), value(&mut body, "seen"));
    body.add_node(Node::new("Identity", "go", &[go], &[go_on]));
    body.add_node(Node::new("MatMul", "step", &[s, m], &[next]));
    body.add_node(Node::new("Identity", "keep", &[next], &[seen]));
    [go_on, next, seen].into_iter().for_each(|v| body.add_output(v));

    let mut g = Graph::new("g");
    let s = g.add_value("start", ValueType::fixed(DType::F32, &[1, 2])).unwrap();
    let m = g.add_value("m", ValueType::fixed(DType::F32, &[2, 2])).unwrap();
    [s, m].into_iter().for_each(|v| g.add_input(v));
    let count = trips.map(|n| g.add_constant("trips", Tensor::scalar(n)).unwrap());
    let outputs: Vec<_> =
        ["last", "all"].map(|n| g.add_value(n, ValueType::default()).unwrap()).into();
    let mut node = Node::new("Loop", "loop", &[], &outputs);
    node.inputs = vec![count, None, Some(s)];
    g.add_node(node.with("body", Attr::Graph(Box::new(body))));
    outputs.into_iter().for_each(|v| g.add_output(v));
    model(g)
}

#[test]
fn a_loop_reads_values_of_the_outer_graph() {
    let session = Session::new(&power_loop(Some(3)), &SessionOptions::default()).unwrap();
    let m = Tensor::from_slice(vec![2, 2], &[0f32, 1.0, 2.0, 0.0]).unwrap();
    let start = Tensor::from_slice(vec![1, 2], &[1f32, 10.0]).unwrap();
    let outputs = session.run(&[("start", start), ("m", m)]).unwrap();
    assert_eq!(outputs[0].1.to_f32().unwrap(), [40.0, 2.0]);
    assert_eq!(outputs[1].1.shape(), [3, 1, 2]);
    assert_eq!(outputs[1].1.to_f32().unwrap(), [20.0, 1.0, 2.0, 20.0, 40.0, 2.0]);
}

#[test]
fn errors_name_node_and_shapes() {
    let mut g = Graph::new("g");
    let a = g.add_value("a", ValueType { dtype: Some(DType::F32), ..Default::default() }).unwrap();
    g.add_input(a);
    let y = g.add_value("y", ValueType::default()).unwrap();
    g.add_node(Node::new("MatMul", "square", &[a, a], &[y]));
    g.add_output(y);
    let session = Session::new(&model(g), &SessionOptions::default()).unwrap();
    let error = session.run(&[("a", numbers(&[2, 3], 0))]).unwrap_err().to_string();
    assert!(error.contains("MatMul \"square\"") && error.contains("f32[2, 3]"), "{error}");
}
