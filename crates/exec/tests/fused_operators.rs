//! Operators into which ONNX Runtime fuses others: the same bits on any number of threads, products
//! that are prepared as such, and what is refused.

use fewbit_core::{Attr, DType, Error, Graph, Model, Node, Result, Tensor, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};

fn numbers(shape: &[usize], seed: u32) -> Tensor {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_slice(shape.to_vec(), &values).unwrap()
}

fn ints(values: &[i32]) -> Tensor {
    Tensor::from_slice(vec![values.len()], values).unwrap()
}

/// A model of one node whose inputs are given when it runs, or constants where `constant` says so.
fn model(op: &str, attrs: &[(&str, Attr)], inputs: &[Option<Tensor>], constant: &[usize]) -> Model {
    let mut graph = Graph::new("fused");
    let mut node = Node::new(op, op, &[], &[]);
    node.domain = "com.microsoft".into();
    node.attrs = attrs.iter().map(|(name, attr)| (name.to_string(), attr.clone())).collect();
    for (i, input) in inputs.iter().enumerate() {
        let value = input.as_ref().map(|tensor| {
            let ty = ValueType { dtype: Some(tensor.dtype()), ..Default::default() };
            let value = graph.add_value(format!("x{i}"), ty).unwrap();
            match constant.contains(&i) {
                true => graph.set_constant(value, tensor.clone()),
                false => graph.add_input(value),
            }
            value
        });
        node.inputs.push(value);
    }
    let y = graph.add_value("y", ValueType::default()).unwrap();
    node.outputs = vec![Some(y)];
    graph.add_node(node);
    graph.add_output(y);
    let opsets = vec![(String::new(), 17), ("com.microsoft".into(), 1)];
    Model { graph, opsets, ..Default::default() }
}

fn given(inputs: &[Option<Tensor>], constant: &[usize]) -> Vec<(String, Tensor)> {
    let dynamic = inputs.iter().enumerate().filter(|(i, _)| !constant.contains(i));
    dynamic.filter_map(|(i, x)| Some((format!("x{i}"), x.clone()?))).collect()
}

fn run(session: &Session, given: &[(String, Tensor)]) -> Result<Vec<f32>> {
    let given: Vec<_> = given.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
    session.run(&given)?[0].1.to_f32()
}

fn float(model: &Model, threads: usize) -> Session {
    Session::new(model, &SessionOptions::new(Mode::Float).threads(threads)).unwrap()
}

fn int(name: &str, value: i64) -> (&str, Attr) {
    (name, Attr::Int(value))
}

/// Queries, keys and values of a step of two samples, with their caches.
fn grouped() -> Vec<Option<Tensor>> {
    let mut inputs =
        vec![numbers(&[2, 1, 64], 1), numbers(&[2, 1, 32], 2), numbers(&[2, 1, 32], 3)];
    inputs.extend([numbers(&[2, 2, 40, 16], 4), numbers(&[2, 2, 40, 16], 5)]);
    inputs.extend([ints(&[40, 23]), ints(&[41])]);
    inputs.extend([numbers(&[64, 8], 6), numbers(&[64, 8], 7)]);
    inputs.into_iter().map(Some).collect()
}

const HEADS: [(&str, Attr); 3] =
    [("num_heads", Attr::Int(4)), ("kv_num_heads", Attr::Int(2)), ("do_rotary", Attr::Int(1))];

#[test]
fn threads_do_not_change_a_bit() {
    let padded = ints(&[70, 31]);
    let attention = vec![
        Some(numbers(&[2, 70, 24], 1)),
        Some(numbers(&[24, 144], 2)),
        Some(numbers(&[144], 3)),
        Some(padded.clone()),
    ];
    let part = |seed| Some(numbers(&[2, 70, 48], seed));
    let heads = vec![part(1), part(2), part(3), None, Some(padded)];
    let image =
        [numbers(&[1, 8, 19, 17], 1), numbers(&[24, 8, 3, 3], 2), numbers(&[24], 3)].map(Some);
    let relu = ("activation", Attr::String("Relu".into()));
    let cases = [
        ("Attention", vec![int("num_heads", 4)], attention, vec![1, 2]),
        ("MultiHeadAttention", vec![int("num_heads", 4)], heads, vec![]),
        ("GroupQueryAttention", HEADS.to_vec(), grouped(), vec![7, 8]),
        ("FusedConv", vec![relu], image.to_vec(), vec![1, 2]),
    ];
    for (op, attrs, inputs, constant) in cases {
        let model = model(op, &attrs, &inputs, &constant);
        let [one, two] =
            [1, 2].map(|threads| run(&float(&model, threads), &given(&inputs, &constant)).unwrap());
        assert!(one.iter().all(|y| y.is_finite()) && one.iter().any(|y| *y != 0.0), "{op}");
        assert_eq!(one, two, "{op}");
    }
}

