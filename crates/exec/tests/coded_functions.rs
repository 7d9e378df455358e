//! Functions of several operators as one table, and products of two coded tensors, against what
//! the Q/DQ nodes say.

use fewbit_core::{DType, Graph, Model, Node, Tensor, ValueId, ValueType};
use fewbit_exec::{Mode, NodePlan, Session, SessionOptions};

/// Numbers without a pattern that a quantization would follow.
fn wave(shape: &[usize], seed: usize, deviation: f32) -> Tensor {
    let len: usize = shape.iter().product();
    let value = |i: usize| ((i * 37 + seed * 11) as f32 * 0.7).sin() * 1.4 * deviation;
    Tensor::from_slice(shape.to_vec(), &(0..len).map(value).collect::<Vec<f32>>()).unwrap()
}

struct Net {
    graph: Graph,
    inputs: Vec<(String, Tensor)>,
}

impl Net {
    fn new() -> Net {
        Net { graph: Graph::new("net"), inputs: Vec::new() }
    }

    fn input(&mut self, name: &str, shape: &[usize], deviation: f32) -> ValueId {
        let value = self.graph.add_value(name, ValueType::fixed(DType::F32, shape)).unwrap();
        self.graph.add_input(value);
        let seed = self.inputs.len() + 5;
        self.inputs.push((name.to_string(), wave(shape, seed, deviation)));
        value
    }

    fn number(&mut self, value: f32) -> ValueId {
        self.constant(Tensor::scalar(value))
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = format!("c{}", self.graph.value_ids().count());
        self.graph.add_constant(name, tensor).unwrap()
    }

    fn node(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        let name = format!("{op}{}", self.graph.value_ids().count());
        let output = self.graph.add_value(name.clone(), ValueType::default()).unwrap();
        self.graph.add_node(Node::new(op, name, inputs, &[output]));
        output
    }

    /// Codes of a value.
    fn quantize(&mut self, value: ValueId, scale: f32, zero: u8) -> ValueId {
        let inputs = [value, self.number(scale), self.constant(Tensor::scalar(zero))];
        self.node("QuantizeLinear", &inputs)
    }

    fn dequantize(&mut self, codes: ValueId, scale: f32, zero: u8) -> ValueId {
        let inputs = [codes, self.number(scale), self.constant(Tensor::scalar(zero))];
        self.node("DequantizeLinear", &inputs)
    }

    fn coded(&mut self, value: ValueId, scale: f32, zero: u8) -> ValueId {
        let codes = self.quantize(value, scale, zero);
        self.dequantize(codes, scale, zero)
    }

    /// The outputs in both modes, and the plan.
    fn run(self, outputs: &[ValueId]) -> ([Vec<Tensor>; 2], Vec<NodePlan>) {
        let Net { mut graph, inputs } = self;
        outputs.iter().for_each(|&output| graph.add_output(output));
        let model = Model { graph, opsets: vec![(String::new(), 17)], ..Default::default() };
        model.graph.verify(None).unwrap();
        let inputs: Vec<(&str, Tensor)> =
            inputs.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
        let mut plan = Vec::new();
        let results = [Mode::Simulate, Mode::Integer].map(|mode| {
            let session = Session::new(&model, &SessionOptions::new(mode).threads(2)).unwrap();
            plan = session.plan().to_vec();
            session.run(&inputs).unwrap().into_iter().map(|(_, tensor)| tensor).collect()
        });
        (results, plan)
    }
}

/// GELU spelled out, with a quantization in the middle; returns its codes and the value between.
fn gelu(net: &mut Net, x: ValueId) -> (ValueId, ValueId) {
    let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|v| net.number(v));
    let divided = net.node("Div", &[x, root]);
    let wave = net.node("Erf", &[divided]);
    let wave = net.coded(wave, 0.008, 128);
    let raised = net.node("Add", &[one, wave]);
    let grown = net.node("Mul", &[raised, x]);
    let y = net.node("Mul", &[grown, half]);
    (net.quantize(y, 0.02, 9), wave)
}

#[test]
fn branches_that_meet_again_are_one_table() {
    let mut net = Net::new();
    let x = net.input("x", &[2, 3, 40], 1.5);
    let x = net.coded(x, 0.03, 100);
    let (codes, _) = gelu(&mut net, x);
    let ([simulated, integer], plan) = net.run(&[codes]);
    assert_eq!(simulated, integer);
    let tables = plan.iter().filter(|line| line.kernel == "table_i8").count();
    assert_eq!(tables, 1, "{plan:?}");
    assert!(plan.iter().all(|line| line.integer || line.kernel == "QuantizeLinear"), "{plan:?}");
}

#[test]
fn what_others_read_too_stays() {
    let mut net = Net::new();
    let x = net.input("x", &[2, 3, 40], 1.5);
    let x = net.coded(x, 0.03, 100);
    let (codes, wave) = gelu(&mut net, x);
    let other = net.node("Exp", &[wave]);
    let ([simulated, integer], _) = net.run(&[codes, other]);
    assert_eq!(simulated, integer);
}

