//! `Attention` in blocks of queries: what a row computes depends on the keys that it sees alone.

use fewbit_core::{Attr, DType, Graph, Model, Node, Tensor, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};

const HEADS: [i64; 2] = [6, 2];
const SIZE: usize = 20;

fn numbers(rows: usize, heads: i64, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..rows * heads as usize * SIZE).map(|_| next()).collect()
}

/// Output rows of the queries `of`, with keys and values of `rows` tokens.
fn attend(of: std::ops::Range<usize>, rows: usize, mask: bool) -> Vec<f32> {
    let mut graph = Graph::new("attention");
    let mut input = |name: &str, dtype| {
        let value =
            graph.add_value(name, ValueType { dtype: Some(dtype), ..Default::default() }).unwrap();
        graph.add_input(value);
        value
    };
    let mut inputs = ["q", "k", "v"].map(|name| input(name, DType::F32)).to_vec();
    if mask {
        inputs.push(input("mask", DType::Bool));
    }
    let y = graph.add_value("y", ValueType::default()).unwrap();
    let node = Node::new("Attention", "attention", &inputs, &[y])
        .with("q_num_heads", Attr::Int(HEADS[0]))
        .with("kv_num_heads", Attr::Int(HEADS[1]))
        .with("is_causal", Attr::Int(i64::from(!mask)));
    graph.add_node(node);
    graph.add_output(y);
    let model = Model { graph, opsets: vec![(String::new(), 24)], ..Default::default() };

    let tensor = |from: std::ops::Range<usize>, heads: i64, seed| {
        let width = heads as usize * SIZE;
        let all = &numbers(from.end, heads, seed)[from.start * width..];
        Tensor::from_slice(vec![1, from.len(), width], all).unwrap()
    };
    let seen: Vec<bool> = of.clone().flat_map(|q| (0..rows).map(move |k| k <= q)).collect();
    let mut given = vec![
        ("q", tensor(of.clone(), HEADS[0], 1)),
        ("k", tensor(0..rows, HEADS[1], 2)),
        ("v", tensor(0..rows, HEADS[1], 3)),
    ];
    if mask {
        given.push(("mask", Tensor::from_bools(vec![of.len(), rows], &seen).unwrap()));
    }
    let session = Session::new(&model, &SessionOptions::new(Mode::Float).threads(2)).unwrap();
    session.run(&given).unwrap()[0].1.to_f32().unwrap()
}

#[test]
fn blocks_of_queries_do_not_change_a_bit() {
    let width = HEADS[0] as usize * SIZE;
    let whole = attend(0..300, 300, false);
    assert!(whole.iter().all(|y| y.is_finite()));
    assert_eq!(whole, attend(0..300, 300, true), "a mask that says the same");
    assert_eq!(whole[..150 * width], attend(0..150, 150, false), "fewer rows");
    for row in [0, 127, 128, 299] {
        let alone = attend(row..row + 1, 300, true);
        assert_eq!(whole[row * width..][..width], alone, "row {row} alone");
    }
}
