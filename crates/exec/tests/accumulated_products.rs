//! `MatMulInteger` and `ConvInteger` with a constant weight, and what follows them, as one step: the
//! same bits as one by one with a weight that is not known before.

use fewbit_core::{Attr, DType, Graph, Model, Node, Tensor, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};

/// What a model is made of.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: &'static [usize],
    k: usize,
    n: usize,
    weight: DType,
    /// Zero points of the weight: none, one, or one for each column.
    zeros: usize,
    /// Scales behind the product: none, one, or one for each column.
    scales: usize,
    is_biased: bool,
}

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 11) as f32 * 0.731).sin() * 3.0).collect()
}

fn codes(dtype: DType, shape: &[usize], seed: usize) -> Tensor {
    let (low, high) = dtype.int_range().unwrap();
    let span = (high - low + 1) as usize;
    let value = |i: usize| ((i * 53 + i / 7 + seed) % span) as f64 + low as f64;
    let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_f64(dtype, shape.to_vec(), &values).unwrap()
}

/// A model, whose matrix is an input where it is not constant, and the matrix.
fn model(case: Case, is_constant: bool) -> (Model, Tensor) {
    let Case { rows, k, n, weight, zeros, scales, is_biased } = case;
    let mut graph = Graph::new("net");
    let shape: Vec<usize> = rows.iter().copied().chain([k]).collect();
    let x = graph.add_value("x", ValueType::fixed(DType::F32, &shape)).unwrap();
    graph.add_input(x);
    let matrix = codes(weight, &[k, n], 5);
    let w = graph.add_value("w", ValueType::of(&matrix)).unwrap();
    match is_constant {
        true => graph.set_constant(w, matrix.clone()),
        false => graph.add_input(w),
    }
    let dynamic =
        ["codes", "scale", "zero"].map(|name| graph.add_value(name, ValueType::default()).unwrap());
    graph.add_node(Node::new("DynamicQuantizeLinear", "q", &[x], &dynamic));
    let mut last = graph.add_value("sums", ValueType::default()).unwrap();
    let mut inputs = vec![dynamic[0], w, dynamic[2]];
    if zeros > 0 {
        let shape = if zeros == 1 { vec![] } else { vec![zeros] };
        inputs.push(graph.add_constant("zeros", codes(weight, &shape, 130)).unwrap());
    }
    graph.add_node(Node::new("MatMulInteger", "product", &inputs, &[last]));
    if scales > 0 {
        let shape = if scales == 1 { vec![] } else { vec![scales] };
        let tensor = Tensor::from_slice(shape, &numbers(scales, 1)).unwrap();
        let own = graph.add_constant("own", tensor).unwrap();
        let [both, float, scaled] = ["both", "float", "scaled"]
            .map(|name| graph.add_value(name, ValueType::default()).unwrap());
        graph.add_node(Node::new("Mul", "scales", &[dynamic[1], own], &[both]));
        let to = Attr::Int(i64::from(DType::F32.to_onnx()));
        graph.add_node(Node::new("Cast", "cast", &[last], &[float]).with("to", to));
        graph.add_node(Node::new("Mul", "rescale", &[float, both], &[scaled]));
        last = scaled;
    }
    if is_biased {
        let row = Tensor::from_slice(vec![n], &numbers(n, 2)).unwrap();
        let bias = graph.add_constant("bias", row).unwrap();
        let biased = graph.add_value("biased", ValueType::default()).unwrap();
        graph.add_node(Node::new("Add", "add", &[bias, last], &[biased]));
        last = biased;
    }
    graph.add_output(last);
    (Model { graph, opsets: vec![(String::new(), 17)], ..Default::default() }, matrix)
}

fn steps(session: &Session) -> Vec<&str> {
    session.plan().iter().map(|node| node.kernel.as_str()).collect()
}

