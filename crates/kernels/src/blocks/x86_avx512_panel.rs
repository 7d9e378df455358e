//! A panel of packed blocks, whose heads are taken apart in registers, unit by unit.
//!
//! One token has no other use for what is taken apart, and the panel is read front to back.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
use std::arch::x86_64::{
    __m128i, _mm_add_epi8, _mm_and_si128, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_max_epu8,
    _mm_min_epu8, _mm_or_si128, _mm_set1_epi8, _mm_slli_epi16, _mm_srl_epi16, _mm_srli_epi16,
    _mm_sub_epi8, _mm256_loadu_si256,
};
use std::marker::PhantomData;
use std::sync::atomic::{Ordering, compiler_fence};

use super::inputs::Form;
use super::unit::ROWS;
use super::weights::{Heads, Weights};
use super::x86_avx512_units::{Minimum, Scale, Stepped, SteppedMinimum, Units, chosen, planes};
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
    /// The CPU has AVX-512 F, and the block has such factors behind both.
    #[inline(always)]
    unsafe fn factors(&self, which: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            let codes = sixes::<{ 2 * UNITS }>(self.block.add(2 * NUMBERS), 2 * self.unit + which);
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes))
        }
    }

    /// The steps of half `h`, plus those of the minima times 16 where a byte holds both.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, and the block has such steps from byte `at` on.
    #[inline(always)]
    unsafe fn bytes(&self, at: usize, h: usize) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe { _mm_loadu_si128(self.block.add(at + (2 * self.unit + h) * ROWS).cast()) }
    }

    /// The steps of the minima of half `h`, negated.
    ///
    /// # Safety
    /// The CPU has AVX-512 F, and the block has them, above those of the scales.
    #[inline(always)]
    unsafe fn min_step(&self, h: usize) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let steps = _mm_srli_epi16::<4>(self.bytes(2 * NUMBERS, h));
            let steps = _mm512_cvtepu8_epi32(_mm_and_si128(steps, _mm_set1_epi8(15)));
            _mm512_sub_epi32(_mm512_setzero_si512(), steps)
        }
    }
}

/// Units of the blocks that have several.
const UNITS: usize = 8;

/// Row `index` of `ROWS` codes of 6 bits, of which there are `COUNT` rows.
///
/// # Safety
/// All of them are readable.
#[inline(always)]
unsafe fn sixes<const COUNT: usize>(bytes: *const u8, index: usize) -> __m128i {
    let (halves, quarters) = (COUNT / 2, COUNT / 4);
    // SAFETY: planes of 4 bits, half as many bytes as codes, are before planes of 2 bits, a quarter.
    unsafe {
        let low = bits(bytes.add(index % halves * ROWS), index / halves * 4, 15);
        let high = bytes.add((halves + index % quarters) * ROWS);
        _mm_or_si128(low, _mm_slli_epi16::<4>(bits(high, index / quarters * 2, 3)))
    }
}

/// `2^(code - 128)`, also where that is not normal.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn powers(codes: __m128i) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let two = _mm_set1_epi8(2);
        let float = |exponents| {
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_cvtepu8_epi32(exponents)))
        };
        // A normal power, and what makes the least two of a larger one.
        let normal = float(_mm_sub_epi8(_mm_max_epu8(codes, two), _mm_set1_epi8(1)));
        let rest = float(_mm_add_epi8(_mm_min_epu8(codes, two), _mm_set1_epi8(125)));
        _mm512_mul_ps(normal, rest)
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
        // SAFETY: blocks begin with scales.
        unsafe {
            match W::HEADS {
                Heads::Sixes => _mm512_mul_ps(self.numbers(0), self.factors(0)),
                Heads::Factors => {
                    let codes = sixes::<UNITS>(self.block.add(NUMBERS), self.unit);
                    let factors = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
                    let factors = _mm512_add_ps(factors, _mm512_set1_ps(-32.0));
                    _mm512_mul_ps(self.numbers(0), factors)
                }
                Heads::Exponents => powers(_mm_loadu_si128(self.block.cast())),
                _ => self.numbers(0),
            }
        }
    }
}

/// Numbers with the other sign.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
#[allow(unused_unsafe, reason = "the models of AVX-512 are safe")]
unsafe fn negated(numbers: __m512) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let sign = _mm512_set1_epi32(i32::MIN);
        _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(numbers), sign))
    }
}

impl<W: Weights> Minimum for Head<W> {
    #[inline(always)]
    unsafe fn min(&self) -> __m512 {
        // SAFETY: where there are minima, they follow the scales.
        unsafe {
            match W::HEADS {
                Heads::Sixes => negated(_mm512_mul_ps(self.numbers(NUMBERS), self.factors(1))),
                Heads::Exponents => _mm512_mul_ps(self.scale(), _mm512_set1_ps(-12.0)),
                Heads::Negated => negated(self.numbers(0)),
                _ => self.numbers(NUMBERS),
            }
        }
    }
}

impl<W: Weights> Stepped for Head<W> {
    #[inline(always)]
    unsafe fn steps(&self, h: usize) -> __m512i {
        // SAFETY: steps follow the scales, by unit and half.
        unsafe {
            match W::HEADS {
                Heads::SixSteps => {
                    let codes = sixes::<{ 2 * UNITS }>(self.block.add(NUMBERS), 2 * self.unit + h);
                    _mm512_sub_epi32(_mm512_cvtepu8_epi32(codes), _mm512_set1_epi32(32))
                }
                Heads::FourSteps => {
                    let steps = self.bytes(2 * NUMBERS, h);
                    _mm512_cvtepu8_epi32(_mm_and_si128(steps, _mm_set1_epi8(15)))
                }
                _ => _mm512_cvtepi8_epi32(self.bytes(NUMBERS, h)),
            }
        }
    }
}

impl<W: Weights> SteppedMinimum for Head<W> {
    #[inline(always)]
    unsafe fn min_steps(&self) -> __m512i {
        // SAFETY: the caller's promise; such blocks have steps of minima.
        unsafe {
            let (first, last) = (self.min_step(0), self.min_step(1));
            let first = _mm512_and_si512(first, _mm512_set1_epi32(0xffff));
            _mm512_or_si512(first, _mm512_slli_epi32::<16>(last))
        }
    }

    #[inline(always)]
    unsafe fn min_scale(&self) -> __m512 {
        // SAFETY: it follows the scale of the steps.
        unsafe { self.numbers(NUMBERS) }
    }
}
