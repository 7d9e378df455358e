//! Operators on codes against their meaning: dequantize, compute in float, quantize.

use fewbit_core::{Attr, DType, Error, Graph, Model, Node, Result, Tensor, ValueType};
use fewbit_exec::{Arena, EvalCtx, Mode, OpTable, Session, SessionOptions};
use fewbit_kernels::{Ctx, Isa, Pool};

const MICROSOFT: &str = "com.microsoft";

fn eval(node: Node, inputs: Vec<Option<Tensor>>) -> Result<Tensor> {
    let (pool, arena, table) = (Pool::single(), Arena::new(), OpTable::standard());
    let kernels = Ctx { isa: Isa::scalar(), pool: &pool };
    let def = table.of(&node).ok_or_else(|| Error::unsupported(node.op.clone()))?;
    let mut ctx = EvalCtx {
        node: &node,
        opset: 21,
        kernels: &kernels,
        arena: &arena,
        subgraphs: None,
        inputs,
    };
    Ok((def.eval)(&mut ctx)?.remove(0))
}

fn op(domain: &str, name: &str) -> Node {
    Node { op: name.into(), domain: domain.into(), ..Default::default() }
}

fn codes(dtype: DType, shape: &[usize], start: i64) -> Tensor {
    let count: usize = shape.iter().product();
    let (low, high) = dtype.int_range().unwrap();
    let span = (high - low + 1) as i64;
    let value = |i: i64| ((start + 37 * i).rem_euclid(span) + low as i64) as f64;
    let values: Vec<f64> = (0..count as i64).map(value).collect();
    Tensor::from_f64(dtype, shape.to_vec(), &values).unwrap()
}

fn scalar(dtype: DType, value: f64) -> Tensor {
    Tensor::from_f64(dtype, vec![], &[value]).unwrap()
}

fn dequantize(x: &Tensor, scale: &Tensor, zero: &Tensor, axis: i64) -> Tensor {
    let node = op("", "DequantizeLinear").with("axis", Attr::Int(axis));
    eval(node, vec![Some(x.clone()), Some(scale.clone()), Some(zero.clone())]).unwrap()
}

fn quantize(x: Tensor, scale: &Tensor, zero: &Tensor) -> Tensor {
    let inputs = vec![Some(x), Some(scale.clone()), Some(zero.clone())];
    eval(op("", "QuantizeLinear"), inputs).unwrap()
}

/// Codes that differ by one step at most, since both round a different sum.
fn assert_close(a: &Tensor, b: &Tensor, what: &str) {
    assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()), "{what}");
    let pairs = a.to_i64().unwrap().into_iter().zip(b.to_i64().unwrap());
    let off = pairs.filter(|(x, y)| x != y).inspect(|(x, y)| assert!((x - y).abs() <= 1, "{what}"));
    assert!(off.count() * 50 <= a.len(), "{what}: too many codes differ");
}

#[test]
fn a_quantized_product_means_the_float_product() {
    for (a_type, b_type) in [(DType::U8, DType::I8), (DType::I8, DType::I8), (DType::U8, DType::U8)]
    {
        let (a, b) = (codes(a_type, &[2, 5, 7], 3), codes(b_type, &[7, 6], 11));
        let a_zero = codes(a_type, &[5], 90);
        let b_zero = codes(b_type, &[6], 17);
        let a_scale = Tensor::vector(&[0.01f32, 0.02, 0.03, 0.015, 0.005]);
        let b_scale = Tensor::vector(&[0.02f32, 0.01, 0.04, 0.03, 0.02, 0.01]);
        let (y_scale, y_zero) = (scalar(DType::F32, 0.13), scalar(a_type, 5.0));
        let inputs = [&a, &a_scale, &a_zero, &b, &b_scale, &b_zero, &y_scale, &y_zero];
        let inputs = inputs.map(|t| Some(t.clone())).to_vec();
        let got = eval(op("", "QLinearMatMul"), inputs).unwrap();
        let floats = [dequantize(&a, &a_scale, &a_zero, 1), dequantize(&b, &b_scale, &b_zero, 1)];
        let product = eval(op("", "MatMul"), floats.map(Some).to_vec()).unwrap();
        assert_close(&got, &quantize(product, &y_scale, &y_zero), &format!("{a_type} {b_type}"));
    }
}