#[test]
fn a_second_tensor_is_no_function_of_the_first() {
    let mut net = Net::new();
    let (x, y) = (net.input("x", &[4, 9], 1.0), net.input("y", &[4, 9], 1.0));
    let (x, y) = (net.coded(x, 0.03, 100), net.coded(y, 0.02, 110));
    let gate = net.node("Sigmoid", &[x]);
    let gate = net.coded(gate, 0.004, 0);
    let product = net.node("Mul", &[gate, y]);
    let codes = net.quantize(product, 0.02, 128);
    let ([simulated, integer], _) = net.run(&[codes]);
    assert_eq!(simulated, integer);
}

#[test]
fn products_of_two_coded_tensors() {
    for (a, b) in [
        (&[2, 3, 7, 32][..], &[2, 3, 32, 19][..]),
        (&[2, 1, 5, 16], &[3, 16, 33]),
        (&[6, 8], &[8, 4]),
    ] {
        let mut net = Net::new();
        let (x, y) = (net.input("x", a, 1.0), net.input("y", b, 1.0));
        let (x, y) = (net.coded(x, 0.02, 120), net.coded(y, 0.03, 77));
        let (first, second) = (net.node("MatMul", &[x, y]), net.node("MatMul", &[x, y]));
        let codes = net.quantize(first, 0.11, 130);
        let ([simulated, integer], plan) = net.run(&[codes, second]);
        let kernels: Vec<&str> = plan
            .iter()
            .filter(|line| line.op == "MatMul")
            .map(|line| line.kernel.as_str())
            .collect();
        assert_eq!(kernels, ["matmul_i8", "matmul_i8_f32"]);
        let [expected, got] = [&simulated[0], &integer[0]].map(|t| t.to_i64().unwrap());
        let off = expected.iter().zip(&got).filter(|(e, g)| e != g);
        assert!(off.clone().all(|(e, g)| (e - g).abs() <= 1), "{a:?} {b:?}");
        assert!(off.count() * 100 <= got.len(), "{a:?} {b:?}");
        let [expected, got] = [&simulated[1], &integer[1]].map(|t| t.to_f32().unwrap());
        assert_eq!(simulated[1].shape(), integer[1].shape());
        let near = |(e, g): (&f32, &f32)| (e - g).abs() <= 1e-4 * e.abs().max(1.0);
        assert!(expected.iter().zip(&got).all(near), "{a:?} {b:?}");
    }
}

#[test]
fn a_model_without_quantization_runs_as_float() {
    let build = || {
        let mut net = Net::new();
        let x = net.input("x", &[2, 3, 5, 5], 1.0);
        let y = net.node("Relu", &[x]);
        net.run(&[y])
    };
    let ([simulated, integer], _) = build();
    assert_eq!(simulated, integer);
}

/// Codes of a product with a constant, plus codes of a constant of `shape`, on either side.
fn product_with_codes(net: &mut Net, shape: &[usize], first: bool) -> ValueId {
    let x = net.input("x", &[2, 5, 24], 1.0);
    let x = net.coded(x, 0.02, 117);
    let weight: Vec<i8> = (0..24 * 40).map(|i| (i * 73 % 255 - 127) as i8).collect();
    let weight = net.constant(Tensor::from_slice(vec![24, 40], &weight).unwrap());
    let inputs = [weight, net.number(0.004), net.constant(Tensor::scalar(0i8))];
    let weight = net.node("DequantizeLinear", &inputs);
    let product = net.node("MatMul", &[x, weight]);
    let product = net.coded(product, 0.05, 131);
    let len: usize = shape.iter().product();
    let codes: Vec<u8> = (0..len).map(|i| (i * 91 % 256) as u8).collect();
    let codes = net.constant(Tensor::from_slice(shape.to_vec(), &codes).unwrap());
    let bias = net.dequantize(codes, 0.011, 99);
    let sum = net.node("Add", &if first { [bias, product] } else { [product, bias] });
    net.quantize(sum, 0.04, 120)
}

#[test]
fn a_row_of_codes_is_added_where_the_product_ends() {
    let rows: [(&[usize], bool); 5] =
        [(&[40], true), (&[1, 40], true), (&[1, 1, 40], true), (&[1], false), (&[5, 40], false)];
    for (shape, fused) in rows {
        for first in [false, true] {
            let mut net = Net::new();
            let codes = product_with_codes(&mut net, shape, first);
            let ([simulated, integer], plan) = net.run(&[codes]);
            assert_eq!(simulated, integer, "{shape:?}");
            let found = plan.iter().any(|line| line.kernel == "gemm_i8_add");
            assert_eq!(found, fused, "{shape:?}: {plan:?}");
        }
    }
}
