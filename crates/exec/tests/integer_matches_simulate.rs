//! The central promise: `Integer` computes what `Simulate` computes, to the bit wherever the sums
//! behind it are exact.

mod nets;

use fewbit_core::{Attr, DType, Graph, Model, Node, Patch, Tensor, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};
use fewbit_kernels::Isa;
use nets::{Ranges, Rng, Style, network};

/// The quantized network of a seed, with ranges measured on its float form, and an input.
fn quantized(style: Style, seed: u64) -> (Model, Tensor) {
    let (float, names, shape) = network(style, seed, None);
    let x = Rng::new(seed ^ 77).tensor(&shape, 1.0);
    let mut options = SessionOptions::new(Mode::Float).threads(1);
    options.taps.extend(names);
    let session = Session::new(&float, &options).unwrap();
    let mut ranges = Ranges::new();
    session
        .run_tapped(&[("x", x.clone())], &mut |event| {
            let values = event.tensor.to_f32()?;
            let lo = values.iter().copied().fold(f32::INFINITY, f32::min);
            let hi = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            ranges.insert(event.name.to_string(), (lo, hi));
            Ok(())
        })
        .unwrap();
    (network(style, seed, Some(&ranges)).0, x)
}

fn run(model: &Model, options: &SessionOptions, x: &Tensor) -> Vec<(String, Tensor)> {
    Session::new(model, options).unwrap().run(&[("x", x.clone())]).unwrap()
}

#[test]
fn random_networks_agree() {
    let (mut values, mut integer) = (0usize, 0usize);
    for seed in 0..150 {
        let (model, x) = quantized(Style::Small, seed);
        let simulated = run(&model, &SessionOptions::new(Mode::Simulate).threads(1), &x);
        let session = Session::new(&model, &SessionOptions::new(Mode::Integer).threads(1)).unwrap();
        integer += session.plan().iter().filter(|line| line.integer).count();
        let found = session.run(&[("x", x.clone())]).unwrap();
        for ((name, expected), (_, got)) in simulated.iter().zip(&found) {
            assert_eq!(expected, got, "seed {seed}, {name}");
            values += expected.len();
        }
    }
    assert!(integer > 1000, "only {integer} nodes were integer");
    assert!(values > 400_000, "only {values} values");
}

/// A quantized product of `k` terms whose weights are up to `weight` and biases up to `bias`.
fn product(k: usize, weight: i32, bias: i32) -> Model {
    const N: usize = 5;
    let mut rng = Rng::new(5);
    let mut graph = Graph::new("product");
    let mut up_to = |most: i32| (rng.normal().clamp(-1.0, 1.0) * most as f32) as i32;
    let mut codes: Vec<i8> = (0..k * N).map(|_| up_to(weight) as i8).collect();
    codes.iter_mut().step_by(N).for_each(|code| *code = weight as i8);
    let biases: Vec<i32> = (0..N).map(|_| up_to(bias)).collect();
    let mut add = |name: &str, tensor: Tensor| graph.add_constant(name, tensor).unwrap();
    // A standard deviation of the sums is some codes.
    let spread = (60.0 * weight as f32 * (k as f32).sqrt()).max(bias as f32);
    let [unit, step] = [0.01f32, 0.01 * 0.01 * spread / 60.0]
        .map(|scale| add(&scale.to_string(), Tensor::scalar(scale)));
    let zero = add("zero", Tensor::scalar(17u8));
    let codes = add("codes", Tensor::from_slice(vec![k, N], &codes).unwrap());
    let biases = add("biases", Tensor::vector(&biases));
    let square = add("square", Tensor::scalar(0.01f32 * 0.01));
    let names = ["x", "q", "a", "w", "b", "y", "out"];
    let [x, q, a, w, b, y, out] =
        names.map(|name| graph.add_value(name, ValueType::default()).unwrap());
    graph.set_type(x, ValueType::fixed(DType::F32, &[3, k]));
    graph.add_input(x);
    graph.add_node(Node::new("QuantizeLinear", "", &[x, unit, zero], &[q]));
    graph.add_node(Node::new("DequantizeLinear", "", &[q, unit, zero], &[a]));
    graph.add_node(Node::new("DequantizeLinear", "", &[codes, unit], &[w]));
    graph.add_node(Node::new("DequantizeLinear", "", &[biases, square], &[b]));
    graph.add_node(Node::new("Gemm", "product", &[a, w, b], &[y]));
    graph.add_node(Node::new("QuantizeLinear", "", &[y, step, zero], &[out]));
    graph.add_output(out);
    Model { graph, opsets: vec![(String::new(), 17)], ..Default::default() }
}