#[test]
fn a_quantized_convolution_means_the_float_convolution() {
    for dtype in [DType::U8, DType::I8] {
        let (x, w) = (codes(dtype, &[2, 4, 9, 8], 3), codes(DType::I8, &[6, 2, 3, 3], 5));
        let (x_scale, x_zero) = (scalar(DType::F32, 0.05), scalar(dtype, 7.0));
        let w_scale = Tensor::vector(&[0.02f32, 0.01, 0.04, 0.03, 0.02, 0.01]);
        let w_zero = Tensor::vector(&[0i8, 1, -2, 3, 0, 4]);
        let (y_scale, y_zero) = (scalar(DType::F32, 0.7), scalar(dtype, 100.0));
        let attributes = |node: Node| {
            node.with("group", Attr::Int(2))
                .with("strides", Attr::Ints(vec![2, 1]))
                .with("pads", Attr::Ints(vec![1, 0, 2, 1]))
                .with("dilations", Attr::Ints(vec![1, 2]))
        };
        let inputs = [&x, &x_scale, &x_zero, &w, &w_scale, &w_zero, &y_scale, &y_zero];
        let inputs = inputs.map(|t| Some(t.clone())).to_vec();
        let got = eval(attributes(op("", "QLinearConv")), inputs).unwrap();
        let floats = [dequantize(&x, &x_scale, &x_zero, 1), dequantize(&w, &w_scale, &w_zero, 0)];
        let sums = eval(attributes(op("", "Conv")), floats.map(Some).to_vec()).unwrap();
        assert_close(&got, &quantize(sums, &y_scale, &y_zero), dtype.name());
    }
}

#[test]
fn addition_and_multiplication_of_codes_broadcast() {
    for (name, float) in [("QLinearAdd", "Add"), ("QLinearMul", "Mul")] {
        let (a, b) = (codes(DType::U8, &[2, 3, 4], 3), codes(DType::U8, &[3, 1], 50));
        let (s, z) = (scalar(DType::F32, 0.05), scalar(DType::U8, 120.0));
        let (y_scale, y_zero) = (scalar(DType::F32, 0.2), scalar(DType::U8, 128.0));
        let inputs = [&a, &s, &z, &b, &s, &z, &y_scale, &y_zero].map(|t| Some(t.clone()));
        let got = eval(op(MICROSOFT, name), inputs.to_vec()).unwrap();
        let floats = [dequantize(&a, &s, &z, 1), dequantize(&b, &s, &z, 1)].map(Some).to_vec();
        let sum = eval(op("", float), floats).unwrap();
        assert_eq!(got, quantize(sum, &y_scale, &y_zero), "{name}");
    }
}

#[test]
fn weights_of_few_bits_multiply_as_what_they_stand_for() {
    for bits in [2, 4, 8usize] {
        let (k, n, block) = (20, 3, 16);
        let blocks = 2;
        let packed = codes(DType::U8, &[n, blocks, block * bits / 8], 7);
        let scales: Vec<f32> = (0..n * blocks).map(|i| 0.01 * (i + 1) as f32).collect();
        // The identity reads the dequantized weight out.
        let mut identity = vec![0f32; k * k];
        (0..k).for_each(|i| identity[i * k + i] = 1.0);
        let node = op(MICROSOFT, "MatMulNBits")
            .with("K", Attr::Int(k as i64))
            .with("N", Attr::Int(n as i64))
            .with("bits", Attr::Int(bits as i64))
            .with("block_size", Attr::Int(block as i64));
        let identity = Tensor::from_slice(vec![k, k], &identity).unwrap();
        let inputs = vec![Some(identity), Some(packed.clone()), Some(Tensor::vector(&scales))];
        let got = eval(node, inputs).unwrap().to_f32().unwrap();
        let row = blocks * block * bits / 8;
        for column in 0..n {
            for i in 0..k {
                let byte = packed.bytes()[column * row + i * bits / 8] as u32;
                let code = byte >> (i * bits % 8) & ((1 << bits) - 1);
                let number = code as f32 - (1u32 << (bits - 1)) as f32;
                let expected = number * scales[column * blocks + i / block];
                assert_eq!(got[i * n + column], expected, "{bits} bits");
            }
        }
    }
}

