//! Directions, layouts and lengths of recurrent layers agree with each other.

use fewbit_core::{Attr, DType, Graph, Model, Node, Tensor, ValueType};
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
    let mut g = Graph::new("g");
    let mut ids = Vec::new();
    for (i, tensor) in inputs.iter().enumerate() {
        let add = |t: &Tensor| g.add_value(format!("i{i}"), ValueType::of(t)).unwrap();
        ids.push(tensor.as_ref().map(add));
    }
    ids.iter().flatten().for_each(|&id| g.add_input(id));
    let outputs: Vec<_> = (0..if op == "LSTM" { 3 } else { 2 })
        .map(|i| g.add_value(format!("o{i}"), ValueType::default()).unwrap())
        .collect();
    let mut node = Node::new(op, "layer", &[], &outputs);
    node.inputs = ids;
    node.set_attr("hidden_size", Attr::Int(HIDDEN as i64));
    attrs.iter().for_each(|(name, attr)| node.set_attr(name, attr.clone()));
    g.add_node(node);
    outputs.into_iter().for_each(|id| g.add_output(id));
    let model = Model { graph: g, opsets: vec![(String::new(), 22)], ..Default::default() };
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("i{i}")).collect();
    let given: Vec<(&str, Tensor)> = names
        .iter()
        .zip(inputs)
        .filter_map(|(name, tensor)| Some((name.as_str(), tensor.clone()?)))
        .collect();
    let session = Session::new(&model, &SessionOptions::new(Mode::Float).threads(1)).unwrap();
    session.run(&given).unwrap().into_iter().map(|(_, tensor)| tensor).collect()
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