#[test]
fn products_of_codes_that_are_made_on_the_way_are_one_step() {
    let plain =
        Case { rows: &[5], k: 40, n: 19, weight: DType::I8, zeros: 0, scales: 1, is_biased: true };
    let cases = [
        plain,
        Case { zeros: 19, scales: 19, ..plain },
        Case { rows: &[2, 3], k: 7, weight: DType::U8, zeros: 1, is_biased: false, ..plain },
        Case { rows: &[2, 1, 9], k: 300, n: 64, weight: DType::U8, zeros: 64, scales: 64, ..plain },
        Case { scales: 0, is_biased: false, ..plain },
    ];
    for case in cases {
        let (whole, _) = model(case, true);
        let (apart, matrix) = model(case, false);
        let shape: Vec<usize> = case.rows.iter().copied().chain([case.k]).collect();
        let x = Tensor::from_slice(shape.clone(), &numbers(shape.iter().product(), 3)).unwrap();
        for mode in [Mode::Integer, Mode::Simulate] {
            let options = SessionOptions::new(mode);
            let whole = Session::new(&whole, &options).unwrap();
            let apart = Session::new(&apart, &options).unwrap();
            let kernel = if case.scales > 0 { "gemm_i8_f32" } else { "gemm_i8_i32" };
            assert!(steps(&whole).contains(&kernel), "{case:?}: {:?}", steps(&whole));
            assert!(!steps(&apart).contains(&kernel));
            let found = whole.run(&[("x", x.clone())]).unwrap().remove(0).1;
            let inputs = [("x", x.clone()), ("w", matrix.clone())];
            let expected = apart.run(&inputs).unwrap().remove(0).1;
            assert_eq!(found.shape(), expected.shape(), "{case:?}");
            assert_eq!(found.bytes(), expected.bytes(), "{case:?} {mode:?}");
        }
    }
}

#[test]
fn scales_that_are_no_row_are_not_taken_into_the_step() {
    let case =
        Case { rows: &[4], k: 8, n: 4, weight: DType::I8, zeros: 0, scales: 1, is_biased: false };
    let (mut model, _) = model(case, true);
    let own = model.graph.find_value("own").unwrap();
    let column = Tensor::from_slice(vec![4, 1], &numbers(4, 1)).unwrap();
    model.graph.set_constant(own, column);
    let session = Session::new(&model, &SessionOptions::new(Mode::Integer)).unwrap();
    assert!(steps(&session).contains(&"gemm_i8_i32"));
}

#[test]
fn zero_points_of_another_type_are_no_part_of_the_step() {
    let case =
        Case { rows: &[4], k: 8, n: 4, weight: DType::I8, zeros: 1, scales: 1, is_biased: false };
    let (mut model, _) = model(case, true);
    let zeros = model.graph.find_value("zeros").unwrap();
    model.graph.set_constant(zeros, Tensor::scalar(1000i32));
    let session = Session::new(&model, &SessionOptions::new(Mode::Integer)).unwrap();
    assert!(!steps(&session).contains(&"gemm_i8_f32"));
}

/// A convolution as ONNX Runtime's dynamic quantization writes it.
#[derive(Clone, Copy, Debug)]
struct Convolution {
    image: &'static [usize],
    weight: &'static [usize],
    dtype: DType,
    group: i64,
    /// Zero points of the weight: none, one, or one for each channel.
    zeros: usize,
    is_biased: bool,
    clamp: Option<&'static str>,
}