#[test]
fn parameters_that_do_not_fit_are_refused() {
    let x = Tensor::from_slice(vec![2, 3], &[0f32; 6]).unwrap();
    let scale = |n: usize| Tensor::from_slice(vec![n], &vec![1f32; n]).unwrap();
    let zero = |n: usize| Tensor::from_slice(vec![n], &vec![0u8; n]).unwrap();
    let linear = |scale: Tensor, zero: Tensor| {
        eval(op("", "QuantizeLinear"), vec![Some(x.clone()), Some(scale), Some(zero)])
    };
    assert!(linear(scale(3), zero(3)).is_ok());
    assert_eq!(linear(scale(2), zero(2)).unwrap_err().stable_code(), "FB-3220");
    assert_eq!(linear(scale(3), zero(2)).unwrap_err().stable_code(), "FB-3222");
    let blocked = op("", "QuantizeLinear").with("block_size", Attr::Int(2));
    let scales = scale(6).reshape(vec![2, 3]).unwrap();
    let error = eval(blocked, vec![Some(x.clone()), Some(scales)]).unwrap_err();
    assert_eq!(error.stable_code(), "FB-3221");
    let negative = op("", "QuantizeLinear").with("block_size", Attr::Int(-1));
    assert!(eval(negative, vec![Some(x.clone()), Some(scale(1))]).is_err());
}

/// A mean of codes over the given axes, behind a convolution of codes or not.
fn mean_of_codes(axes: &[i64], keep: i64, convolved: bool) -> Model {
    let mut graph = Graph::new("mean");
    let mut add = |name: &str, tensor: Tensor| graph.add_constant(name, tensor).unwrap();
    let [step, fine] = [0.05f32, 0.004].map(|scale| add(&scale.to_string(), Tensor::scalar(scale)));
    let zero = add("zero", Tensor::scalar(117u8));
    let axes = add("axes", Tensor::vector(axes));
    let codes: Vec<i8> = (0..6 * 6).map(|i| (i * 37 % 100) as i8 - 50).collect();
    let codes = add("codes", Tensor::from_slice(vec![6, 6, 1, 1], &codes).unwrap());
    let names = ["x", "q", "d", "w", "c", "cq", "cd", "y", "out"];
    let [x, q, d, w, c, cq, cd, y, out] =
        names.map(|name| graph.add_value(name, ValueType::default()).unwrap());
    graph.set_type(x, ValueType::fixed(DType::F32, &[2, 6, 5, 7]));
    graph.add_input(x);
    graph.add_node(Node::new("QuantizeLinear", "", &[x, step, zero], &[q]));
    graph.add_node(Node::new("DequantizeLinear", "", &[q, step, zero], &[d]));
    let mut data = d;
    if convolved {
        graph.add_node(Node::new("DequantizeLinear", "", &[codes, fine], &[w]));
        graph.add_node(Node::new("Conv", "", &[d, w], &[c]));
        graph.add_node(Node::new("QuantizeLinear", "", &[c, step, zero], &[cq]));
        graph.add_node(Node::new("DequantizeLinear", "", &[cq, step, zero], &[cd]));
        data = cd;
    }
    let mean = Node::new("ReduceMean", "mean", &[data, axes], &[y]);
    graph.add_node(mean.with("keepdims", Attr::Int(keep)));
    graph.add_node(Node::new("QuantizeLinear", "", &[y, fine, zero], &[out]));
    graph.add_output(out);
    Model { graph, opsets: vec![(String::new(), 18)], ..Default::default() }
}

#[test]
fn means_of_codes_are_those_of_their_numbers() {
    let values: Vec<f32> = (0..420).map(|i| (i as f32 * 0.73).cos() * 3.0).collect();
    let x = Tensor::from_slice(vec![2, 6, 5, 7], &values).unwrap();
    let cases: [(&[i64], i64, bool); 6] = [
        (&[2, 3], 1, true),
        (&[-1, -2], 0, true),
        (&[1], 1, true),
        (&[3], 0, true),
        // These have no order that both layouts share, or lie apart.
        (&[1, 2, 3], 0, false),
        (&[0, 2], 1, false),
    ];
    for (axes, keep, integer) in cases {
        for convolved in [false, true] {
            let model = mean_of_codes(axes, keep, convolved);
            let session = |mode| Session::new(&model, &SessionOptions::new(mode)).unwrap();
            let [simulated, found] = [Mode::Simulate, Mode::Integer]
                .map(|mode| session(mode).run(&[("x", x.clone())]).unwrap());
            assert_eq!(found, simulated, "{axes:?} {keep} {convolved}");
            let session = session(Mode::Integer);
            let line = session.plan().iter().find(|line| line.op == "ReduceMean").unwrap();
            assert_eq!(line.integer, integer, "{axes:?} {:?}", line.reason);
        }
    }
}
