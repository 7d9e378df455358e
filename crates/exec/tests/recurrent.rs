//! Directions, layouts and lengths of recurrent layers agree with each other.

use fewbit_core::{Attr, DType, Graph, Model, Node, Result, Tensor, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};

const STEPS: usize = 4;
const BATCH: usize = 3;
const INPUT: usize = 2;
const HIDDEN: usize = 5;
const KINDS: [(&str, usize); 3] = [("RNN", 1), ("GRU", 3), ("LSTM", 4)];

fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let len: usize = shape.iter().product();
    let at = |i: usize| ((i + 31 * seed) * 7919 % 200) as f32 / 100.0 - 1.0;
    let values: Vec<f32> = (0..len).map(at).collect();
    Tensor::from_slice(shape.to_vec(), &values).unwrap()
}

/// Joins or picks along the first axis.
fn rows(tensors: &[&Tensor], order: &[usize]) -> Tensor {
    let mut shape = tensors[0].shape().to_vec();
    let row: usize = shape[1..].iter().product();
    let all: Vec<f32> = tensors.iter().flat_map(|t| t.to_f32().unwrap()).collect();
    let picked: Vec<f32> = order.iter().flat_map(|&i| all[i * row..][..row].to_vec()).collect();
    shape[0] = order.len();
    Tensor::from_slice(shape, &picked).unwrap()
}

/// Runs a layer; inputs are X, W, R, B, sequence_lens.
fn run(op: &str, attrs: &[(&str, Attr)], inputs: &[Option<Tensor>]) -> Vec<Tensor> {
    let options = SessionOptions::new(Mode::Float).threads(1);
    run_with(op, attrs, inputs, 0, &options).unwrap()
}

/// The same with the `constants` inputs behind X as constants, for any options.
fn run_with(
    op: &str,
    attrs: &[(&str, Attr)],
    inputs: &[Option<Tensor>],
    constants: usize,
    options: &SessionOptions,
) -> Result<Vec<Tensor>> {
    let mut g = Graph::new("g");
    let mut ids = Vec::new();
    for (i, tensor) in inputs.iter().enumerate() {
        let add = |t: &Tensor| match (1..=constants).contains(&i) {
            true => g.add_constant(format!("i{i}"), t.clone()).unwrap(),
            false => g.add_value(format!("i{i}"), ValueType::of(t)).unwrap(),
        };
        ids.push(tensor.as_ref().map(add));
    }
    let computed = |i: usize| i == 0 || i > constants;
    ids.iter().enumerate().filter(|(i, _)| computed(*i)).for_each(|(_, id)| {
        id.iter().for_each(|&id| g.add_input(id));
    });
    let outputs: Vec<_> = (0..if op.ends_with("LSTM") { 3 } else { 2 })
        .map(|i| g.add_value(format!("o{i}"), ValueType::default()).unwrap())
        .collect();
    let mut node = Node::new(op, "layer", &[], &outputs);
    node.inputs = ids;
    if op == "DynamicQuantizeLSTM" {
        node.domain = "com.microsoft".into();
    }
    node.set_attr("hidden_size", Attr::Int(HIDDEN as i64));
    attrs.iter().for_each(|(name, attr)| node.set_attr(name, attr.clone()));
    g.add_node(node);
    outputs.into_iter().for_each(|id| g.add_output(id));
    let opsets = vec![(String::new(), 22), ("com.microsoft".into(), 1)];
    let model = Model { graph: g, opsets, ..Default::default() };
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("i{i}")).collect();
    let given: Vec<(&str, Tensor)> = names
        .iter()
        .zip(inputs)
        .enumerate()
        .filter(|(i, _)| computed(*i))
        .filter_map(|(_, (name, tensor))| Some((name.as_str(), tensor.clone()?)))
        .collect();
    let session = Session::new(&model, options)?;
    Ok(session.run(&given)?.into_iter().map(|(_, tensor)| tensor).collect())
}

