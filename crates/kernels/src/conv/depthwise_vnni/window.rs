//! Kernels three rows high and three columns wide, half a block at a time: all weights of the half
//! stay in registers, as do the words of three columns.
//!
//! The loop is laid out for a processor that looks few vector instructions ahead. A turn makes the
//! sums of one output, the words that the next one wants, and the results of the one before: none
//! of them waits for another.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::results::Factors;
use super::stack::{Inputs, Outputs};
use super::{PARTS, QUAD};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::gemm::Limits;
use crate::scratch::Line;

/// Rows and columns of the kernel.
pub(super) const TAPS: usize = 3;

/// Registers of half a block.
const HALF: usize = PARTS / 2;

/// The words of a column, or the sums of an output, for half a block.
type Half = [__m512i; HALF];

/// `ROWS` output rows of a block of channels, or of `STACK` narrower blocks below each other.
pub(super) struct Window<'a, const STACK: usize, const ROWS: usize> {
    pub(super) inputs: [Inputs<STACK>; QUAD],
    pub(super) outputs: [Outputs<STACK>; ROWS],
    pub(super) columns: Columns,
    /// By register, tap and output row.
    pub(super) weights: &'a [Line],
    pub(super) factors: &'a Factors,
    /// Turns a byte into its unsigned form.
    pub(super) flip: u8,
    /// What surrounds the image, in unsigned form.
    pub(super) zero: u8,
    /// Room for the first halves: a line for each output.
    pub(super) halves: &'a mut [Line],
}

/// The columns of an image.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    /// Those of the padding before it.
    pub(super) before: usize,
    pub(super) inside: usize,
    /// Those of the output.
    pub(super) outputs: usize,
}

/// What does not change from column to column.
struct Constants<const ROWS: usize> {
    weights: [[Half; TAPS]; ROWS],
    /// What sums start from, by register.
    add: *const [i32; 16],
    /// What they are multiplied with, by register.
    multiplier: *const [f32; 16],
    limits: Limits,
    flip: __m512i,
    zero: __m512i,
}

