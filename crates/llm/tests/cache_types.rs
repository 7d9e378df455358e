//! Caches of keys and values in few bits: the same bits for any way to cut a text, and close to
//! what floats give.

mod random;

use fewbit_core::Tensor;
use fewbit_exec::{Mode, Session, SessionOptions};
use fewbit_llm::arch::{self, Network};
use fewbit_llm::graph::attention::HeadShape;
use fewbit_llm::graph::decoder::{Decoder, State};
use fewbit_llm::graph::{CacheType, CacheTypes, names};
use random::{RandomWeights, settings};

const TEXT: [i64; 11] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];
const CAPACITY: usize = 16;

fn decoder(name: &str, weights: &RandomWeights) -> Decoder {
    match (arch::find(name).unwrap().network)(&settings(name), weights).unwrap() {
        Network::Decoder(decoder) => decoder,
        Network::Encoder(_) => panic!("{name} is no decoder"),
    }
}

/// A Llama with heads of 64, so that each holds two blocks.
fn wide() -> (Decoder, RandomWeights) {
    let mut weights = RandomWeights::of("llama");
    let mut decoder = decoder("llama", &weights);
    decoder.heads = HeadShape { queries: 2, keys: 1, size: 64 };
    decoder.scale = 0.125;
    for layer in 0..2 {
        for (part, shape) in
            [("q", [128, 32]), ("k", [64, 32]), ("v", [64, 32]), ("output", [32, 128])]
        {
            weights.shapes.insert(format!("blk.{layer}.attn_{part}.weight"), shape.to_vec());
        }
    }
    (decoder, weights)
}

/// Logits of every position, in pieces.
fn logits(
    (decoder, weights): &(Decoder, RandomWeights),
    types: CacheTypes,
    mode: Mode,
    pieces: &[usize],
) -> Vec<f32> {
    let graph = decoder.graph("test", weights, State::Cache(types)).unwrap();
    let session = Session::new(&graph, &SessionOptions::new(mode).threads(2)).unwrap();
    let past: Vec<String> = session.inputs()[3..].iter().map(|port| port.name.clone()).collect();
    let mut cache: Vec<Tensor> = session.inputs()[3..]
        .iter()
        .map(|port| {
            let width = port.ty.shape.as_ref().unwrap()[2].known().unwrap();
            Tensor::zeros(port.ty.dtype.unwrap(), vec![1, CAPACITY, width]).unwrap()
        })
        .collect();
    let (mut logits, mut start) = (Vec::new(), 0);
    for &piece in pieces {
        let row = |values: Vec<i64>| Tensor::from_slice(vec![1, piece], &values).unwrap();
        let (from, to) = (start as i64, (start + piece) as i64);
        let mut inputs = vec![
            (names::TOKENS, row(TEXT[start..start + piece].to_vec())),
            (names::POSITIONS, row((from..to).collect())),
            (names::ROWS, Tensor::vector(&(0..piece as i64).collect::<Vec<_>>())),
        ];
        inputs.extend(past.iter().map(String::as_str).zip(std::mem::take(&mut cache)));
        let mut outputs = session.run_owned(inputs).unwrap().into_iter();
        logits.extend(outputs.next().unwrap().1.to_f32().unwrap());
        cache = outputs.map(|(_, tensor)| tensor).collect();
        start += piece;
    }
    logits
}

/// Relative, by the root of the mean square.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v).powi(2);
    let off: f64 = a.iter().zip(b).map(|(&x, &y)| square(x - y)).sum();
    (off / b.iter().map(|&v| square(v)).sum::<f64>()).sqrt()
}

#[test]
fn every_type_gives_the_same_bits_in_any_pieces_and_modes() {
    let model = wide();
    let floats = logits(&model, CacheTypes::default(), Mode::Float, &[11]);
    let mut last = 0.0;
    for (ty, most) in CacheType::ALL.into_iter().zip([1e-9, 1e-3, 0.02, 0.2]) {
        let types = CacheTypes::both(ty);
        let whole = logits(&model, types, Mode::Float, &[11]);
        for pieces in [&[1; 11][..], &[4, 1, 5, 1]] {
            for mode in [Mode::Float, Mode::Simulate, Mode::Integer] {
                assert_eq!(logits(&model, types, mode, pieces), whole, "{ty:?} {mode:?}");
            }
        }
        let off = distance(&whole, &floats);
        assert!(off >= last && off < most, "{ty:?}: {off}");
        last = off;
    }
}

#[test]
fn keys_and_values_have_types_of_their_own() {
    let model = wide();
    let mixed = CacheTypes { keys: CacheType::Q8_0, values: CacheType::F16 };
    let [found, both] =
        [mixed, CacheTypes::both(CacheType::Q8_0)].map(|t| logits(&model, t, Mode::Float, &[11]));
    assert_ne!(found, both);
    assert_eq!(found, logits(&model, mixed, Mode::Float, &[1; 11]));
}

#[test]
fn heads_that_are_no_whole_blocks_are_refused() {
    let weights = RandomWeights::of("llama");
    let decoder = decoder("llama", &weights);
    let graph = |ty| decoder.graph("test", &weights, State::Cache(CacheTypes::both(ty)));
    assert!(graph(CacheType::F16).is_ok());
    let error = graph(CacheType::Q8_0).unwrap_err();
    assert_eq!(error.stable_code(), "FB-4719");
    assert!(error.to_string().contains("blocks of 32, heads have 8"), "{error}");
}