#[test]
fn products_are_prepared_as_such() {
    let projection = [numbers(&[1, 9, 16], 1), numbers(&[16, 48], 2), numbers(&[48], 3)];
    let rows = [numbers(&[9, 16], 1), numbers(&[32, 16], 2)];
    let image = [numbers(&[1, 3, 9, 9], 1), numbers(&[8, 3, 3, 3], 2)];
    let sigmoid = ("activation", Attr::String("Sigmoid".into()));
    let cases = [
        ("Attention", int("num_heads", 2), projection.to_vec(), "MatMul"),
        ("FusedMatMul", int("transB", 1), rows.to_vec(), "MatMul"),
        ("FusedGemm", int("transB", 1), rows.to_vec(), "Gemm"),
        ("FusedConv", sigmoid, image.to_vec(), "Conv"),
    ];
    for (op, attr, inputs, product) in cases {
        let inputs: Vec<Option<Tensor>> = inputs.into_iter().map(Some).collect();
        let mut model = model(op, &[attr], &inputs, &[1, 2]);
        let x = model.graph.find_value("x0").unwrap();
        model.graph.set_type(x, ValueType::of(inputs[0].as_ref().unwrap()));
        let session = float(&model, 1);
        let step = session.plan().iter().find(|step| step.op == product);
        let step = step.unwrap_or_else(|| panic!("{op}: {:?}", session.plan()));
        assert_ne!(step.kernel, step.op, "{op}");
        run(&session, &given(&inputs, &[1, 2])).unwrap();
    }
}

/// What the error says where the node runs.
fn refusal(op: &str, attrs: &[(&str, Attr)], inputs: &[Option<Tensor>]) -> Error {
    let model = model(op, attrs, inputs, &[]);
    run(&float(&model, 1), &given(inputs, &[])).unwrap_err()
}

#[test]
fn what_is_not_computed_is_refused() {
    let with = |at: usize, tensor: Tensor| {
        let mut inputs = grouped();
        inputs.resize(inputs.len().max(at + 1), None);
        inputs[at] = Some(tensor);
        inputs
    };
    for (name, value) in
        [("causal", 0), ("sliding_window_cache", 1), ("qk_output", 1), ("local_window_size", 0)]
    {
        let attrs = [&HEADS[..], &[int(name, value)]].concat();
        let error = refusal("GroupQueryAttention", &attrs, &grouped()).to_string();
        assert!(error.contains(name), "{error}");
    }
    for (at, what) in [(12, "quantized"), (14, "normalized"), (16, "padded")] {
        let error = refusal("GroupQueryAttention", &HEADS, &with(at, numbers(&[4], 1)));
        assert!(error.to_string().contains(what), "{error}");
    }
    // More keys than the cache can hold, and fewer than are new.
    for lengths in [[40, 41], [40, -1]] {
        let error = refusal("GroupQueryAttention", &HEADS, &with(5, ints(&lengths)));
        assert!(error.to_string().contains("seqlens_k"), "{error}");
    }
    let part = || Some(numbers(&[2, 3, 8], 1));
    let longer = || Some(numbers(&[2, 5, 8], 1));
    let weight = || Some(numbers(&[8, 24], 2));
    let image = || vec![Some(numbers(&[1, 3, 9, 9], 1)), Some(numbers(&[8, 3, 3, 3], 2))];
    let name = ("activation", Attr::String("HardSwish".into()));
    let cases = [
        ("MultiHeadAttention", int("num_heads", 2), vec![part()], "input 0"),
        (
            "MultiHeadAttention",
            int("unidirectional", 1),
            vec![part(), longer(), longer()],
            "unidir",
        ),
        ("Attention", int("do_rotary", 1), vec![part(), weight()], "do_rotary"),
        ("Attention", int("past_present_share_buffer", 1), vec![part(), weight()], "share_buffer"),
        ("FusedConv", name, image(), "HardSwish"),
        ("FusedMatMul", int("transB", 1), vec![part(), part()], "rank"),
    ];
    for (op, attr, inputs, what) in cases {
        let error = refusal(op, &[attr, int("num_heads", 2)], &inputs).to_string();
        assert!(error.contains(what), "{op}: {error}");
    }
}

#[test]
fn halves_are_computed_in_floats() {
    let half = |x: &Option<Tensor>| match x {
        Some(x) if x.dtype() == DType::F32 => Some(x.cast(DType::F16).unwrap()),
        other => other.clone(),
    };
    let narrow: Vec<Option<Tensor>> = grouped().iter().map(half).collect();
    let wide: Vec<Option<Tensor>> = narrow
        .iter()
        .map(|x| match x {
            Some(x) if x.dtype() == DType::F16 => Some(x.cast(DType::F32).unwrap()),
            other => other.clone(),
        })
        .collect();
    let [narrow, wide] = [narrow, wide].map(|inputs| {
        let model = model("GroupQueryAttention", &HEADS, &inputs, &[]);
        run(&float(&model, 1), &given(&inputs, &[])).unwrap()
    });
    let rounded = Tensor::from_slice(vec![wide.len()], &wide).unwrap().cast(DType::F16).unwrap();
    assert_eq!(narrow, rounded.to_f32().unwrap());
}
