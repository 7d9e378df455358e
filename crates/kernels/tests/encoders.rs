//! The block encoders against the reference decoder: what they write, and how much it loses.

use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_kernels::Isa;
use fewbit_kernels::encode::{Encoding, Loss, encode};

/// The type whose bytes an encoding writes.
fn block_type(encoding: Encoding) -> BlockType {
    let found = BlockType::ALL.iter().find(|t| format!("{t:?}") == format!("{encoding:?}"));
    *found.unwrap_or_else(|| panic!("{encoding:?} is no block type"))
}

/// Numbers with the heavy tails of trained weights, from a fixed generator.
fn weights(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..len)
        .map(|_| {
            let normal = uniform() + uniform() + uniform() + uniform();
            0.03 * normal / (0.3 + uniform().abs())
        })
        .collect()
}

fn importance(columns: usize) -> Vec<f32> {
    (0..columns).map(|i| 0.2 + (i * 37 % 101) as f32 * 0.05).collect()
}

fn run(isa: Isa, e: Encoding, x: &[f32], columns: usize, w: Option<&[f32]>) -> (Vec<u8>, Loss) {
    let mut out = vec![0xaa; x.len() / e.elements() * e.bytes()];
    let loss = encode(isa, e, x, columns, w, &mut out);
    (out, loss)
}

fn decoded(encoding: Encoding, bytes: &[u8]) -> Vec<f32> {
    let ty = block_type(encoding);
    let mut out = vec![0.0; ty.row_elements(bytes.len()).unwrap()];
    dequantize(ty, bytes, &mut out).unwrap();
    out
}

/// Weighted squared error and signal.
fn measured(x: &[f32], y: &[f32], columns: usize, w: Option<&[f32]>) -> Loss {
    let mut loss = Loss::default();
    for (i, (&x, &y)) in x.iter().zip(y).enumerate() {
        let weight = w.map_or(1.0, |w| f64::from(w[i % columns]));
        loss.error += weight * (f64::from(x) - f64::from(y)).powi(2);
        loss.signal += weight * f64::from(x).powi(2);
    }
    loss
}

#[test]
fn layouts_are_those_of_the_block_types() {
    for &encoding in Encoding::ALL {
        let ty = block_type(encoding);
        assert_eq!((encoding.elements(), encoding.bytes()), (ty.elements(), ty.bytes()), "{ty}");
    }
}