#[test]
fn sums_past_the_integers_of_f32_agree() {
    // All of one, weights in two parts, biases in two parts, both.
    for (k, weight, bias) in
        [(64, 90, 1 << 20), (3000, 127, 9), (9, 3, 1 << 30), (900, 127, 1 << 27)]
    {
        let model = product(k, weight, bias);
        let x = Rng::new(9).tensor(&[3, k], 1.0);
        let [simulated, found] = [Mode::Simulate, Mode::Integer]
            .map(|mode| run(&model, &SessionOptions::new(mode).threads(1), &x));
        assert_eq!(simulated, found, "{k} terms, weights up to {weight}, biases up to {bias}");
        let codes = found[0].1.to_i64().unwrap();
        assert!(codes.iter().any(|&code| code > 0 && code < 255), "{codes:?}");
    }
}

/// Exporters put an `Identity` before a bias that several nodes share.
#[test]
fn a_bias_behind_an_identity_is_the_bias() {
    let plain = product(64, 90, 9);
    let mut named = plain.clone();
    let (id, bias) = {
        let (id, node) = named.graph.nodes().find(|(_, node)| node.op == "Gemm").unwrap();
        (id, node.input(2).unwrap())
    };
    let mut patch = Patch::new(&named.graph);
    let [first, second] = ["first", "second"].map(|n| patch.add_value(n, ValueType::default()));
    patch.add_node(Node::new("Identity", "", &[bias], &[first]));
    patch.add_node(Node::new("Identity", "", &[first], &[second]));
    patch.set_input(id, 2, Some(second));
    patch.apply(&mut named.graph).unwrap();
    let options = SessionOptions::new(Mode::Integer).threads(1);
    let x = Rng::new(9).tensor(&[3, 64], 1.0);
    assert_eq!(run(&named, &options, &x), run(&plain, &options, &x));
    let session = Session::new(&named, &options).unwrap();
    assert!(session.plan().iter().any(|line| line.op == "Gemm" && line.integer));
}

/// A quantized convolution to 80 channels, and a depthwise one that alone reads it.
fn separable() -> Model {
    const C: usize = 80;
    let mut rng = Rng::new(6);
    let mut graph = Graph::new("separable");
    let mut codes = |shape: &[usize]| {
        let len = shape.iter().product();
        let codes: Vec<i8> = (0..len).map(|_| (rng.normal() * 40.0) as i8).collect();
        Tensor::from_slice(shape.to_vec(), &codes).unwrap()
    };
    let weights = [codes(&[C, 8, 1, 1]), codes(&[C, 1, 3, 3])];
    let mut add = |name: &str, tensor: Tensor| graph.add_constant(name, tensor).unwrap();
    let [unit, step] = [0.01f32, 0.03].map(|scale| add(&scale.to_string(), Tensor::scalar(scale)));
    let zero = add("zero", Tensor::scalar(110u8));
    let [first, second] = weights.map(|codes| add(&codes.shape()[1].to_string(), codes));
    let names = ["x", "q", "a", "v", "y", "middle", "b", "w", "z", "out"];
    let [x, q, a, v, y, middle, b, w, z, out] =
        names.map(|name| graph.add_value(name, ValueType::default()).unwrap());
    graph.set_type(x, ValueType::fixed(DType::F32, &[1, 8, 9, 7]));
    graph.add_input(x);
    graph.add_node(Node::new("QuantizeLinear", "", &[x, unit, zero], &[q]));
    graph.add_node(Node::new("DequantizeLinear", "", &[q, unit, zero], &[a]));
    graph.add_node(Node::new("DequantizeLinear", "", &[first, unit], &[v]));
    graph.add_node(Node::new("Conv", "pointwise", &[a, v], &[y]));
    graph.add_node(Node::new("QuantizeLinear", "", &[y, step, zero], &[middle]));
    graph.add_node(Node::new("DequantizeLinear", "", &[middle, step, zero], &[b]));
    graph.add_node(Node::new("DequantizeLinear", "", &[second, unit], &[w]));
    let depthwise = Node::new("Conv", "depthwise", &[b, w], &[z]);
    graph.add_node(
        depthwise.with("group", Attr::Int(C as i64)).with("pads", Attr::Ints(vec![1; 4])),
    );
    graph.add_node(Node::new("QuantizeLinear", "", &[z, step, zero], &[out]));
    graph.add_output(out);
    Model { graph, opsets: vec![(String::new(), 17)], ..Default::default() }
}

