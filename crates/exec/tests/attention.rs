//! `Attention` in blocks of queries, where what a row computes depends on the keys that it sees
//! alone, and over caches that are stored in few bits.

use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_core::{Attr, DType, Dim, Graph, Model, Node, Tensor, ValueId, ValueType};
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

/// What a query sees: all keys up to its own, or the last few of them.
#[derive(Clone, Copy, Default)]
struct Sight {
    /// Said by a mask, not by attributes.
    mask: bool,
    /// Keys before the query's own.
    window: Option<usize>,
    /// Keys and values of each head lie apart, in one piece.
    apart: bool,
}

/// Output rows of the queries `of`, with keys and values of `rows` tokens.
fn attend(of: std::ops::Range<usize>, rows: usize, mask: bool) -> Vec<f32> {
    attend_by(of, rows, Sight { mask, ..Default::default() })
}

/// The same in another way.
fn attend_by(of: std::ops::Range<usize>, rows: usize, sight: Sight) -> Vec<f32> {
    let Sight { mask, window, apart } = sight;
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
    let left = window.filter(|_| !mask).map_or(-1, |window| window as i64);
    let node = Node::new("Attention", "attention", &inputs, &[y])
        .with("left_window_size", Attr::Int(left))
        .with("q_num_heads", Attr::Int(HEADS[0]))
        .with("kv_num_heads", Attr::Int(HEADS[1]))
        .with("is_causal", Attr::Int(i64::from(!mask)));
    graph.add_node(node);
    graph.add_output(y);
    let model = Model { graph, opsets: vec![(String::new(), 25)], ..Default::default() };

    let tensor = |from: std::ops::Range<usize>, heads: i64, seed| {
        let width = heads as usize * SIZE;
        let all = &numbers(from.end, heads, seed)[from.start * width..];
        Tensor::from_slice(vec![1, from.len(), width], all).unwrap()
    };
    let kept = |seed| {
        let tensor = tensor(0..rows, HEADS[1], seed);
        if !apart {
            return tensor;
        }
        let (all, heads) = (tensor.to_f32().unwrap(), HEADS[1] as usize);
        let row = |at: usize| at % rows * heads + at / rows;
        let turned: Vec<f32> =
            (0..heads * rows).flat_map(|at| all[row(at) * SIZE..][..SIZE].to_vec()).collect();
        Tensor::from_slice(vec![1, heads, rows, SIZE], &turned).unwrap()
    };
    let sees = |q: usize, k: usize| k <= q && window.is_none_or(|window| q - k <= window);
    let seen: Vec<bool> = of.clone().flat_map(|q| (0..rows).map(move |k| sees(q, k))).collect();
    let mut given = vec![("q", tensor(of.clone(), HEADS[0], 1)), ("k", kept(2)), ("v", kept(3))];
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

#[test]
fn windows_are_masks_that_say_the_same() {
    let width = HEADS[0] as usize * SIZE;
    for window in [0, 1, 40, 129, 1000] {
        let (by_size, by_mask) = ([false, true])
            .map(|mask| Sight { mask, window: Some(window), apart: false })
            .map(|sight| attend_by(0..300, 300, sight))
            .into();
        assert_eq!(by_size, by_mask, "{window}");
        for row in [0, 150, 299] {
            let sight = Sight { mask: true, window: Some(window), apart: false };
            let alone = attend_by(row..row + 1, 300, sight);
            assert_eq!(by_size[row * width..][..width], alone, "{window}, row {row} alone");
        }
    }
}

#[test]
fn heads_that_lie_apart_give_the_same_bits() {
    for of in [0..70, 69..70] {
        let apart = Sight { mask: true, apart: true, ..Default::default() };
        let (packed, apart) = (attend(of.clone(), 70, true), attend_by(of, 70, apart));
        assert_eq!(packed, apart);
    }
}

/// How a cache is stored, and what turns it into floats.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    Floats,
    Halves,
    Blocks(BlockType),
}

const FORMS: [Kept; 4] =
    [Kept::Floats, Kept::Halves, Kept::Blocks(BlockType::Q8_0), Kept::Blocks(BlockType::Q4_0)];

impl Kept {
    fn dtype(self) -> DType {
        match self {
            Kept::Floats => DType::F32,
            Kept::Halves => DType::F16,
            Kept::Blocks(_) => DType::U8,
        }
    }