fn weights(gates: usize, seed: usize) -> [Tensor; 3] {
    let rows = gates * HIDDEN;
    [
        numbers(&[1, rows, INPUT], seed),
        numbers(&[1, rows, HIDDEN], seed + 1),
        numbers(&[1, 2 * rows], seed + 2),
    ]
}

fn direction(name: &str) -> (&str, Attr) {
    ("direction", Attr::String(name.as_bytes().to_vec()))
}

fn layer(op: &str, attrs: &[(&str, Attr)], x: &Tensor, w: &[Tensor; 3]) -> Vec<Tensor> {
    let [w, r, b] = w.clone().map(Some);
    run(op, attrs, &[Some(x.clone()), w, r, b])
}

#[test]
fn reverse_is_forward_on_reversed_steps() {
    let x = numbers(&[STEPS, BATCH, INPUT], 1);
    let back = [3, 2, 1, 0];
    for (op, gates) in KINDS {
        let w = weights(gates, 5);
        let reverse = layer(op, &[direction("reverse")], &x, &w);
        let forward = layer(op, &[], &rows(&[&x], &back), &w);
        assert_eq!(reverse[0], rows(&[&forward[0]], &back), "{op}");
        assert_eq!(reverse[1..], forward[1..], "{op}");
    }
}

#[test]
fn bidirectional_is_both_directions() {
    let x = numbers(&[STEPS, BATCH, INPUT], 2);
    for (op, gates) in KINDS {
        let (w, v) = (weights(gates, 5), weights(gates, 9));
        let both: Vec<Tensor> = w.iter().zip(&v).map(|(a, b)| rows(&[a, b], &[0, 1])).collect();
        let found = layer(op, &[direction("bidirectional")], &x, &both.try_into().unwrap());
        let forward = layer(op, &[], &x, &w);
        let reverse = layer(op, &[direction("reverse")], &x, &v);
        for (state, (a, b)) in found[1..].iter().zip(forward[1..].iter().zip(&reverse[1..])) {
            assert_eq!(*state, rows(&[a, b], &[0, 1]), "{op}");
        }
        let y = found[0].reshape(vec![STEPS * 2, BATCH, HIDDEN]).unwrap();
        let flat = |t: &Tensor| t.reshape(vec![STEPS, BATCH, HIDDEN]).unwrap();
        assert_eq!(rows(&[&y], &[0, 2, 4, 6]), flat(&forward[0]), "{op}");
        assert_eq!(rows(&[&y], &[1, 3, 5, 7]), flat(&reverse[0]), "{op}");
    }
}

#[test]
fn a_short_sequence_ends_where_it_ends() {
    let x = numbers(&[STEPS, BATCH, INPUT], 3);
    for (op, gates) in KINDS {
        let w = weights(gates, 7);
        for name in ["forward", "reverse"] {
            let [a, b, c] = w.clone().map(Some);
            let lengths = Some(Tensor::vector(&[2i32, 4, 2]));
            let cut = run(op, &[direction(name)], &[Some(x.clone()), a, b, c, lengths]);
            let whole = layer(op, &[direction(name)], &rows(&[&x], &[0, 1]), &w);
            let sequence = |t: &Tensor, step: usize, b: usize| {
                t.to_f32().unwrap()[(step * BATCH + b) * HIDDEN..][..HIDDEN].to_vec()
            };
            for b in [0, 2] {
                assert_eq!(sequence(&cut[0], 1, b), sequence(&whole[0], 1, b), "{op} {name}");
                assert_eq!(sequence(&cut[0], 3, b), [0.0; HIDDEN], "{op} {name}");
                assert_eq!(sequence(&cut[1], 0, b), sequence(&whole[1], 0, b), "{op} {name}");
            }
        }
    }
}

#[test]
fn half_precision_is_computed_in_single() {
    let x = numbers(&[STEPS, BATCH, INPUT], 4);
    for (op, gates) in KINDS {
        let w = weights(gates, 3);
        let half = |t: &Tensor| t.cast(DType::F16).unwrap();
        let found = layer(op, &[], &half(&x), &w.each_ref().map(half));
        let widened = |t: &Tensor| half(t).cast(DType::F32).unwrap();
        let single = layer(op, &[], &widened(&x), &w.each_ref().map(widened));
        assert_eq!(found[0], half(&single[0]), "{op}");
    }
}

