//! Kernels three columns wide that see four input rows: the words of three columns stay in
//! registers, from where they are made to the results.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::PARTS;
use super::results::Results;
use super::words::Quad;
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::gemm::Limits;
use crate::scratch::Line;

/// Columns of the kernel.
pub(super) const TAPS: usize = 3;

/// One or two output rows of a block of channels.
pub(super) struct Window<'a> {
    pub(super) quad: Quad<'a>,
    /// By register, tap and output row.
    pub(super) weights: &'a [Line],
    /// Blocks of pixels in an output row.
    pub(super) outputs: usize,
}

impl Window<'_> {
    /// Computes `rows`, of which the kernel makes `ROWS`, from blocks of `PIXELS` pixels that lie
    /// `STEP` columns apart.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW and VNNI. The results are writable; there are weights for
    /// `ROWS` rows.
    #[inline]
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    pub(super) unsafe fn run<const ROWS: usize, const PIXELS: usize, const STEP: usize>(
        &self,
        rows: &mut [Results<'_>],
        limits: Limits,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match STEP {
                1 | 2 => self.pairs::<ROWS, PIXELS, STEP>(rows, limits),
                _ => self.singles::<ROWS, PIXELS, STEP>(rows, limits),
            }
        }
    }

    /// Two blocks at a time, which share the loads of the weights.
    ///
    /// # Safety
    /// As [`Window::run`]; `STEP` is 1 or 2.
    #[inline]
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    unsafe fn pairs<const ROWS: usize, const PIXELS: usize, const STEP: usize>(
        &self,
        rows: &mut [Results<'_>],
        limits: Limits,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let nothing = [_mm512_setzero_si512(); PARTS];
            // Before the first pair, of its columns those that no pair brings in.
            let mut window = match STEP {
                1 => {
                    [nothing, nothing, self.column::<PIXELS>(0), self.column::<PIXELS>(1), nothing]
                }
                _ => [nothing, nothing, nothing, nothing, self.column::<PIXELS>(0)],
            };
            for output in (0..self.outputs).step_by(2) {
                let ([_, _, c, d, e], first) = (window, output * STEP);
                let third = self.column::<PIXELS>(first + 2);
                let fourth = self.column::<PIXELS>(first + 3);
                // Written out, so that all stay in registers.
                window = match STEP {
                    1 => [c, d, third, fourth, nothing],
                    _ => {
                        let (second, last) = (first + 1, first + 4);
                        let second = self.column::<PIXELS>(second);
                        [e, second, third, fourth, self.column::<PIXELS>(last)]
                    }
                };
                for (row, results) in rows.iter_mut().enumerate() {
                    let [one, other] = self.pair_sums::<ROWS, STEP>(row, &window, results);
                    results.push::<PIXELS>(one, limits);
                    if output + 1 < self.outputs {
                        results.push::<PIXELS>(other, limits);
                    }
                }
            }
        }
    }

    /// One block at a time.
    ///
    /// # Safety
    /// As [`Window::run`].
    #[inline]
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    unsafe fn singles<const ROWS: usize, const PIXELS: usize, const STEP: usize>(
        &self,
        rows: &mut [Results<'_>],
        limits: Limits,
    ) {
        for output in 0..self.outputs {
            let first = output * STEP;
            // SAFETY: the caller's promise.
            unsafe {
                let window = [
                    self.column::<PIXELS>(first),
                    self.column::<PIXELS>(first + 1),
                    self.column::<PIXELS>(first + 2),
                ];
                for (row, results) in rows.iter_mut().enumerate() {
                    let sums = self.sums::<ROWS>(row, &window, results);
                    results.push::<PIXELS>(sums, limits);
                }
            }
        }
    }

    /// The words of a column.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn column<const PIXELS: usize>(&self, column: usize) -> [__m512i; PARTS] {
        // SAFETY: the caller's promise.
        unsafe {
            match self.quad.holds(column) {
                true => self.quad.words::<PIXELS>(column),
                false => self.quad.edge::<PIXELS>(column),
            }
        }
    }

    /// The sums of two blocks, `STEP` columns apart, in row `row` of `ROWS`.
    ///
    /// # Safety
    /// As [`Window::run`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
    unsafe fn pair_sums<const ROWS: usize, const STEP: usize>(
        &self,
        row: usize,
        window: &[[__m512i; PARTS]; 5],
        results: &Results<'_>,
    ) -> [[__m512i; PARTS]; 2] {
        let mut sums = [[_mm512_setzero_si512(); PARTS]; 2];
        for part in 0..PARTS {
            // SAFETY: the caller's promise; lines have 64 bytes.
            unsafe {
                let add = _mm512_loadu_si512(results.factors.add[part].as_ptr().cast());
                let [mut one, mut other] = [add; 2];
                for tap in 0..TAPS {
                    let weights = self.weights.as_ptr().add((part * TAPS + tap) * ROWS + row);
                    let weights = _mm512_loadu_si512(weights.cast());
                    one = _mm512_dpbusd_epi32(one, window[tap][part], weights);
                    other = _mm512_dpbusd_epi32(other, window[tap + STEP][part], weights);
                }
                [sums[0][part], sums[1][part]] = [one, other];
            }
        }
        sums
    }

    /// The sums of a block in row `row` of `ROWS`.
    ///
    /// # Safety
    /// As [`Window::run`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
    unsafe fn sums<const ROWS: usize>(
        &self,
        row: usize,
        window: &[[__m512i; PARTS]; TAPS],
        results: &Results<'_>,
    ) -> [__m512i; PARTS] {
        let mut sums = [_mm512_setzero_si512(); PARTS];
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise; lines have 64 bytes.
            unsafe {
                *sum = _mm512_loadu_si512(results.factors.add[part].as_ptr().cast());
                for (tap, words) in window.iter().enumerate() {
                    let weights = self.weights.as_ptr().add((part * TAPS + tap) * ROWS + row);
                    let weights = _mm512_loadu_si512(weights.cast());
                    *sum = _mm512_dpbusd_epi32(*sum, words[part], weights);
                }
            }
        }
        sums
    }
}