impl<const STACK: usize, const ROWS: usize> Window<'_, STACK, ROWS> {
    /// Computes the outputs, which lie `STEP` columns and rows apart. `PLAIN` says that neither
    /// inputs nor results have a sign, and that no limit or zero point changes a result.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW and VNNI, and no scaled sum leaves 32 bits. Inputs are readable
    /// in all columns of the image, outputs writable; `ROWS` and `STEP` are those of the weights.
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    pub(super) unsafe fn run<const STEP: usize, const PLAIN: bool>(&mut self, limits: Limits) {
        if self.columns.outputs == 0 {
            return;
        }
        assert!(self.halves.len() >= ROWS * self.columns.outputs, "room for the first halves");
        assert!(self.weights.len() >= PARTS * TAPS * ROWS, "weights of a block");
        // SAFETY: the caller's promise, and the checks.
        unsafe {
            self.half::<STEP, PLAIN, 0>(limits);
            self.half::<STEP, PLAIN, 1>(limits);
        }
    }

    /// Computes one half of the registers: the first one as 16-bit values, to which the second one
    /// adds its own.
    ///
    /// # Safety
    /// As [`Window::run`], after its checks.
    #[inline]
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    unsafe fn half<const STEP: usize, const PLAIN: bool, const SIDE: usize>(
        &mut self,
        limits: Limits,
    ) {
        let mut outputs = self.outputs;
        // SAFETY: the caller's promise; there are halves for all outputs.
        unsafe {
            let constants = self.constants::<SIDE>(limits);
            let first = [
                self.column::<STEP, PLAIN, SIDE>(0, &constants),
                self.column::<STEP, PLAIN, SIDE>(1, &constants),
                self.column::<STEP, PLAIN, SIDE>(2, &constants),
            ];
            let mut sums = Self::sums(&first, &constants);
            let mut words = self.next::<STEP, PLAIN, SIDE>(&first, 1, &constants);
            for x in 1..self.columns.outputs {
                let later = Self::sums(&words, &constants);
                words = self.next::<STEP, PLAIN, SIDE>(&words, x + 1, &constants);
                self.finish::<PLAIN, SIDE>(sums, x - 1, &constants, &mut outputs);
                sums = later;
            }
            let last = self.columns.outputs - 1;
            self.finish::<PLAIN, SIDE>(sums, last, &constants, &mut outputs);
        }
    }

    /// # Safety
    /// As [`Window::half`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn constants<const SIDE: usize>(&self, limits: Limits) -> Constants<ROWS> {
        let mut weights = [[[_mm512_setzero_si512(); HALF]; TAPS]; ROWS];
        for (row, weights) in weights.iter_mut().enumerate() {
            for (tap, weights) in weights.iter_mut().enumerate() {
                for (part, weights) in weights.iter_mut().enumerate() {
                    let line = ((SIDE * HALF + part) * TAPS + tap) * ROWS + row;
                    // SAFETY: the caller checked the number of lines.
                    unsafe {
                        *weights = _mm512_loadu_si512(self.weights.as_ptr().add(line).cast());
                    }
                }
            }
        }
        Constants {
            weights,
            add: self.factors.add[SIDE * HALF..].as_ptr(),
            multiplier: self.factors.multiplier[SIDE * HALF..].as_ptr(),
            limits,
            flip: _mm512_set1_epi8(self.flip.cast_signed()),
            zero: _mm512_set1_epi8(self.zero.cast_signed()),
        }
    }

    /// The words that output `x` sees, after those of the output before.
    ///
    /// # Safety
    /// As [`Window::half`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn next<const STEP: usize, const PLAIN: bool, const SIDE: usize>(
        &self,
        &[_, second, third]: &[Half; TAPS],
        x: usize,
        constants: &Constants<ROWS>,
    ) -> [Half; TAPS] {
        // SAFETY: the caller's promise.
        unsafe {
            let last = self.column::<STEP, PLAIN, SIDE>(x * STEP + 2, constants);
            match STEP {
                1 => [second, third, last],
                _ => [third, self.column::<STEP, PLAIN, SIDE>(x * STEP + 1, constants), last],
            }
        }
    }

    /// The words of a column of the padded image.
    ///
    /// # Safety
    /// As [`Window::half`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn column<const STEP: usize, const PLAIN: bool, const SIDE: usize>(
        &self,
        column: usize,
        constants: &Constants<ROWS>,
    ) -> Half {
        let column = column.wrapping_sub(self.columns.before);
        if column >= self.columns.inside {
            return [constants.zero; HALF];
        }
        // SAFETY: the caller's promise.
        unsafe {
            let rows = &self.inputs;
            let [a, b, c] = [rows[0].load(column), rows[1].load(column), rows[2].load(column)];
            // The fourth row is for a second output row.
            let d = if ROWS > 1 { rows[3].load(column) } else { _mm512_setzero_si512() };
            let [low, high] = match SIDE {
                0 => [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)],
                _ => [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)],
            };
            let words = [_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high)];
            match PLAIN {
                true => words,
                false => [
                    _mm512_xor_si512(words[0], constants.flip),
                    _mm512_xor_si512(words[1], constants.flip),
                ],
            }
        }
    }

    /// The sums of the output that sees `words`, in all rows.
    ///
    /// # Safety
    /// As [`Window::half`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
    unsafe fn sums(words: &[Half; TAPS], constants: &Constants<ROWS>) -> [Half; ROWS] {
        let mut sums = [[_mm512_setzero_si512(); HALF]; ROWS];
        for part in 0..HALF {
            // SAFETY: there is one for each register.
            let add = unsafe { _mm512_loadu_si512(constants.add.add(part).cast()) };
            for (sums, weights) in sums.iter_mut().zip(&constants.weights) {
                sums[part] = add;
                for (words, weights) in words.iter().zip(weights) {
                    sums[part] = _mm512_dpbusd_epi32(sums[part], words[part], weights[part]);
                }
            }
        }
        sums
    }

    /// Finishes the sums of output `x`.
    ///
    /// # Safety
    /// As [`Window::half`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn finish<const PLAIN: bool, const SIDE: usize>(
        &mut self,
        sums: [Half; ROWS],
        x: usize,
        constants: &Constants<ROWS>,
        outputs: &mut [Outputs<STACK>; ROWS],
    ) {
        for (row, mut values) in sums.into_iter().enumerate() {
            // SAFETY: the caller's promise; there is a multiplier for each register.
            unsafe {
                for (part, value) in values.iter_mut().enumerate() {
                    let multiplier = _mm512_loadu_ps(constants.multiplier.add(part).cast());
                    let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(*value), multiplier);
                    *value = _mm512_cvtps_epi32(scaled);
                }
                let half = constants.limits.words::<PLAIN>(values);
                let first = self.halves.as_mut_ptr().add(x * ROWS + row);
                if SIDE == 0 {
                    _mm512_storeu_si512(first.cast(), half);
                } else {
                    let first = _mm512_loadu_si512(first.cast());
                    outputs[row].push(constants.limits.bytes::<PLAIN>(first, half));
                }
            }
        }
    }
}
