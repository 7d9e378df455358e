//! Runs a kernel on every instruction set and thread count and compares the bits.

use crate::{Ctx, Isa, Pool};

/// Lengths around the vector widths.
pub(crate) const LENGTHS: [usize; 9] = [0, 1, 7, 16, 17, 31, 33, 1000, 50_001];

/// Asserts that `run` gives the same result everywhere, and returns it.
#[track_caller]
pub(crate) fn everywhere<T: PartialEq + std::fmt::Debug>(run: impl Fn(Ctx<'_>) -> T) -> T {
    let single = Pool::single();
    let isa = Isa::scalar();
    let expected = run(Ctx { isa, pool: &single });
    for threads in [1, 2, 3] {
        let pool = Pool::new(threads);
        for isa in Isa::available() {
            let got = run(Ctx { isa, pool: &pool });
            assert!(got == expected, "{isa} on {threads} threads differs");
        }
    }
    expected
}

/// The bits of each number, every NaN as one.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    let canonical = |x: &f32| if x.is_nan() { f32::NAN } else { *x }.to_bits();
    values.iter().map(canonical).collect()
}

/// Numbers from a fixed generator, about normally distributed with deviation `spread`, with the
/// special values sprinkled in when there is room.
pub(crate) fn numbers(len: usize, seed: u32, spread: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..len).map(|_| (uniform() + uniform() + uniform()) * 2.0 * spread).collect()
}

/// As [`numbers`], with NaN, infinities, zeros, subnormals and huge values put at fixed places.
pub(crate) fn wild(len: usize, seed: u32) -> Vec<f32> {
    const SPECIAL: [f32; 12] = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1e-40,
        -1e-40,
        3e38,
        -3e38,
        0.5,
        -1.5,
        2.5,
    ];
    let mut values = numbers(len, seed, 5.0);
    for (slot, special) in values.iter_mut().skip(3).step_by(5).zip(SPECIAL) {
        *slot = special;
    }
    values
}

/// Codes of all values, from a fixed generator.
pub(crate) fn codes(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(7);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}
