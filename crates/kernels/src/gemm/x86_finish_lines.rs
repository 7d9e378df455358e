//! Epilogues by AVX-512 for lines of 64 results: a row, two rows of 32 columns or four of 16.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
#[cfg(feature = "avx512-model")]
use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128, _mm256_storeu_si256};

use super::OwnCodes;
use super::fused_add::FusedAdd;
use super::kernel::{NR, prefetch};
use super::output::{Int8Columns, Range, is_tame};
use super::x86_avx512_lines::{Line, LineFactors, Lines, WIDE};
use super::x86_finish::{Bytes, Rows};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;

/// How sums of some panels become 8-bit values: as by [`ToBytes`](super::x86_finish::ToBytes) for
/// each of them.
pub(super) struct LineBytes<'a, const PANELS: usize> {
    pub(super) columns: &'a [Int8Columns; PANELS],
    /// The first panel's.
    pub(super) residual: Option<Bytes>,
}

/// Nothing is added.
const NOTHING: u8 = 0;

/// The same, where the zero point is the least result, and all others of 8 bits may follow.
const WHOLE: u8 = 1;

/// Codes are added to the scaled sums.
const NUMBERS: u8 = 2;

/// Codes are added to the codes of the sums, by a [`FusedAdd`].
const FUSED: u8 = 3;

/// Whether results of this kind have something added.
const fn adds(kind: u8) -> bool {
    kind == NUMBERS || kind == FUSED
}

/// [`LineBytes`] in registers, and where results go.
struct Loaded<const PANELS: usize, const KIND: u8, const SIGNED: bool> {
    add: [__m512i; PANELS],
    multiplier: [__m512; PANELS],
    limits: Limits,
    added: Added,
    /// Packing goes by 128-bit parts, of which the registers of a line have one each.
    by_panels: __m512i,
    out: Rows<u8>,
    /// The first row of what is added, and the distance of two.
    from: (*const u8, usize),
}

/// What becomes of rounded values, in registers.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    zero_point: __m512i,
    lo: __m512i,
    hi: __m512i,
    /// Turns an unsigned result into a signed one.
    flip: __m512i,
}

impl Limits {
    /// The smallest and the greatest result, and the zero point.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(crate) unsafe fn new([lo, hi]: [i32; 2], zero_point: i32) -> Limits {
        // Signed results are made as unsigned ones, 128 higher.
        let shift = if lo < 0 { 128 } else { 0 };
        Limits {
            zero_point: _mm512_set1_epi16((zero_point + shift) as i16),
            lo: _mm512_set1_epi8((lo + shift) as i8),
            hi: _mm512_set1_epi8((hi + shift) as i8),
            flip: _mm512_set1_epi8(shift as i8),
        }
    }

    /// Rounded values as results; in each 128 bits, those of the four registers in turn. `WHOLE` as
    /// for [`Limits::words`].
    ///
    /// # Safety
    /// As [`Limits::new`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(crate) unsafe fn pack<const WHOLE: bool>(self, [a, b, c, d]: [__m512i; WIDE]) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            self.bytes::<WHOLE, true>(self.words::<WHOLE>([a, b]), self.words::<WHOLE>([c, d]))
        }
    }

    /// Two registers of the four of [`Limits::pack`], for [`Limits::bytes`]. `WHOLE` says that the
    /// zero point is the least result and that all others of 8 bits may follow.
    ///
    /// # Safety
    /// As [`Limits::new`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(crate) unsafe fn words<const WHOLE: bool>(&self, [a, b]: [__m512i; 2]) -> __m512i {
        let words = _mm512_packs_epi32(a, b);
        if WHOLE { words } else { _mm512_adds_epi16(words, self.zero_point) }
    }

    /// The results of both halves of a [`Limits::pack`]; `SIGNED` says that they may have a sign.
    ///
    /// # Safety
    /// As [`Limits::new`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(crate) unsafe fn bytes<const WHOLE: bool, const SIGNED: bool>(
        &self,
        low: __m512i,
        high: __m512i,
    ) -> __m512i {
        let mut bytes = _mm512_packus_epi16(low, high);
        if !WHOLE {
            bytes = _mm512_min_epu8(_mm512_max_epu8(bytes, self.lo), self.hi);
        }
        if SIGNED { _mm512_xor_si512(bytes, self.flip) } else { bytes }
    }
}

/// What is added, in registers; of what its kind does not need, zeros.
struct Added {
    zero_point: __m512i,
    multiplier: __m512,
    /// The range of the codes of the sums.
    lo: __m512,
    hi: __m512,
    ours: __m512,
    theirs: __m512,
    offset: __m512,
}

