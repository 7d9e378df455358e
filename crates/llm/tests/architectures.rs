//! Every architecture, small and random: with a cache, in pieces of any size, it computes what it
//! computes for the whole text at once, bit for bit.

mod random;

use fewbit_core::{Model, Tensor};
use fewbit_exec::{Mode, Session, SessionOptions};
use fewbit_llm::arch::{self, Network};
use fewbit_llm::graph::decoder::{Decoder, State};
use fewbit_llm::graph::{CacheTypes, names};
use random::{Blocks, RandomWeights, settings};

const TEXT: [i64; 11] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];

fn session(model: &Model) -> Session {
    session_in(model, Mode::Float)
}

fn session_in(model: &Model, mode: Mode) -> Session {
    Session::new(model, &SessionOptions::new(mode).threads(1)).unwrap()
}

fn row(values: impl IntoIterator<Item = i64>) -> Tensor {
    let values: Vec<i64> = values.into_iter().collect();
    Tensor::from_slice(vec![1, values.len()], &values).unwrap()
}

/// Logits of every position, the whole text at once.
fn at_once(decoder: &Decoder, weights: &RandomWeights) -> Vec<f32> {
    at_once_in(decoder, weights, Mode::Float)
}

fn at_once_in(decoder: &Decoder, weights: &RandomWeights, mode: Mode) -> Vec<f32> {
    let session = session_in(&decoder.graph("test", weights, State::None).unwrap(), mode);
    let places: Vec<i64> = (0..TEXT.len() as i64).collect();
    let inputs = vec![
        (names::TOKENS, row(TEXT)),
        (names::POSITIONS, row(places.clone())),
        (names::ROWS, Tensor::vector(&places)),
    ];
    session.run_owned(inputs).unwrap()[0].1.to_f32().unwrap()
}

/// The same in pieces, with a cache of `capacity` tokens.
fn in_pieces(
    decoder: &Decoder,
    weights: &RandomWeights,
    pieces: &[usize],
    capacity: usize,
) -> Vec<f32> {
    let session =
        session(&decoder.graph("test", weights, State::Cache(CacheTypes::default())).unwrap());
    let empty = || {
        Tensor::from_slice(
            vec![1, capacity, decoder.cache_width()],
            &vec![0f32; capacity * decoder.cache_width()],
        )
        .unwrap()
    };
    let mut cache: Vec<Tensor> = (0..2 * decoder.layers.len()).map(|_| empty()).collect();
    let past: Vec<String> = (0..decoder.layers.len())
        .flat_map(|layer| ["key", "value"].map(|what| names::past(layer, what)))
        .collect();
    let mut logits = Vec::new();
    let mut start = 0;
    for &piece in pieces {
        let text = &TEXT[start..start + piece];
        let places: Vec<i64> = (0..piece as i64).collect();
        let mut inputs = vec![
            (names::TOKENS, row(text.iter().copied())),
            (names::POSITIONS, row(places.iter().map(|p| p + start as i64))),
            (names::ROWS, Tensor::vector(&places)),
        ];
        inputs.extend(past.iter().map(String::as_str).zip(std::mem::take(&mut cache)));
        let mut outputs = session.run_owned(inputs).unwrap().into_iter();
        logits.extend(outputs.next().unwrap().1.to_f32().unwrap());
        cache = outputs.map(|(_, tensor)| tensor).collect();
        start += piece;
    }
    logits
}

fn decoder(name: &str, weights: &RandomWeights) -> Decoder {
    match (arch::find(name).unwrap().network)(&settings(name), weights).unwrap() {
        Network::Decoder(decoder) => decoder,
        Network::Encoder(_) => panic!("{name} is no decoder"),
    }
}

#[test]
fn a_cache_changes_no_bit() {
    for architecture in arch::ALL.iter().filter(|a| a.names != ["bert"]) {
        let name = architecture.names[0];
        let weights = RandomWeights::of(name);
        let decoder = decoder(name, &weights);
        let expected = at_once(&decoder, &weights);
        assert!(expected.iter().all(|v| v.is_finite()), "{name}");
        for (pieces, capacity) in [(&[11][..], 11), (&[1; 11], 16), (&[4, 1, 5, 1], 64)] {
            let found = in_pieces(&decoder, &weights, pieces, capacity);
            assert_eq!(found, expected, "{name} in {pieces:?}");
        }
    }
}

/// The states behind the last layer, all layers in one graph.
fn last_states(decoder: &Decoder, weights: &RandomWeights) -> Vec<f32> {
    let mut options = SessionOptions::new(Mode::Float).threads(1);
    let last = format!("blk.{}.ffn_residual", decoder.layers.len() - 1);
    options.taps.insert(last.clone());
    let session =
        Session::new(&decoder.body("test", weights, State::None).unwrap(), &options).unwrap();
    let places: Vec<i64> = (0..TEXT.len() as i64).collect();
    let inputs = [
        (names::TOKENS, row(TEXT)),
        (names::POSITIONS, row(places.clone())),
        (names::ROWS, Tensor::vector(&places)),
    ];
    let mut states = Vec::new();
    let mut tap = |event: &fewbit_exec::TapEvent| {
        states = event.tensor.to_f32()?;
        Ok(())
    };
    session.run_tapped(&inputs, &mut tap).unwrap();
    states
}

