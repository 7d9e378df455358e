//! A panel of packed blocks, whose heads are taken apart in registers, unit by unit.
//!
//! One token has no other use for what is taken apart, and the panel is read front to back.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
use std::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_or_si128, _mm_set1_epi8,
    _mm_slli_epi16, _mm_srl_epi16, _mm256_loadu_si256,
};
use std::marker::PhantomData;
use std::sync::atomic::{Ordering, compiler_fence};

use super::inputs::Form;
use super::unit::ROWS;
use super::weights::{Heads, Weights};
use super::x86_avx512_units::{Minimum, Scale, Stepped, Units, chosen, planes};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;

/// Bytes of a binary16 for each row.
const NUMBERS: usize = 2 * ROWS;

/// All blocks of a panel.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a, W> {
    packed: &'a [u8],
    format: PhantomData<W>,
}

impl<'a, W: Weights> Panel<'a, W> {
    pub(super) fn new(packed: &'a [u8]) -> Self {
        Panel { packed, format: PhantomData }
    }

    /// Reads a byte of each of `lines` lines of 64 bytes from `bytes` on.
    ///
    /// # Safety
    /// All of them are readable.
    #[inline(always)]
    unsafe fn touch_lines(bytes: *const u8, lines: usize) {
        for line in 0..lines {
            // SAFETY: the caller's promise.
            unsafe { bytes.add(line * 64).read_volatile() };
        }
    }

    /// The block of unit `b`.
    #[inline(always)]
    fn block(&self, b: usize) -> *const u8 {
        self.packed.as_ptr().wrapping_add(b / W::UNITS * W::PACKED)
    }
}

impl<W: Weights> Units for Panel<'_, W> {
    type Head = Head<W>;

    #[inline(always)]
    fn count(&self) -> usize {
        self.packed.len() / W::PACKED * W::UNITS
    }

    #[inline(always)]
    fn head(&self, b: usize) -> Head<W> {
        Head { block: self.block(b), unit: b % W::UNITS, format: PhantomData }
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize) -> __m512i {
        // SAFETY: the block has 64 bytes for each bit of the codes of a unit.
        unsafe {
            let codes = self.block(b).add(W::HEAD + b % W::UNITS * W::BITS * 64);
            match (W::VALUES, W::BITS) {
                (Some(values), _) if W::FORM == Form::Signed => {
                    chosen::<{ i8::MIN }>(values, codes, g)
                }
                (Some(values), _) => chosen::<0>(values, codes, g),
                (_, 4) => planes::<4>(codes, g),
                (_, 5) => planes::<5>(codes, g),
                (_, 6) => planes::<6>(codes, g),
                (_, 3) => planes::<3>(codes, g),
                _ => planes::<2>(codes, g),
            }
        }
    }

    #[inline(always)]
    fn touch(&self, b: usize) {
        let (block, unit) = (self.block(b), b % W::UNITS);
        // SAFETY: the head of a block and the codes of a unit are as long.
        unsafe {
            if unit == 0 {
                Self::touch_lines(block, W::HEAD.div_ceil(64));
            }
            Self::touch_lines(block.add(W::HEAD + unit * W::BITS * 64), W::BITS);
        }
        // No codes are read before.
        compiler_fence(Ordering::SeqCst);
    }
}

/// The head of one unit, where it stands in a packed block.
pub(super) struct Head<W> {
    block: *const u8,
    unit: usize,
    format: PhantomData<W>,
}

impl<W: Weights> Head<W> {
    /// The numbers in binary16 from byte `at` of the block on.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, and the block has them.
    #[inline(always)]
    unsafe fn numbers(&self, at: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(self.block.add(at).cast())) }
    }

    /// The factors of 6 bits: those of the scales (0) or the minima (1).
    ///
    /// # Safety
    /// The CPU has AVX-512 F, and the block has such factors.
    #[inline(always)]
    unsafe fn factors(&self, which: usize) -> __m512 {
        let (at, unit) = (2 * NUMBERS + which * ROWS, self.unit);
        // SAFETY: the factors of eight units are in two planes of 4 bits, 128 bytes, and four of 2
        // bits, 64 bytes.
        unsafe {
            let low = bits(self.block.add(at + unit % 4 * 2 * ROWS), unit / 4 * 4, 15);
            let high = bits(self.block.add(at + 128 + unit % 2 * 2 * ROWS), unit / 2 * 2, 3);
            let codes = _mm_or_si128(low, _mm_slli_epi16::<4>(high));
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes))
        }
    }
}

/// The bits of 16 bytes that lie under `mask` from bit `from` on.
///
/// # Safety
/// The bytes are readable.
#[inline(always)]
unsafe fn bits(bytes: *const u8, from: usize, mask: i8) -> __m128i {
    // SAFETY: the caller's promise. What a shift brings in from the neighbour byte is masked.
    unsafe {
        let shifted = _mm_srl_epi16(_mm_loadu_si128(bytes.cast()), _mm_cvtsi32_si128(from as i32));
        _mm_and_si128(shifted, _mm_set1_epi8(mask))
    }
}

impl<W: Weights> Scale for Head<W> {
    #[inline(always)]
    unsafe fn scale(&self) -> __m512 {
        // SAFETY: every such block begins with scales.
        unsafe {
            let scale = self.numbers(0);
            match W::HEADS {
                Heads::Sixes => _mm512_mul_ps(scale, self.factors(0)),
                _ => scale,
            }
        }
    }
}

impl<W: Weights> Minimum for Head<W> {
    #[inline(always)]
    unsafe fn min(&self) -> __m512 {
        // SAFETY: where there are minima, they follow the scales.
        unsafe {
            let min = self.numbers(NUMBERS);
            match W::HEADS {
                Heads::Sixes => {
                    let min = _mm512_castps_si512(_mm512_mul_ps(min, self.factors(1)));
                    _mm512_castsi512_ps(_mm512_xor_si512(min, _mm512_set1_epi32(i32::MIN)))
                }
                _ => min,
            }
        }
    }
}

impl<W: Weights> Stepped for Head<W> {
    #[inline(always)]
    unsafe fn steps(&self, h: usize) -> __m512i {
        // SAFETY: steps follow the scales, by unit and half.
        unsafe {
            let steps = self.block.add(NUMBERS + (2 * self.unit + h) * ROWS);
            _mm512_cvtepi8_epi32(_mm_loadu_si128(steps.cast()))
        }
    }
}