impl<const PANELS: usize> LineBytes<'_, PANELS> {
    /// Multiplies, finishes and stores all rows, if there is a kernel for what is added.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW and VNNI. Results are writable, and residuals readable, in all
    /// rows, which fit; rows of A and panels have as many words as the factors say.
    #[inline(always)]
    pub(super) unsafe fn lines(&self, factors: &LineFactors<PANELS>, rows: Rows<u8>) -> bool {
        let signed = self.residual.as_ref().is_some_and(|bytes| bytes.flip != 0);
        let kind = match &self.residual {
            None if self.columns[0].range.is_whole() => WHOLE,
            None => NOTHING,
            Some(Bytes { own: None, .. }) => NUMBERS,
            Some(Bytes { own: Some(OwnCodes { fused: Some(_), .. }), .. }) => FUSED,
            Some(_) => return false,
        };
        if !self.is_tame(factors.most()) {
            return false;
        }
        // SAFETY: the caller's promise.
        unsafe {
            match (kind, signed) {
                (WHOLE, _) => self.of_kind::<WHOLE, false>(factors, rows),
                (NOTHING, _) => self.of_kind::<NOTHING, false>(factors, rows),
                (NUMBERS, false) => self.of_kind::<NUMBERS, false>(factors, rows),
                (NUMBERS, true) => self.of_kind::<NUMBERS, true>(factors, rows),
                (_, false) => self.of_kind::<FUSED, false>(factors, rows),
                (_, true) => self.of_kind::<FUSED, true>(factors, rows),
            }
        }
        true
    }

    /// Whether all values, with a residual, are below 2^31 in magnitude, where sums are at most
    /// `most`.
    #[inline(always)]
    fn is_tame(&self, most: f32) -> bool {
        let mut largest = 0;
        for columns in self.columns {
            for multiplier in columns.multiplier {
                // Without their sign, floats are ordered as their bits are, NaN behind all.
                largest = largest.max(multiplier.to_bits() & i32::MAX as u32);
            }
        }
        let small = largest < 0.5f32.to_bits();
        (small || self.is_bounded(most)) && self.residual.as_ref().is_none_or(Bytes::is_tame)
    }

    /// The same for products alone, some of whose multipliers are large.
    #[cold]
    fn is_bounded(&self, most: f32) -> bool {
        self.columns.iter().all(|Int8Columns { add, multiplier, .. }| {
            let sum = |add: &i32| most + add.unsigned_abs() as f32;
            add.iter().zip(multiplier).all(|(add, m)| is_tame(*m, sum(add)))
        })
    }

    /// # Safety
    /// As [`LineBytes::lines`]; the values are tame, and what is added is of the kind.
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    unsafe fn of_kind<const KIND: u8, const SIGNED: bool>(
        &self,
        factors: &LineFactors<PANELS>,
        rows: Rows<u8>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { factors.multiply(&self.load::<KIND, SIGNED>(rows)) }
    }

    /// # Safety
    /// The CPU has AVX-512 with BW.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn load<const KIND: u8, const SIGNED: bool>(
        &self,
        out: Rows<u8>,
    ) -> Loaded<PANELS, KIND, SIGNED> {
        const BY_PANELS: [i32; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];
        let mut add = [_mm512_setzero_si512(); PANELS];
        let mut multiplier = [_mm512_setzero_ps(); PANELS];
        for (i, columns) in self.columns.iter().enumerate() {
            // SAFETY: arrays have 16 elements.
            unsafe {
                add[i] = _mm512_loadu_si512(columns.add.as_ptr().cast());
                multiplier[i] = _mm512_loadu_ps(columns.multiplier.as_ptr());
            }
        }
        let Range { lo, hi, zero_point } = self.columns[0].range;
        let limits = [lo as i32 + zero_point, hi as i32 + zero_point];
        let from = self.residual.as_ref().map(|bytes| (bytes.first, bytes.stride));
        // SAFETY: the caller's promise; there are 16 places.
        unsafe {
            Loaded {
                add,
                multiplier,
                limits: Limits::new(limits, zero_point),
                added: Added::load(self.residual),
                by_panels: _mm512_loadu_si512(BY_PANELS.as_ptr().cast()),
                out,
                from: from.unwrap_or((std::ptr::null(), 0)),
            }
        }
    }
}

impl Added {
    /// # Safety
    /// The CPU has AVX-512.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f"))]
    unsafe fn load(bytes: Option<Bytes>) -> Added {
        let (zero, multiplier) = bytes.map_or((0, 0.0), |bytes| {
            // The unsigned form is 128 higher.
            let shift = if bytes.flip == 0 { 0 } else { 128 };
            (bytes.zero - shift, bytes.multiplier)
        });
        let own = bytes.and_then(|bytes| bytes.own).unwrap_or(Bytes::NO_CODES);
        let FusedAdd { ours, theirs, offset } = own.fused.unwrap_or(FusedAdd::NONE);
        Added {
            zero_point: _mm512_set1_epi32(zero),
            multiplier: _mm512_set1_ps(multiplier),
            lo: _mm512_set1_ps(own.lo as f32),
            hi: _mm512_set1_ps(own.hi as f32),
            ours: _mm512_set1_ps(ours),
            theirs: _mm512_set1_ps(theirs),
            offset: _mm512_set1_ps(offset),
        }
    }
}

