//! Two output rows at steps of 1, or the last one where it is alone, half a block at a time: all
//! weights of the half stay in registers, as do the words of three columns. A turn of the loop makes
//! the sums of one output, the words that the next one wants, and the results of the one before.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
use std::hint::black_box;

use super::PARTS;
use super::window::{TAPS, Window};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::gemm::Limits;

/// Output rows that weights are packed for.
pub(super) const PAIR: usize = 2;

/// Registers of half a block.
pub(super) const HALF: usize = PARTS / 2;

/// The words of a column, or the sums of an output, for half a block.
pub(super) type Half = [__m512i; HALF];

/// What does not change from column to column.
pub(super) struct Constants<const ROWS: usize> {
    weights: [[Half; TAPS]; ROWS],
    /// What sums start from, by register.
    add: *const [i32; 16],
    /// What they are multiplied with, by register.
    multiplier: *const [f32; 16],
    limits: Limits,
    flip: __m512i,
    pub(super) zero: __m512i,
}

impl<const STACK: usize, const ROWS: usize> Window<'_, STACK, ROWS> {
    /// Computes the outputs of one or two rows. `WHOLE` says that the zero point is the least result
    /// and that all others of 8 bits may follow, `SIGNED` that inputs or results may have a sign.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW and VNNI, and no scaled sum leaves 32 bits. Inputs are readable
    /// in all columns of the image, outputs writable.
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    pub(super) unsafe fn run_pairs<const WHOLE: bool, const SIGNED: bool>(
        &mut self,
        limits: Limits,
    ) {
        if self.has_outputs() {
            // SAFETY: the caller's promise, and the checks.
            unsafe {
                self.half::<WHOLE, SIGNED, 0>(limits);
                self.half::<WHOLE, SIGNED, 1>(limits);
            }
        }
    }

    /// Whether there is anything to compute.
    ///
    /// # Panics
    /// When weights are missing, or there is no room for the first halves.
    #[inline(always)]
    pub(super) fn has_outputs(&self) -> bool {
        assert!(self.halves.len() >= ROWS * self.columns.outputs, "room for the first halves");
        assert!(self.weights.len() >= PARTS * TAPS * PAIR, "weights of a block");
        self.columns.outputs > 0
    }

    /// Computes one half of the registers: the first one as 16-bit values, to which the second one
    /// adds its own.
    ///
    /// # Safety
    /// As [`Window::run_pairs`], after its checks.
    #[inline]
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    unsafe fn half<const WHOLE: bool, const SIGNED: bool, const SIDE: usize>(
        &mut self,
        limits: Limits,
    ) {
        // SAFETY: the caller's promise; there are halves for all outputs.
        unsafe {
            let constants = self.constants::<SIDE>(limits);
            let first = [
                self.column::<SIGNED, SIDE>(0, &constants),
                self.column::<SIGNED, SIDE>(1, &constants),
                self.column::<SIGNED, SIDE>(2, &constants),
            ];
            let mut sums = Self::sums(&first, &constants);
            let mut words = self.next::<SIGNED, SIDE>(&first, 1, &constants);
            for x in 1..self.columns.outputs {
                let later = Self::sums(&words, &constants);
                words = self.next::<SIGNED, SIDE>(&words, x + 1, &constants);
                self.finish::<WHOLE, SIGNED, SIDE>(sums, x - 1, &constants);
                sums = later;
            }
            let last = self.columns.outputs - 1;
            self.finish::<WHOLE, SIGNED, SIDE>(sums, last, &constants);
        }
    }

    /// # Safety
    /// As [`Window::half`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn constants<const SIDE: usize>(&self, limits: Limits) -> Constants<ROWS> {
        let mut weights = [[[_mm512_setzero_si512(); HALF]; TAPS]; ROWS];
        for (row, weights) in weights.iter_mut().enumerate() {
            for (tap, weights) in weights.iter_mut().enumerate() {
                for (part, weights) in weights.iter_mut().enumerate() {
                    let line = ((SIDE * HALF + part) * TAPS + tap) * PAIR + row;
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
    unsafe fn next<const SIGNED: bool, const SIDE: usize>(
        &self,
        &[_, second, third]: &[Half; TAPS],
        x: usize,
        constants: &Constants<ROWS>,
    ) -> [Half; TAPS] {
        // SAFETY: the caller's promise.
        unsafe { [second, third, self.column::<SIGNED, SIDE>(x + 2, constants)] }
    }

    /// The words of a column of the padded image.
    ///
    /// # Safety
    /// As [`Window::half`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn column<const SIGNED: bool, const SIDE: usize>(
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
            // Else the compiler moves four pointers along instead of one place: 3 to 5 % slower.
            let at = column * black_box(self.steps[0]);
            let [a, b] = [rows[0].load(at), rows[1].load(at)];
            // Blocks below each other lie two rows apart. A row alone has weights of 0 for a fourth.
            let c = rows[2].load_below(a, at);
            let d = if ROWS == 1 { c } else { rows[3].load_below(b, at) };
            let [low, high] = match SIDE {
                0 => [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)],
                _ => [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)],
            };
            let words = [_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high)];
            match SIGNED {
                false => words,
                true => [
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
    pub(super) unsafe fn sums(words: &[Half; TAPS], constants: &Constants<ROWS>) -> [Half; ROWS] {
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
    pub(super) unsafe fn finish<const WHOLE: bool, const SIGNED: bool, const SIDE: usize>(
        &mut self,
        sums: [Half; ROWS],
        x: usize,
        constants: &Constants<ROWS>,
    ) {
        for (row, mut values) in sums.into_iter().enumerate() {
            // SAFETY: the caller's promise; there is a multiplier for each register.
            unsafe {
                for (part, value) in values.iter_mut().enumerate() {
                    let multiplier = _mm512_loadu_ps(constants.multiplier.add(part).cast());
                    let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(*value), multiplier);
                    *value = _mm512_cvtps_epi32(scaled);
                }
                let half = constants.limits.words::<WHOLE>(values);
                let first = self.halves.as_mut_ptr().add(x * ROWS + row);
                if SIDE == 0 {
                    _mm512_storeu_si512(first.cast(), half);
                } else {
                    let first = _mm512_loadu_si512(first.cast());
                    let bytes = constants.limits.bytes::<WHOLE, SIGNED>(first, half);
                    self.outputs[row].store(x * self.steps[1], bytes);
                }
            }
        }
    }
}
