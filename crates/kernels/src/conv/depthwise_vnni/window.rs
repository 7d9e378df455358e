//! Kernels three columns wide that see four input rows: the words of three columns stay in
//! registers, from where they are made to the results.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::PARTS;
use super::results::Results;
use super::words::Quad;
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
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
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let nothing = [_mm512_setzero_si512(); PARTS];
            // What lies before the columns that come in with the first output.
            let mut window = match STEP {
                1 => [nothing, self.column::<PIXELS>(0), self.column::<PIXELS>(1)],
                2 => [nothing, nothing, self.column::<PIXELS>(0)],
                _ => [nothing; TAPS],
            };
            for output in 0..self.outputs {
                let [_, second, third] = window;
                let first = output * STEP;
                let last = self.column::<PIXELS>(first + 2);
                // Written out, so that all stay in registers.
                window = match STEP {
                    1 => [second, third, last],
                    2 => [third, self.column::<PIXELS>(first + 1), last],
                    _ => [self.column::<PIXELS>(first), self.column::<PIXELS>(first + 1), last],
                };
                for (row, results) in rows.iter_mut().enumerate() {
                    results.push::<PIXELS>(self.sums::<ROWS>(row, &window, results));
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