impl<const PANELS: usize, const KIND: u8, const SIGNED: bool> Lines
    for Loaded<PANELS, KIND, SIGNED>
{
    #[inline(always)]
    fn ahead(&self, row: usize) {
        if adds(KIND) {
            prefetch(self.from.0.wrapping_add(row * self.from.1));
        }
        prefetch(self.out.out.wrapping_add(row * self.out.stride));
    }

    #[inline(always)]
    fn start(&self) -> Line {
        let mut start = [self.add[0]; WIDE];
        for (i, start) in start.iter_mut().enumerate() {
            *start = self.add[i % PANELS];
        }
        start
    }

    #[inline(always)]
    unsafe fn store(&self, row: usize, sums: Line) {
        let out = |i: usize| self.out.out.wrapping_add((row + i) * self.out.stride);
        // SAFETY: the caller's promise.
        unsafe {
            let values = self.values(sums, row);
            let bytes = match KIND {
                WHOLE => self.limits.pack::<true>(values),
                _ => self.limits.pack::<false>(values),
            };
            let bytes = _mm512_permutexvar_epi32(self.by_panels, bytes);
            if PANELS == WIDE {
                return _mm512_storeu_si512(out(0).cast(), bytes);
            }
            if self.out.width < PANELS * NR {
                return self.store_parts(row, bytes);
            }
            if PANELS == 2 {
                _mm256_storeu_si256(out(0).cast(), _mm512_castsi512_si256(bytes));
                _mm256_storeu_si256(out(1).cast(), _mm512_extracti64x4_epi64::<1>(bytes));
                return;
            }
            _mm_storeu_si128(out(0).cast(), _mm512_castsi512_si128(bytes));
            _mm_storeu_si128(out(1).cast(), _mm512_extracti32x4_epi32::<1>(bytes));
            _mm_storeu_si128(out(2).cast(), _mm512_extracti32x4_epi32::<2>(bytes));
            _mm_storeu_si128(out(3).cast(), _mm512_extracti32x4_epi32::<3>(bytes));
        }
    }
}

impl<const PANELS: usize, const KIND: u8, const SIGNED: bool> Loaded<PANELS, KIND, SIGNED> {
    /// Stores rows of a line whose last panel has fewer columns.
    ///
    /// # Safety
    /// As [`Lines::store`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn store_parts(&self, row: usize, bytes: __m512i) {
        let row_len = PANELS * NR;
        let width = (1u64 << self.out.width) - 1;
        for i in 0..WIDE / PANELS {
            // The bytes before those of the row are neither read nor written.
            let out = self.out.out.wrapping_add((row + i) * self.out.stride);
            let out = out.wrapping_sub(i * row_len).cast();
            // SAFETY: the caller's promise.
            unsafe { _mm512_mask_storeu_epi8(out, width << (i * row_len), bytes) }
        }
    }

    /// The codes that are added to panel `panel` of a row: of those behind its columns, zeros.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW; what is added is readable.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn codes(&self, row: usize, panel: usize) -> __m128i {
        let from = self.from.0.wrapping_add(row * self.from.1 + panel * NR);
        let left = self.out.width - panel * NR;
        // SAFETY: the caller's promise.
        unsafe {
            if PANELS == WIDE || left >= NR {
                return _mm_loadu_si128(from.cast());
            }
            _mm512_castsi512_si128(_mm512_maskz_loadu_epi8((1 << left) - 1, from.cast()))
        }
    }

    /// The rounded values of the line that begins with row `row`.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW; what is added is readable.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn values(&self, sums: Line, row: usize) -> Line {
        let mut values = sums;
        for (i, value) in values.iter_mut().enumerate() {
            let (row, panel) = (row + i / PANELS, i % PANELS);
            let mut number = _mm512_mul_ps(_mm512_cvtepi32_ps(*value), self.multiplier[panel]);
            if adds(KIND) {
                // SAFETY: the caller's promise.
                let bytes = unsafe { self.codes(row, panel) };
                let codes = match SIGNED {
                    true => _mm512_cvtepi8_epi32(bytes),
                    false => _mm512_cvtepu8_epi32(bytes),
                };
                number = self.added.add::<KIND>(number, codes);
            }
            *value = _mm512_cvtps_epi32(number);
        }
        values
    }
}

impl Added {
    /// The scaled sums with what is added to them.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f"))]
    fn add<const KIND: u8>(&self, number: __m512, codes: __m512i) -> __m512 {
        if KIND == NUMBERS {
            let centred = _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, self.zero_point));
            return _mm512_add_ps(number, _mm512_mul_ps(centred, self.multiplier));
        }
        // The second operand is the result where one is NaN.
        let number = _mm512_min_ps(_mm512_max_ps(number, self.lo), self.hi);
        // To whole numbers, half to even.
        let code = _mm512_roundscale_ps::<0>(number);
        let theirs = _mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), self.theirs, self.offset);
        _mm512_fmadd_ps(code, self.ours, theirs)
    }
}