#[test]
fn layers_one_by_one_change_no_bit() {
    for architecture in arch::ALL.iter().filter(|a| a.names != ["bert"]) {
        let name = architecture.names[0];
        let weights = RandomWeights::of(name);
        let decoder = decoder(name, &weights);
        let places = || (names::POSITIONS, row(0..TEXT.len() as i64));
        let mut inputs = vec![(names::TOKENS, row(TEXT))];
        inputs.extend(decoder.learned_positions.then(places));
        let embedding = session(&decoder.embedding("test", &weights).unwrap());
        let mut states = embedding.run_owned(inputs).unwrap().remove(0).1;
        for layer in 0..decoder.layers.len() {
            let graph = |until| decoder.layer_graph("test", &weights, layer, until).unwrap();
            let inputs = || vec![(names::HIDDEN, states.clone()), places()];
            let (whole, products) = graph(None);
            assert!(products.len() >= 4, "{name}: {products:?}");
            for (matrix, _) in &products {
                let part = session(&graph(Some(matrix)).0);
                let width = *part.run_owned(inputs()).unwrap()[0].1.shape().last().unwrap();
                let weight = fewbit_llm::Weights::get(&weights, matrix).unwrap().unwrap();
                let columns = weight.shape[usize::from(!weight.transposed)];
                assert_eq!(width, columns, "{name} {matrix}");
            }
            states = session(&whole).run_owned(inputs()).unwrap().remove(0).1;
        }
        assert_eq!(states.to_f32().unwrap(), last_states(&decoder, &weights), "{name}");
    }
}

#[test]
fn blocks_compute_what_their_numbers_say() {
    for name in ["llama", "gemma2", "phi3"] {
        let with = |blocks| {
            let mut weights = RandomWeights::of(name);
            weights.blocks = Some(blocks);
            weights
        };
        let (stored, decoded) = (with(Blocks::Stored), with(Blocks::Decoded));
        let decoder = decoder(name, &stored);
        let expected = at_once(&decoder, &decoded);
        assert_eq!(at_once(&decoder, &stored), expected, "{name}");
        // Simulate and Integer quantize what goes into the products too.
        let simulated = at_once_in(&decoder, &stored, Mode::Simulate);
        assert_ne!(simulated, expected, "{name}");
        let off = distance(&simulated, &expected);
        assert!(off < 0.05, "{name}: {off}");
        // Sums differ in their last bit; now and then that moves a code of the next product.
        let integer = at_once_in(&decoder, &stored, Mode::Integer);
        let off = distance(&integer, &simulated);
        assert!(off < 0.01, "{name}: {off}");
    }
}

/// Relative, by the root of the mean square.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v).powi(2);
    let off: f64 = a.iter().zip(b).map(|(&x, &y)| square(x - y)).sum();
    (off / b.iter().map(|&v| square(v)).sum::<f64>()).sqrt()
}

#[test]
fn windows_and_layers_without_rotation_are_as_the_settings_say() {
    let kinds = |name: &str| {
        let decoder = decoder(name, &RandomWeights::of(name));
        let of = |layer: &fewbit_llm::graph::decoder::Layer| (layer.rotary, layer.window);
        decoder.layers.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(kinds("mistral"), [(Some(0), Some(4)); 2]);
    assert_eq!(kinds("gemma2"), [(Some(0), Some(4)), (Some(0), None)]);
    assert_eq!(kinds("gemma3_text"), [(Some(1), Some(4)), (Some(0), None)]);
    assert_eq!(kinds("smollm3"), [(Some(0), None), (None, None)]);
    assert_eq!(kinds("gpt2"), [(None, None); 2]);
}

#[test]
fn a_window_hides_what_is_far() {
    let weights = RandomWeights::of("mistral");
    let windowed = decoder("mistral", &weights);
    let mut open = windowed.clone();
    open.layers.iter_mut().for_each(|layer| layer.window = None);
    let (a, b) = (at_once(&windowed, &weights), at_once(&open, &weights));
    let vocabulary = windowed.vocabulary;
    assert_eq!(a[..4 * vocabulary], b[..4 * vocabulary]);
    assert_ne!(a[4 * vocabulary..5 * vocabulary], b[4 * vocabulary..5 * vocabulary]);
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    let mut weights = RandomWeights::of("llama");
    weights.shapes.remove("blk.1.ffn_up.weight");
    let d = decoder("llama", &weights);
    let error = d.graph("test", &weights, State::None).unwrap_err();
    assert!(
        error.to_string().contains("layer 1") && error.to_string().contains("ffn_up"),
        "{error}"
    );
    weights.shapes.insert("blk.1.ffn_up.weight".into(), vec![64, 15]);
    let error = d.graph("test", &weights, State::None).unwrap_err();
    assert!(error.to_string().contains("[64, 15] for inputs of 32"), "{error}");
}

#[test]
fn an_encoder_sees_both_ways() {
    let weights = RandomWeights::of("bert");
    let Network::Encoder(encoder) =
        (arch::find("bert").unwrap().network)(&settings("bert"), &weights).unwrap()
    else {
        panic!("no encoder")
    };
    let session = session(&encoder.graph("test", &weights).unwrap());
    let run = |text: &[i64]| {
        let inputs = vec![
            (names::TOKENS, row(text.iter().copied())),
            (names::POSITIONS, row(0..text.len() as i64)),
            (names::TOKEN_TYPES, row(text.iter().map(|_| 0))),
        ];
        session.run_owned(inputs).unwrap()[0].1.to_f32().unwrap()
    };
    let (a, b) = (run(&[1, 2, 3]), run(&[1, 2, 4]));
    assert_eq!(a.len(), 3 * 32);
    assert_ne!(a[..32], b[..32], "the first token must see the last one");
}
