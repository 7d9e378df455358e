//! Epilogues by AVX-512 for 64 columns side by side: a cache line of results at a time.

#[cfg(feature = "avx512-model")]
use std::arch::x86_64::_mm_loadu_si128;
#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::OwnCodes;
use super::driver::WIDE;
use super::fused_add::FusedAdd;
use super::kernel::NR;
use super::x86_finish::{Bytes, Rows, ToBytes};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;

/// How sums of [`WIDE`] panels become 8-bit values: as [`ToBytes`] for each of them.
pub(super) struct WideBytes<'a> {
    pub(super) add: [&'a [i32; NR]; WIDE],
    pub(super) multiplier: [&'a [f32; NR]; WIDE],
    /// The first panel's.
    pub(super) residual: Option<Bytes>,
    pub(super) lo: f32,
    pub(super) hi: f32,
    pub(super) zero_point: i32,
}

/// Nothing is added.
const NOTHING: u8 = 0;

/// Codes are added to the scaled sums.
const NUMBERS: u8 = 1;

/// Codes are added to the codes of the sums, by a [`FusedAdd`].
const FUSED: u8 = 2;

/// [`WideBytes`] in registers.
struct Loaded {
    add: [__m512i; WIDE],
    multiplier: [__m512; WIDE],
    limits: Limits,
    added: Added,
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

    /// Rounded values as results; in each 128 bits, those of the four registers in turn.
    ///
    /// # Safety
    /// As [`Limits::new`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(crate) unsafe fn pack(self, [a, b, c, d]: [__m512i; WIDE]) -> __m512i {
        let low = _mm512_adds_epi16(_mm512_packs_epi32(a, b), self.zero_point);
        let high = _mm512_adds_epi16(_mm512_packs_epi32(c, d), self.zero_point);
        let bytes = _mm512_packus_epi16(low, high);
        let bytes = _mm512_min_epu8(_mm512_max_epu8(bytes, self.lo), self.hi);
        _mm512_xor_si512(bytes, self.flip)
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

impl WideBytes<'_> {
    /// Finishes and stores rows of sums.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW. Results are writable, and residuals readable, in all rows.
    #[inline(always)]
    pub(super) unsafe fn store(&self, sums: [&[[i32; NR]]; WIDE], rows: Rows<u8>) {
        let kind = match &self.residual {
            None => Some(NOTHING),
            Some(Bytes { own: None, .. }) => Some(NUMBERS),
            Some(Bytes { own: Some(OwnCodes { fused: Some(_), .. }), .. }) => Some(FUSED),
            Some(_) => None,
        };
        let signed = self.residual.as_ref().is_some_and(|bytes| bytes.flip != 0);
        // SAFETY: the caller's promise.
        unsafe {
            match (kind.filter(|_| self.is_tame()), signed) {
                (None, _) => self.by_panels(sums, rows),
                (Some(NOTHING), _) => self.lines::<NOTHING, false>(sums, rows),
                (Some(NUMBERS), false) => self.lines::<NUMBERS, false>(sums, rows),
                (Some(NUMBERS), true) => self.lines::<NUMBERS, true>(sums, rows),
                (Some(_), false) => self.lines::<FUSED, false>(sums, rows),
                (Some(_), true) => self.lines::<FUSED, true>(sums, rows),
            }
        }
    }

    /// Whether all values, with a residual, are below 2^31 in magnitude whatever the sums are.
    #[inline(always)]
    fn is_tame(&self) -> bool {
        let mut most = 0;
        for multiplier in self.multiplier {
            for multiplier in multiplier {
                // Without their sign, floats are ordered as their bits are, NaN behind all.
                most = most.max(multiplier.to_bits() & i32::MAX as u32);
            }
        }
        most < 0.5f32.to_bits() && self.residual.as_ref().is_none_or(Bytes::is_tame)
    }

    /// # Safety
    /// As [`WideBytes::store`].
    #[inline(never)]
    unsafe fn by_panels(&self, sums: [&[[i32; NR]]; WIDE], rows: Rows<u8>) {
        let &WideBytes { lo, hi, zero_point, .. } = self;
        for (panel, sums) in sums.into_iter().enumerate() {
            let at = panel * NR;
            let residual =
                self.residual.map(|bytes| Bytes { first: bytes.first.wrapping_add(at), ..bytes });
            let (add, multiplier) = (self.add[panel], self.multiplier[panel]);
            let to = ToBytes { add, multiplier, residual, lo, hi, zero_point };
            let out = rows.out.wrapping_add(at);
            // SAFETY: the caller's promise.
            unsafe { to.store(sums, Rows { out, width: NR, ..rows }) }
        }
    }

    /// # Safety
    /// As [`WideBytes::store`]; the values are tame, and what is added is of the kind.
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn lines<const KIND: u8, const SIGNED: bool>(
        &self,
        sums: [&[[i32; NR]]; WIDE],
        rows: Rows<u8>,
    ) {
        // Packing goes by 128-bit parts, of which the panels have one each.
        const BY_PANELS: [i32; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];
        // SAFETY: there are 16 of them.
        let by_panels = unsafe { _mm512_loadu_si512(BY_PANELS.as_ptr().cast()) };
        // SAFETY: the caller's promise.
        let loaded = unsafe { self.load() };
        let bytes = self.residual.as_ref().map(|bytes| (bytes.first, bytes.stride));
        let (mut from, stride) = bytes.unwrap_or((std::ptr::null(), 0));
        let mut out = rows.out;
        for row in 0..sums[0].len() {
            // SAFETY: the caller's promise.
            unsafe {
                let values = loaded.values::<KIND, SIGNED>(&sums, row, from);
                let bytes = loaded.limits.pack(values);
                _mm512_storeu_si512(out.cast(), _mm512_permutexvar_epi32(by_panels, bytes));
            }
            out = out.wrapping_add(rows.stride);
            from = from.wrapping_add(stride);
        }
    }

    /// # Safety
    /// The CPU has AVX-512 with BW.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn load(&self) -> Loaded {
        let mut add = [_mm512_setzero_si512(); WIDE];
        let mut multiplier = [_mm512_setzero_ps(); WIDE];
        for i in 0..WIDE {
            // SAFETY: arrays have 16 elements.
            unsafe {
                add[i] = _mm512_loadu_si512(self.add[i].as_ptr().cast());
                multiplier[i] = _mm512_loadu_ps(self.multiplier[i].as_ptr());
            }
        }
        let integer = |limit: f32| limit as i32 + self.zero_point;
        let limits = [integer(self.lo), integer(self.hi)];
        Loaded {
            add,
            multiplier,
            // SAFETY: the caller's promise.
            limits: unsafe { Limits::new(limits, self.zero_point) },
            // SAFETY: the caller's promise.
            added: unsafe { Added::load(self.residual) },
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

impl Loaded {
    /// The rounded values of a row, panel by panel; what is added begins at `from`.
    ///
    /// # Safety
    /// As [`WideBytes::lines`].
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn values<const KIND: u8, const SIGNED: bool>(
        &self,
        sums: &[&[[i32; NR]]; WIDE],
        row: usize,
        from: *const u8,
    ) -> [__m512i; WIDE] {
        let mut values = [_mm512_setzero_si512(); WIDE];
        for (panel, value) in values.iter_mut().enumerate() {
            // SAFETY: the caller's promise: all panels have the row.
            let sum = unsafe { _mm512_loadu_si512(sums[panel].as_ptr().add(row).cast()) };
            let number = _mm512_cvtepi32_ps(_mm512_add_epi32(sum, self.add[panel]));
            let mut number = _mm512_mul_ps(number, self.multiplier[panel]);
            if KIND != NOTHING {
                // SAFETY: the caller's promise.
                let bytes = unsafe { _mm_loadu_si128(from.add(panel * NR).cast()) };
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