    /// The value that attention reads.
    fn decoded(self, graph: &mut Graph, stored: ValueId, name: &str) -> ValueId {
        if self == Kept::Floats {
            return stored;
        }
        let value = graph.add_value(name, ValueType::default()).unwrap();
        graph.add_node(match self {
            Kept::Blocks(ty) => {
                let node = Node::new("DequantizeBlocks", name, &[stored], &[value]);
                let node = Node { domain: "ai.fewbit".to_string(), ..node };
                node.with("type", Attr::String(ty.name().into()))
            }
            _ => Node::new("Cast", name, &[stored], &[value])
                .with("to", Attr::Int(DType::F32.to_onnx().into())),
        });
        value
    }

    /// Numbers as they are stored, and what they then are.
    fn store(self, rows: usize, width: usize, values: &[f32]) -> (Tensor, Vec<f32>) {
        let plain = Tensor::from_slice(vec![1, rows, width], values).unwrap();
        let Kept::Blocks(ty) = self else {
            let stored = plain.cast(self.dtype()).unwrap();
            return (stored.clone(), stored.to_f32().unwrap());
        };
        let bytes: Vec<u8> = (0..ty.row_bytes(values.len()).unwrap())
            .map(|i| (i as u32).wrapping_mul(2_654_435_761) >> 24)
            // Scales stay finite.
            .map(|byte| byte as u8 & 0x3b)
            .collect();
        let mut numbers = vec![0.0; values.len()];
        dequantize(ty, &bytes, &mut numbers).unwrap();
        let shape = vec![1, rows, ty.row_bytes(width).unwrap()];
        (Tensor::from_slice(shape, &bytes).unwrap(), numbers)
    }
}

/// The kernel and the output of 2 groups of 2 heads, `queries` last tokens of `rows`.
fn attend_to(
    forms: [Kept; 2],
    size: usize,
    queries: usize,
    rows: usize,
) -> [(String, Vec<f32>); 2] {
    let run = |forms: [Kept; 2], stored: [Tensor; 2]| {
        let mut graph = Graph::new("attention");
        let input = |graph: &mut Graph, name: &str, dtype: DType, width: usize| {
            let dims = vec![Dim::Known(1), Dim::Unknown, Dim::Known(width)];
            let value = graph.add_value(name, ValueType::tensor(dtype, dims)).unwrap();
            graph.add_input(value);
            value
        };
        let q = input(&mut graph, "q", DType::F32, 4 * size);
        let [k, v] = [0, 1].map(|i| {
            let (name, width) = (["k", "v"][i], stored[i].shape()[2]);
            let value = input(&mut graph, name, forms[i].dtype(), width);
            forms[i].decoded(&mut graph, value, &format!("{name}.f32"))
        });
        let y = graph.add_value("y", ValueType::default()).unwrap();
        let node = Node::new("Attention", "attention", &[q, k, v], &[y])
            .with("q_num_heads", Attr::Int(4))
            .with("kv_num_heads", Attr::Int(2));
        graph.add_node(node);
        graph.add_output(y);
        let opsets = vec![(String::new(), 24), ("ai.fewbit".to_string(), 1)];
        let model = Model { graph, opsets, ..Default::default() };
        let session = Session::new(&model, &SessionOptions::new(Mode::Float).threads(2)).unwrap();
        let q = &numbers(queries.max(4) * 10, 6, 1)[..queries * 4 * size];
        let q = Tensor::from_slice(vec![1, queries, 4 * size], q).unwrap();
        let [k, v] = stored;
        let y = session.run(&[("q", q), ("k", k), ("v", v)]).unwrap()[0].1.to_f32().unwrap();
        (session.plan().last().unwrap().kernel.clone(), y)
    };
    let values: [Vec<f32>; 2] =
        [2, 3].map(|seed| numbers(rows * 10, 6, seed)[..rows * 2 * size].to_vec());
    let stored = [0, 1].map(|i| forms[i].store(rows, 2 * size, &values[i]));
    let floats = [0, 1].map(|i| Tensor::from_slice(vec![1, rows, 2 * size], &stored[i].1).unwrap());
    [run(forms, stored.map(|(tensor, _)| tensor)), run([Kept::Floats; 2], floats)]
}

#[test]
fn a_stored_cache_is_read_where_it_lies_and_gives_the_bits_of_its_numbers() {
    for keys in FORMS {
        for values in FORMS {
            // Blocks that two heads share are decoded as a whole.
            for (size, queries, rows) in [(32, 1, 100), (64, 5, 70), (64, 40, 40), (16, 1, 33)] {
                let [(kernel, found), (_, expected)] =
                    attend_to([keys, values], size, queries, rows);
                let stored = [keys, values] != [Kept::Floats; 2];
                assert_eq!(kernel.starts_with("attention_"), stored, "{kernel}");
                assert!(expected.iter().all(|y| y.is_finite()));
                assert_eq!(found, expected, "{kernel} of {size}");
            }
        }
    }
}