#[test]
fn the_loss_is_that_of_the_decoded_bytes() {
    for &encoding in Encoding::ALL {
        for (rows, blocks) in [(1, 1), (3, 1), (5, 3), (2, 9)] {
            let columns = blocks * encoding.elements();
            let x = weights(rows * columns, 7);
            let w = importance(columns);
            for w in [None, Some(w.as_slice())] {
                let (bytes, loss) = run(Isa::best(), encoding, &x, columns, w);
                let expected = measured(&x, &decoded(encoding, &bytes), columns, w);
                let close = |a: f64, b: f64| (a - b).abs() <= 2e-4 * b + 1e-7 * expected.signal;
                assert!(close(loss.error, expected.error), "{encoding:?} {loss:?} {expected:?}");
                assert!(close(loss.signal, expected.signal), "{encoding:?}");
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bytes() {
    for &encoding in Encoding::ALL {
        let columns = 3 * encoding.elements();
        let x = weights(7 * columns, 11);
        let w = importance(columns);
        for w in [None, Some(w.as_slice())] {
            let expected = run(Isa::scalar(), encoding, &x, columns, w);
            for isa in Isa::available() {
                assert_eq!(run(isa, encoding, &x, columns, w), expected, "{encoding:?} {isa}");
            }
        }
    }
}

/// Relative squared errors on 64 rows of 512, without and with importance, as the searches reach
/// them.
const LOSSES: [(Encoding, f64, f64); 16] = [
    // Without importance, errors of large numbers count more in its search.
    (Encoding::Q4_0, 8.156e-3, 7.733e-3),
    (Encoding::Q4_1, 5.420e-3, 5.117e-3),
    (Encoding::Q5_0, 1.961e-3, 1.908e-3),
    (Encoding::Q5_1, 1.281e-3, 1.215e-3),
    (Encoding::Q8_0, 2.904e-5, 2.820e-5),
    (Encoding::Iq4Nl, 6.015e-3, 5.771e-3),
    (Encoding::Q2K, 7.358e-2, 6.649e-2),
    (Encoding::Q3K, 2.358e-2, 2.235e-2),
    (Encoding::Q4K, 5.524e-3, 5.220e-3),
    (Encoding::Q5K, 1.362e-3, 1.302e-3),
    (Encoding::Q6K, 3.284e-4, 3.131e-4),
    (Encoding::Iq4Xs, 6.098e-3, 5.860e-3),
    (Encoding::Iq3S, 1.846e-2, 1.578e-2),
    (Encoding::Tq1_0, 2.178e-1, 2.164e-1),
    (Encoding::Tq2_0, 2.178e-1, 2.164e-1),
    (Encoding::Mxfp4, 1.315e-2, 1.313e-2),
];

#[test]
fn losses_stay_low() {
    assert_eq!(LOSSES.len(), Encoding::ALL.len());
    for (encoding, plain, weighted) in LOSSES {
        let (x, w) = (weights(64 * 512, 3), importance(512));
        for (bound, w) in [(plain, None), (weighted, Some(w.as_slice()))] {
            let (_, loss) = run(Isa::best(), encoding, &x, 512, w);
            assert!(loss.relative() <= 1.003 * bound, "{encoding:?} {}", loss.relative());
        }
    }
}

#[test]
fn importance_lowers_the_weighted_error() {
    for &encoding in Encoding::ALL {
        let x = weights(32 * 512, 5);
        let w = importance(512);
        let (plain, _) = run(Isa::best(), encoding, &x, 512, None);
        let (_, weighted) = run(Isa::best(), encoding, &x, 512, Some(&w));
        let plain = measured(&x, &decoded(encoding, &plain), 512, Some(&w));
        // A power of two as scale leaves little to choose.
        let room = if encoding == Encoding::Mxfp4 { 1.0 } else { 0.999 };
        assert!(weighted.error <= room * plain.error, "{encoding:?}");
    }
}

#[test]
fn what_a_type_can_hold_it_keeps() {
    for &encoding in Encoding::ALL {
        let x: Vec<f32> = (0..512).map(|i| if i % 3 == 0 { -0.25 } else { 0.25 }).collect();
        let (bytes, _) = run(Isa::best(), encoding, &x, 512, None);
        let loss = measured(&x, &decoded(encoding, &bytes), 512, None);
        let bound = match encoding {
            // Their lists and codebooks have no opposite values or none alike.
            Encoding::Iq4Nl | Encoding::Iq4Xs | Encoding::Iq3S => 0.05,
            // Scales of either sign do, the largest of one sign only.
            Encoding::Q3K | Encoding::Q6K => 2e-3,
            _ => 1e-5,
        };
        assert!(loss.relative() < bound, "{encoding:?} {}", loss.relative());
    }
}

#[test]
fn a_level_row_and_zeros_survive() {
    for &encoding in Encoding::ALL {
        for level in [0.0, 0.125, -0.125, 1e-20, 1e4] {
            let x = vec![level; 256];
            let (bytes, loss) = run(Isa::best(), encoding, &x, 256, None);
            let y = decoded(encoding, &bytes);
            assert!(y.iter().all(|y| y.is_finite()), "{encoding:?} {level}");
            // Entries of a codebook are seldom all alike; powers of two are far apart.
            let coarse = matches!(encoding, Encoding::Iq3S | Encoding::Mxfp4);
            let bound = if coarse { 0.05 } else { 1e-3 };
            assert!(loss.relative() < bound || level == 1e-20, "{encoding:?} {level} {loss:?}");
        }
    }
}

#[test]
fn numbers_that_are_none_do_no_harm() {
    for &encoding in Encoding::ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE] {
            let mut x = weights(512, 9);
            x[100] = bad;
            let expected = run(Isa::scalar(), encoding, &x, 512, None).0;
            for isa in Isa::available() {
                assert_eq!(run(isa, encoding, &x, 512, None).0, expected, "{encoding:?} {bad}");
            }
        }
    }
}
