//! Any kernel: sums of some outputs at once, from words in memory.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::factors::Factors;
use super::results::Results;
use super::{OUTPUTS, PARTS};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::gemm::Limits;
use crate::scratch::Line;

/// [`OUTPUTS`] outputs of a block, in all its output rows.
pub(super) struct Tile<'a> {
    /// The words of the first column.
    pub(super) words: *const Line,
    /// By register, pair of rows, tap and row.
    pub(super) weights: *const Line,
    /// Kernel columns times fours of input rows.
    pub(super) taps: usize,
    /// Columns of words from one output to the next.
    pub(super) step: usize,
    /// Output rows that weights are packed for: 1, or an even number.
    pub(super) rows: usize,
    /// Those that are there.
    pub(super) lines: usize,
    pub(super) factors: &'a Factors,
}

impl Tile<'_> {
    /// The sums, row by row, [`PARTS`] lines for each output.
    ///
    /// # Safety
    /// The CPU has AVX-512 with VNNI. The words of all outputs and taps are there, weights of all
    /// rows for each tap, and room for the sums.
    #[inline(always)]
    pub(super) unsafe fn sums(&self, sums: *mut Line) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.rows, self.step) {
                (1, 2) => self.of_rows::<1, 2>(sums),
                (1, _) => self.of_rows::<1, 0>(sums),
                (_, 2) => self.of_rows::<2, 2>(sums),
                (_, 4) => self.of_rows::<2, 4>(sums),
                _ => self.of_rows::<2, 0>(sums),
            }
        }
    }

    /// The same for `ROWS` rows at a time and a step that is known, or 0.
    ///
    /// # Safety
    /// As [`Tile::sums`].
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
    unsafe fn of_rows<const ROWS: usize, const STEP: usize>(&self, sums: *mut Line) {
        let step = if STEP == 0 { self.step } else { STEP };
        let mut weights = self.weights;
        for (part, add) in self.factors.add.iter().enumerate() {
            for row in (0..self.rows).step_by(ROWS) {
                // SAFETY: the caller's promise.
                unsafe {
                    if row < self.lines {
                        let words = self.words.add(part);
                        let sums = sums.add(row * OUTPUTS * PARTS + part);
                        part_sums::<ROWS>(words, weights, [self.taps, step], add, sums);
                    }
                    weights = weights.add(self.taps * ROWS);
                }
            }
        }
    }
}

/// The sums of `ROWS` rows of outputs, of the channels of one register.
///
/// # Safety
/// As [`Tile::sums`].
#[inline]
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
unsafe fn part_sums<const ROWS: usize>(
    words: *const Line,
    weights: *const Line,
    [taps, step]: [usize; 2],
    add: &[i32; 16],
    sums: *mut Line,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[_mm512_loadu_si512(add.as_ptr().cast()); OUTPUTS]; ROWS];
        for tap in 0..taps {
            let words = words.add(tap * PARTS);
            let mut factors = [_mm512_setzero_si512(); ROWS];
            for (row, factors) in factors.iter_mut().enumerate() {
                *factors = _mm512_loadu_si512(weights.add(tap * ROWS + row).cast());
            }
            for output in 0..OUTPUTS {
                let words = _mm512_loadu_si512(words.add(output * step * PARTS).cast());
                for (acc, factors) in acc.iter_mut().zip(factors) {
                    acc[output] = _mm512_dpbusd_epi32(acc[output], words, factors);
                }
            }
        }
        for (i, acc) in acc.as_flattened().iter().enumerate() {
            _mm512_storeu_si512(sums.add(i * PARTS).cast(), *acc);
        }
    }
}

/// Finishes and stores the sums of some outputs of a row, as [`Results::push`] does.
///
/// # Safety
/// As [`Results::push`].
#[inline]
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
pub(super) unsafe fn store<const FULL: bool>(
    sums: &[[Line; PARTS]],
    mut results: Results<'_>,
    limits: Limits,
) {
    for lines in sums {
        let mut sums = [_mm512_setzero_si512(); PARTS];
        for (sums, line) in sums.iter_mut().zip(lines) {
            // SAFETY: lines have 64 bytes.
            *sums = unsafe { _mm512_loadu_si512((&raw const *line).cast()) };
        }
        // SAFETY: the caller's promise.
        unsafe { results.push::<FULL>(sums, limits) }
    }
}