/// What lies between the two may lie in an order of its own, but not where somebody looks at it.
#[test]
fn values_between_convolutions_are_watched_in_their_own_order() {
    let model = separable();
    let x = Rng::new(9).tensor(&[1, 8, 9, 7], 1.0);
    let watched = |mode: Mode| {
        let mut options = SessionOptions::new(mode).threads(1);
        options.taps.insert("middle".to_string());
        let (session, mut middle) = (Session::new(&model, &options).unwrap(), None);
        let out = session.run_tapped(&[("x", x.clone())], &mut |event| {
            middle = Some(event.to_onnx_layout()?);
            Ok(())
        });
        (out.unwrap(), middle.unwrap())
    };
    let (simulated, expected) = watched(Mode::Simulate);
    let (found, middle) = watched(Mode::Integer);
    assert_eq!((&found, &middle), (&simulated, &expected));
    let unwatched = run(&model, &SessionOptions::new(Mode::Integer).threads(1), &x);
    assert_eq!(unwatched, simulated);
    let codes = middle.to_i64().unwrap();
    assert!(codes.iter().any(|&code| code != codes[0]), "{codes:?}");
}

#[test]
fn results_do_not_depend_on_threads_or_instruction_set() {
    for seed in 0..20 {
        let (model, x) = quantized(Style::Small, seed);
        for mode in [Mode::Integer, Mode::Simulate, Mode::Float] {
            let with = |threads, isa: Isa| {
                let isa = Some(isa.level());
                run(&model, &SessionOptions { threads, isa, ..SessionOptions::new(mode) }, &x)
            };
            let expected = with(1, Isa::scalar());
            for isa in Isa::available() {
                for threads in 1..=3 {
                    assert_eq!(
                        with(threads, isa),
                        expected,
                        "seed {seed}, {mode:?}, {isa}, {threads}"
                    );
                }
            }
        }
    }
}

/// Convolutions that run as one, in the buffers of the run before, on several threads.
#[test]
fn mobile_networks_agree() {
    for seed in 0..40 {
        let (model, x) = quantized(Style::Mobile, seed);
        let simulated = run(&model, &SessionOptions::new(Mode::Simulate).threads(1), &x);
        for (isa, threads) in Isa::available().into_iter().zip([2, 1, 3, 2].into_iter().cycle()) {
            let options = SessionOptions::new(Mode::Integer).threads(threads);
            let options = SessionOptions { isa: Some(isa.level()), ..options };
            let session = Session::new(&model, &options).unwrap();
            for turn in ["first", "second"] {
                let found = session.run(&[("x", x.clone())]).unwrap();
                assert_eq!(found, simulated, "seed {seed}, {isa}, {threads} threads, {turn} run");
            }
        }
    }
}
