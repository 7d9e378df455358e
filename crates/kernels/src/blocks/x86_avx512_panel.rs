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

use bytemuck::Zeroable;

use super::inputs::Form;
use super::unit::ROWS;
use super::weights::{Heads, Weights};
use super::x86_avx512_units::{
    Minimum, Scale, Stepped, SteppedMinimum, Units, bits, chosen, planes,
};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::scratch::Line;

/// Bytes of a binary16 for each row.
const HALVES: usize = 2 * ROWS;

/// Units of the blocks that have several.
const UNITS: usize = 8;

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
    type Common = Common;

    #[inline(always)]
    fn count(&self) -> usize {
        self.packed.len() / W::PACKED * W::UNITS
    }

    #[inline(always)]
    fn head(&self, b: usize, common: &Common) -> Head<W> {
        let (block, unit) = (self.block(b), b % W::UNITS);
        Head { block, unit, numbers: common.numbers, sixes: common.of(unit), format: PhantomData }
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
    unsafe fn enter(&self, b: usize, common: &mut Common) {
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
        if unit == 0 {
            // SAFETY: the caller's promise.
            unsafe { common.take_apart::<W>(block) };
        }
    }
}

/// What the units of a block have in common, where it has several.
#[derive(Zeroable)]
pub(super) struct Common {
    /// Scales, and minima where the format has numbers for them.
    numbers: [[f32; ROWS]; 2],
    /// Two rows of codes for each unit, where those have 6 bits.
    sixes: [Line; 2 * UNITS * ROWS / 64],
}

impl Common {
    /// Takes apart what a block begins with.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW, and the block is one of the format.
    #[inline(always)]
    unsafe fn take_apart<W: Weights>(&mut self, block: *const u8) {
        let (numbers, sixes) = match W::HEADS {
            Heads::Sixes => (2, true),
            Heads::SixSteps => (1, true),
            Heads::FourSteps => (2, false),
            Heads::Steps | Heads::Factors | Heads::Negated => (1, false),
            // There is one unit, whose head reads what it needs.
            Heads::Whole | Heads::Numbers | Heads::Exponents => return,
        };
        // SAFETY: the caller's promise.
        unsafe {
            for (i, out) in self.numbers[..numbers].iter_mut().enumerate() {
                _mm512_storeu_ps(out.as_mut_ptr(), floats(block.add(i * HALVES)));
            }
            if sixes {
                self.take_sixes(block.add(numbers * HALVES));
            }
        }
    }

    /// Takes all codes of 6 bits apart.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW, and all planes are readable.
    #[inline(always)]
    unsafe fn take_sixes(&mut self, codes: *const u8) {
        for (i, line) in self.sixes.iter_mut().enumerate() {
            // SAFETY: planes of 4 bits, 128 bytes, are before planes of 2 bits, 64.
            unsafe {
                let low = bits(codes.add(i % 2 * 64), i / 2 * 4, 0, 15);
                let high = bits(codes.add(128), 2 * i, 4, 3);
                _mm512_storeu_si512((&raw mut *line).cast(), _mm512_or_si512(low, high));
            }
        }
    }

    /// The two rows of a unit.
    #[inline(always)]
    fn of(&self, unit: usize) -> [__m128i; 2] {
        let bytes: &[u8] = bytemuck::cast_slice(&self.sixes);
        let rows = &bytes[2 * unit * ROWS..][..2 * ROWS];
        // SAFETY: there are as many bytes.
        unsafe { [0, 1].map(|row| _mm_loadu_si128(rows.as_ptr().add(row * ROWS).cast())) }
    }
}

/// The head of one unit, where it stands in a packed block.
pub(super) struct Head<W> {
    block: *const u8,
    unit: usize,
    /// Those of [`Common`], where the block has several units.
    numbers: [[f32; ROWS]; 2],
    sixes: [__m128i; 2],
    format: PhantomData<W>,
}

impl<W: Weights> Head<W> {
    /// The scales (0) or minima (1).
    ///
    /// # Safety
    /// The CPU has AVX-512 F, and the block begins with them, in binary16.
    #[inline(always)]
    unsafe fn numbers(&self, which: usize) -> __m512 {
        // SAFETY: the caller's promise; there are numbers of all rows.
        unsafe {
            match W::UNITS {
                1 => floats(self.block.add(which * HALVES)),
                _ => _mm512_loadu_ps(self.numbers[which].as_ptr()),
            }
        }
    }

    /// The factors of 6 bits: those of the scales (0) or the minima (1).
    ///
    /// # Safety
    /// The CPU has AVX-512 F.
    #[inline(always)]
    #[allow(unused_unsafe, reason = "the models of AVX-512 are safe")]
    unsafe fn factors(&self, which: usize) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(self.sixes[which])) }
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
            let steps = _mm_srli_epi16::<4>(self.bytes(2 * HALVES, h));
            let steps = _mm512_cvtepu8_epi32(_mm_and_si128(steps, _mm_set1_epi8(15)));
            _mm512_sub_epi32(_mm512_setzero_si512(), steps)
        }
    }
}

/// The numbers of 16 binary16.
///
/// # Safety
/// The CPU has AVX-512 F, and 32 bytes are readable.
#[inline(always)]
unsafe fn floats(halves: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(halves.cast())) }
}

/// The codes of 6 bits of unit `unit`, where each has one row of them.
///
/// # Safety
/// Those of all units are readable.
#[inline(always)]
unsafe fn sixes(bytes: *const u8, unit: usize) -> __m128i {
    const LOW: usize = UNITS / 2;
    const HIGH: usize = UNITS / 4;
    // SAFETY: planes of 4 bits, half as many bytes as codes, are before planes of 2 bits, a quarter.
    unsafe {
        let low = row_bits(bytes.add(unit % LOW * ROWS), unit / LOW * 4, 15);
        let high = row_bits(bytes.add((LOW + unit % HIGH) * ROWS), unit / HIGH * 2, 3);
        _mm_or_si128(low, _mm_slli_epi16::<4>(high))
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
unsafe fn row_bits(bytes: *const u8, from: usize, mask: i8) -> __m128i {
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
                    let codes = sixes(self.block.add(HALVES), self.unit);
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
                Heads::Sixes => negated(_mm512_mul_ps(self.numbers(1), self.factors(1))),
                Heads::Exponents => _mm512_mul_ps(self.scale(), _mm512_set1_ps(-12.0)),
                Heads::Negated => negated(self.numbers(0)),
                _ => self.numbers(1),
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
                    _mm512_sub_epi32(_mm512_cvtepu8_epi32(self.sixes[h]), _mm512_set1_epi32(32))
                }
                Heads::FourSteps => {
                    let steps = self.bytes(2 * HALVES, h);
                    _mm512_cvtepu8_epi32(_mm_and_si128(steps, _mm_set1_epi8(15)))
                }
                _ => _mm512_cvtepi8_epi32(self.bytes(HALVES, h)),
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
        unsafe { self.numbers(1) }
    }
}
