//! The central promise: `Integer` computes what `Simulate` computes, up to the last bit that
//! rounding leaves open.

mod nets;

use fewbit_core::{Model, Tensor};
use fewbit_exec::{Mode, Session, SessionOptions};
use fewbit_kernels::Isa;
use nets::{Ranges, Rng, network};

/// The quantized network of a seed, with ranges measured on its float form, and an input.
fn quantized(seed: u64) -> (Model, Tensor) {
    let (float, names, shape) = network(seed, None);
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
    (network(seed, Some(&ranges)).0, x)
}

fn run(model: &Model, options: &SessionOptions, x: &Tensor) -> Vec<(String, Tensor)> {
    Session::new(model, options).unwrap().run(&[("x", x.clone())]).unwrap()
}

#[test]
fn random_networks_agree() {
    let (mut values, mut different, mut integer, mut most) = (0usize, 0usize, 0usize, 0i64);
    for seed in 0..150 {
        let (model, x) = quantized(seed);
        let simulated = run(&model, &SessionOptions::new(Mode::Simulate).threads(1), &x);
        let session = Session::new(&model, &SessionOptions::new(Mode::Integer).threads(1)).unwrap();
        integer += session.plan().iter().filter(|line| line.integer).count();
        let found = session.run(&[("x", x.clone())]).unwrap();
        for ((name, expected), (_, got)) in simulated.iter().zip(&found) {
            assert_eq!(expected.shape(), got.shape(), "seed {seed}, {name}");
            if !expected.dtype().is_int() {
                continue;
            }
            let pairs = expected.to_i64().unwrap().into_iter().zip(got.to_i64().unwrap());
            for (expected, got) in pairs {
                values += 1;
                different += usize::from(expected != got);
                most = most.max((expected - got).abs());
                assert!(
                    (expected - got).abs() <= 1,
                    "seed {seed}, {name}: {expected} against {got}"
                );
            }
        }
    }
    eprintln!("{different} of {values} codes differ, by at most {most}; {integer} integer nodes");
    assert!(integer > 1000, "only {integer} nodes were integer");
    assert!(different * 10_000 <= values, "{different} of {values} codes differ");
}

#[test]
fn results_do_not_depend_on_threads_or_instruction_set() {
    for seed in 0..20 {
        let (model, x) = quantized(seed);
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