#[test]
fn prepared_layers_are_those_with_weights_as_inputs_in_all_modes_on_any_threads() {
    let x = numbers(&[STEPS, BATCH, INPUT], 4);
    for (op, gates) in KINDS {
        let [w, r, b] = weights(gates, 5);
        let (v, s, c) = {
            let [w, r, b] = weights(gates, 9);
            (w, r, b)
        };
        let two = [rows(&[&w, &v], &[0, 1]), rows(&[&r, &s], &[0, 1]), rows(&[&b, &c], &[0, 1])];
        for (name, [w, r, b]) in [("forward", [w, r, b]), ("bidirectional", two)] {
            for linear in [0, 1] {
                let attrs = [direction(name), ("linear_before_reset", Attr::Int(linear))];
                let lengths = Some(Tensor::vector(&[4i32, 2, 3]));
                let inputs =
                    [Some(x.clone()), Some(w.clone()), Some(r.clone()), Some(b.clone()), lengths];
                let plain = run(op, &attrs, &inputs);
                for mode in [Mode::Float, Mode::Simulate, Mode::Integer] {
                    for threads in [1, 2, 3] {
                        let options = SessionOptions::new(mode).threads(threads);
                        let found = run_with(op, &attrs, &inputs, 3, &options).unwrap();
                        assert_eq!(found, plain, "{op} {name} {mode:?} {threads}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_batch_may_come_first() {
    let x = numbers(&[STEPS, BATCH, INPUT], 4);
    let turned = |t: &Tensor, [a, b]: [usize; 2], rest: usize| {
        let values = t.to_f32().unwrap();
        let row = |i: usize| &values[(i % a * b + i / a) * rest..][..rest];
        (0..a * b).flat_map(row).copied().collect::<Vec<f32>>()
    };
    for (op, gates) in KINDS {
        let [w, r, b] = weights(gates, 5).map(Some);
        let lengths = Some(Tensor::vector(&[4i32, 2, 3]));
        let usual =
            run(op, &[], &[Some(x.clone()), w.clone(), r.clone(), b.clone(), lengths.clone()]);
        let first = turned(&x, [STEPS, BATCH], INPUT);
        let first = Tensor::from_slice(vec![BATCH, STEPS, INPUT], &first).unwrap();
        let attrs = [("layout", Attr::Int(1))];
        let found = run(op, &attrs, &[Some(first), w, r, b, lengths]);
        assert_eq!(found[0].shape(), [BATCH, STEPS, 1, HIDDEN], "{op}");
        assert_eq!(found[0].to_f32().unwrap(), turned(&usual[0], [STEPS, BATCH], HIDDEN), "{op}");
        assert_eq!(found[1].to_f32().unwrap(), usual[1].to_f32().unwrap(), "{op}");
    }
}

/// Codes by a fixed rule.
fn int8(shape: &[usize], seed: usize) -> Tensor {
    let len: usize = shape.iter().product();
    let values: Vec<i8> =
        (0..len).map(|i| ((i * 37 + seed * 11) % 255) as i16 - 127).map(|v| v as i8).collect();
    Tensor::from_slice(shape.to_vec(), &values).unwrap()
}

/// Inputs of a bidirectional `DynamicQuantizeLSTM`, with all that it may have.
fn quantized_inputs() -> Vec<Option<Tensor>> {
    let gates = 4 * HIDDEN;
    let scales: Vec<f32> = (0..2 * gates).map(|i| (i % 7 + 1) as f32 / 1000.0).collect();
    vec![
        Some(numbers(&[STEPS, BATCH, INPUT], 1)),
        Some(int8(&[2, INPUT, gates], 1)),
        Some(int8(&[2, HIDDEN, gates], 2)),
        Some(numbers(&[2, 2 * gates], 3)),
        Some(Tensor::vector(&[4i32, 2, 3])),
        Some(numbers(&[2, BATCH, HIDDEN], 4)),
        Some(numbers(&[2, BATCH, HIDDEN], 5)),
        Some(numbers(&[2, 3 * HIDDEN], 6)),
        Some(Tensor::from_slice(vec![2, gates], &scales).unwrap()),
        Some(Tensor::zeros(DType::I8, vec![2, gates]).unwrap()),
        Some(Tensor::vector(&[0.004f32, 0.006])),
        Some(Tensor::zeros(DType::I8, vec![2]).unwrap()),
    ]
}

/// What ONNX Runtime 1.32 gives for these inputs on one thread: the last states of the units and of
/// the cells.
const QUANTIZED: [[f32; 2 * BATCH * HIDDEN]; 2] = [
    [
        -0.0888681, 0.5734611, -0.1065204, -0.0375801, 0.156345, -0.0944735, 0.5906876, -0.1125152,
        0.141512, 0.1798229, -0.1302351, 0.7226033, -0.1050735, 0.1534108, 0.2207249, -0.0049013,
        0.2691851, -0.0321891, 0.654078, -0.1885011, -0.0171464, 0.2914132, -0.0503831, 0.6266745,
        -0.1635046, -0.0062595, 0.2884722, -0.0668763, 0.6482259, -0.1577186,
    ],
    [
        -0.3887709, 1.3965967, -0.2968488, -0.0723969, 0.3042298, -0.3949878, 1.1959798,
        -0.2933049, 0.2710929, 0.4147112, -0.3779237, 1.260823, -0.3381879, 0.3194395, 0.6410068,
        -0.0411401, 0.8103837, -0.2163427, 1.6263783, -0.4462713, -0.1448467, 0.6946115,
        -0.2345658, 1.2977877, -0.4126402, -0.0525593, 0.6034693, -0.232995, 1.6021013, -0.4534706,
    ],
];

#[test]
fn a_quantized_lstm_is_that_of_onnx_runtime() {
    let (inputs, attrs) =
        (quantized_inputs(), [direction("bidirectional"), ("clip", Attr::Float(2.0))]);
    let op = "DynamicQuantizeLSTM";
    let mut first: Option<Vec<Tensor>> = None;
    for mode in [Mode::Float, Mode::Simulate, Mode::Integer] {
        for (threads, constants) in [(1, 0), (1, 11), (2, 11)] {
            let options = SessionOptions::new(mode).threads(threads);
            let found = run_with(op, &attrs, &inputs, constants, &options).unwrap();
            for (found, expected) in found[1..].iter().zip(QUANTIZED) {
                assert_eq!(found.shape(), [2, BATCH, HIDDEN]);
                for (found, expected) in found.to_f32().unwrap().into_iter().zip(expected) {
                    assert!((found - expected).abs() < 2e-6, "{found} {expected}");
                }
            }
            assert_eq!(found, *first.get_or_insert_with(|| found.clone()), "{mode:?} {threads}");
        }
    }
}

#[test]
fn a_quantized_lstm_with_operands_that_do_not_fit_is_refused() {
    let u8s = |shape: &[usize]| Some(Tensor::zeros(DType::U8, shape.to_vec()).unwrap());
    let cases: [(usize, Option<Tensor>, &str); 5] = [
        (1, Some(numbers(&[2, INPUT, 4 * HIDDEN], 1)), "u8 or i8 is needed"),
        (1, Some(int8(&[2, 4 * HIDDEN, INPUT], 1)), "do not fit together"),
        (8, None, "W has no scale"),
        (8, Some(numbers(&[3], 1)), "[2] or [2, 20] is needed"),
        (11, u8s(&[2]), "zero points of type u8"),
    ];
    for (index, input, message) in cases {
        for constants in [0, 11] {
            let mut inputs = quantized_inputs();
            inputs[index] = input.clone();
            let options = SessionOptions::new(Mode::Integer).threads(1);
            let attrs = [direction("bidirectional")];
            let found = run_with("DynamicQuantizeLSTM", &attrs, &inputs, constants, &options);
            let error = found.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
