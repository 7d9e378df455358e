//! One output row at steps of 2. Each column in common of two outputs is interleaved once: its words
//! finish the sums of one and begin those of the next, so that weights and sums of a whole block stay
//! in registers. A turn of the loop also makes the results of the output before.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::PARTS;
use super::window::{TAPS, Window};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::gemm::Limits;

/// The words of a column, or the sums of an output.
type Block = [__m512i; PARTS];

/// What does not change from column to column.
struct Constants {
    weights: [Block; TAPS],
    limits: Limits,
    flip: __m512i,
    zero: __m512i,
}

impl<const STACK: usize> Window<'_, STACK, 1> {
    /// Computes the outputs. `WHOLE` says that the zero point is the least result and that all
    /// others of 8 bits may follow, `SIGNED` that inputs or results may have a sign.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW and VNNI, and no scaled sum leaves 32 bits. Inputs are readable
    /// in all columns of the image, outputs writable.
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    pub(super) unsafe fn run_steps<const WHOLE: bool, const SIGNED: bool>(
        &mut self,
        limits: Limits,
    ) {
        if self.columns.outputs == 0 {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            let constants = self.step_constants(limits);
            let [first, second, third] = &constants.weights;
            let words = self.step_column::<SIGNED>(0, &constants);
            let mut begun = add_products(self.start(), &words, first);
            let mut done = begun;
            for x in 0..self.columns.outputs {
                let words = self.step_column::<SIGNED>(2 * x + 1, &constants);
                begun = add_products(begun, &words, second);
                if x > 0 {
                    self.finish_step::<WHOLE, SIGNED>(done, x - 1, &constants);
                }
                let words = self.step_column::<SIGNED>(2 * x + 2, &constants);
                done = add_products(begun, &words, third);
                begun = add_products(self.start(), &words, first);
            }
            self.finish_step::<WHOLE, SIGNED>(done, self.columns.outputs - 1, &constants);
        }
    }

    /// # Safety
    /// As [`Window::run_steps`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn step_constants(&self, limits: Limits) -> Constants {
        assert!(self.weights.len() >= PARTS * TAPS, "weights of a block");
        let mut weights = [[_mm512_setzero_si512(); PARTS]; TAPS];
        for (tap, weights) in weights.iter_mut().enumerate() {
            for (part, weights) in weights.iter_mut().enumerate() {
                // SAFETY: the check above.
                unsafe {
                    let line = self.weights.as_ptr().add(part * TAPS + tap);
                    *weights = _mm512_loadu_si512(line.cast());
                }
            }
        }
        let flip = _mm512_set1_epi8(self.flip.cast_signed());
        let zero = _mm512_set1_epi8(self.zero.cast_signed());
        Constants { weights, limits, flip, zero }
    }

    /// What sums start from.
    ///
    /// # Safety
    /// As [`Window::run_steps`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn start(&self) -> Block {
        let mut start = [_mm512_setzero_si512(); PARTS];
        for (start, add) in start.iter_mut().zip(&self.factors.add) {
            // SAFETY: there are 16 of them.
            *start = unsafe { _mm512_loadu_si512(add.as_ptr().cast()) };
        }
        start
    }

    /// The words of a column of the padded image.
    ///
    /// # Safety
    /// As [`Window::run_steps`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn step_column<const SIGNED: bool>(
        &self,
        column: usize,
        constants: &Constants,
    ) -> Block {
        let column = column.wrapping_sub(self.columns.before);
        if column >= self.columns.inside {
            return [constants.zero; PARTS];
        }
        let (rows, at) = (&self.inputs, column * self.steps[0]);
        // SAFETY: the caller's promise.
        let [a, b, c] = unsafe { [rows[0].load(at), rows[1].load(at), rows[2].load(at)] };
        let nothing = _mm512_setzero_si512();
        let low = [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, nothing)];
        let high = [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, nothing)];
        let mut words = [
            _mm512_unpacklo_epi16(low[0], low[1]),
            _mm512_unpackhi_epi16(low[0], low[1]),
            _mm512_unpacklo_epi16(high[0], high[1]),
            _mm512_unpackhi_epi16(high[0], high[1]),
        ];
        if SIGNED {
            for words in &mut words {
                *words = _mm512_xor_si512(*words, constants.flip);
            }
        }
        words
    }

    /// Finishes and stores the sums of output `x`.
    ///
    /// # Safety
    /// As [`Window::run_steps`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn finish_step<const WHOLE: bool, const SIGNED: bool>(
        &self,
        sums: Block,
        x: usize,
        constants: &Constants,
    ) {
        let mut values = sums;
        for (value, multiplier) in values.iter_mut().zip(&self.factors.multiplier) {
            // SAFETY: there are 16 of them.
            let multiplier = unsafe { _mm512_loadu_ps(multiplier.as_ptr()) };
            *value = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(*value), multiplier));
        }
        let [a, b, c, d] = values;
        let limits = &constants.limits;
        // SAFETY: the caller's promise.
        unsafe {
            let words = [limits.words::<WHOLE>([a, b]), limits.words::<WHOLE>([c, d])];
            let bytes = limits.bytes::<WHOLE, SIGNED>(words[0], words[1]);
            self.outputs[0].store(x * self.steps[1], bytes);
        }
    }
}

/// Sums with the products of words and weights.
#[inline]
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512vnni"))]
fn add_products(mut sums: Block, words: &Block, weights: &Block) -> Block {
    for (sum, (words, weights)) in sums.iter_mut().zip(words.iter().zip(weights)) {
        *sum = _mm512_dpbusd_epi32(*sum, *words, *weights);
    }
    sums
}