/// A model, whose weight is an input where it is not constant, and the weight.
fn convolution(case: Convolution, is_constant: bool) -> (Model, Tensor) {
    let mut graph = Graph::new("net");
    let x = graph.add_value("x", ValueType::fixed(DType::F32, case.image)).unwrap();
    graph.add_input(x);
    let weight = codes(case.dtype, case.weight, 5);
    let w = graph.add_value("w", ValueType::of(&weight)).unwrap();
    match is_constant {
        true => graph.set_constant(w, weight.clone()),
        false => graph.add_input(w),
    }
    let value =
        |graph: &mut Graph, name: &str| graph.add_value(name, ValueType::default()).unwrap();
    let dynamic = ["codes", "scale", "zero"].map(|name| value(&mut graph, name));
    graph.add_node(Node::new("DynamicQuantizeLinear", "q", &[x], &dynamic));
    let mut inputs = vec![dynamic[0], w, dynamic[2]];
    if case.zeros > 0 {
        let shape = if case.zeros == 1 { vec![] } else { vec![case.zeros] };
        inputs.push(graph.add_constant("zeros", codes(case.dtype, &shape, 130)).unwrap());
    }
    let own = graph.add_constant("own", Tensor::scalar(0.013f32)).unwrap();
    let [sums, float, both, mut last] =
        ["sums", "float", "both", "scaled"].map(|name| value(&mut graph, name));
    let pads = Attr::Ints(vec![1; 2 * (case.weight.len() - 2)]);
    let product = Node::new("ConvInteger", "product", &inputs, &[sums]);
    graph.add_node(product.with("group", Attr::Int(case.group)).with("pads", pads));
    graph.add_node(Node::new("Mul", "scales", &[dynamic[1], own], &[both]));
    let to = Attr::Int(i64::from(DType::F32.to_onnx()));
    graph.add_node(Node::new("Cast", "cast", &[sums], &[float]).with("to", to));
    graph.add_node(Node::new("Mul", "rescale", &[float, both], &[last]));
    if case.is_biased {
        let channels = case.weight[0];
        let mut shape = vec![1; case.weight.len()];
        shape[1] = channels;
        let bias = Tensor::from_slice(shape, &numbers(channels, 2)).unwrap();
        let bias = graph.add_constant("bias", bias).unwrap();
        let biased = value(&mut graph, "biased");
        graph.add_node(Node::new("Add", "add", &[last, bias], &[biased]));
        last = biased;
    }
    if let Some(op) = case.clamp {
        let clamped = value(&mut graph, "clamped");
        graph.add_node(Node::new(op, "clamp", &[last], &[clamped]));
        last = clamped;
    }
    // What reads the codes of the result reads them channels-last.
    let again = ["codes2", "scale2", "zero2"].map(|name| value(&mut graph, name));
    graph.add_node(Node::new("DynamicQuantizeLinear", "q2", &[last], &again));
    graph.add_output(last);
    again.into_iter().for_each(|output| graph.add_output(output));
    (Model { graph, opsets: vec![(String::new(), 17)], ..Default::default() }, weight)
}

#[test]
fn convolutions_of_codes_that_are_made_on_the_way_are_one_step() {
    let plain = Convolution {
        image: &[2, 4, 9, 8],
        weight: &[6, 4, 3, 3],
        dtype: DType::I8,
        group: 1,
        zeros: 1,
        is_biased: true,
        clamp: Some("Relu"),
    };
    let cases = [
        plain,
        Convolution { zeros: 0, is_biased: false, clamp: None, ..plain },
        Convolution { weight: &[4, 1, 3, 3], group: 4, zeros: 4, clamp: None, ..plain },
        Convolution { weight: &[6, 2, 1, 1], dtype: DType::U8, group: 2, ..plain },
        Convolution { image: &[1, 4, 30], weight: &[5, 4, 3], dtype: DType::U8, zeros: 5, ..plain },
    ];
    for case in cases {
        let (whole, _) = convolution(case, true);
        let (apart, weight) = convolution(case, false);
        let x = numbers(case.image.iter().product(), 3);
        let x = Tensor::from_slice(case.image.to_vec(), &x).unwrap();
        for mode in [Mode::Integer, Mode::Simulate] {
            let options = SessionOptions::new(mode);
            let whole = Session::new(&whole, &options).unwrap();
            let apart = Session::new(&apart, &options).unwrap();
            assert!(steps(&whole).contains(&"conv_i8_f32"), "{case:?}: {:?}", steps(&whole));
            assert!(!steps(&apart).contains(&"conv_i8_f32"));
            let found = whole.run(&[("x", x.clone())]).unwrap();
            let expected = apart.run(&[("x", x.clone()), ("w", weight.clone())]).unwrap();
            assert_eq!(found, expected, "{case:?} {mode:?}");
        }
    }
}
