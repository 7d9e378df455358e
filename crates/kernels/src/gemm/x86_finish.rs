//! Epilogues by AVX2 for the rows of a tile, with all that the rows share in registers.

use std::arch::x86_64::*;
use std::ptr;

use super::fused_add::FusedAdd;
use super::kernel::NR;
use super::{Clamp, OwnCodes};

/// Lanes of a register.
const LANES: usize = NR / 2;

/// Where rows of results go.
#[derive(Clone, Copy)]
pub(super) struct Rows<T> {
    /// The first result of the first row.
    pub(super) out: *mut T,
    /// From one row to the next, in elements.
    pub(super) stride: usize,
    /// Results per row: of one panel, or of those that make a line.
    pub(super) width: usize,
}

/// How 16 sums become 8-bit values; see [`super::Requantize`].
pub(super) struct ToBytes<'a> {
    /// Bias and compensation.
    pub(super) add: &'a [i32; NR],
    pub(super) multiplier: &'a [f32; NR],
    pub(super) residual: Option<Bytes>,
    /// Limits before the zero point is added: integers below 2^15 in magnitude.
    pub(super) lo: f32,
    pub(super) hi: f32,
    pub(super) zero_point: i32,
}

/// 8-bit values to be added.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    pub(super) first: *const u8,
    /// From one row to the next.
    pub(super) stride: usize,
    /// Turns a byte into its unsigned form.
    pub(super) flip: u8,
    /// Zero point of the unsigned form.
    pub(super) zero: i32,
    pub(super) multiplier: f32,
    pub(super) own: Option<OwnCodes>,
}

/// [`ToBytes`] in registers; of what its kind does not need, zeros.
struct Loaded {
    kind: u8,
    add: [__m256i; 2],
    multiplier: [__m256; 2],
    residual: Added,
    own: Coded,
}

/// What is added, as [`Loaded::kind`] says: nothing.
const NOTHING: u8 = 0;

/// [`Bytes`] to the scaled sums.
const NUMBERS: u8 = 1;

/// [`Bytes`] to the codes of the sums: [`OwnCodes`].
const CODES: u8 = 2;

/// As [`NUMBERS`], signed.
const SIGNED_NUMBERS: u8 = 3;

/// As [`CODES`], signed.
const SIGNED_CODES: u8 = 4;

/// As [`CODES`], by a [`FusedAdd`].
const FUSED: u8 = 5;

/// As [`FUSED`], signed.
const SIGNED_FUSED: u8 = 6;

/// [`Bytes`] in registers.
struct Added {
    first: *const u8,
    stride: usize,
    zero_point: __m256i,
    multiplier: __m256,
}

/// [`OwnCodes`] in registers.
struct Coded {
    lo: __m256,
    hi: __m256,
    scale: __m256,
    step: __m256,
    fused: Fused,
}

/// [`FusedAdd`] in registers.
struct Fused {
    ours: __m256,
    theirs: __m256,
    offset: __m256,
}

impl ToBytes<'_> {
    /// Finishes and stores rows of sums.
    ///
    /// # Safety
    /// The CPU has AVX2. Results are writable, and residuals readable, in all rows.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn store(&self, sums: &[[i32; NR]], rows: Rows<u8>) {
        // SAFETY: the caller's promise.
        unsafe {
            let loaded = self.load();
            if !self.is_tame(&loaded) {
                return self.store_any(&loaded, sums, rows);
            }
            match (loaded.kind, rows.width) {
                (NOTHING, NR) => self.store_tame::<NR, NOTHING>(&loaded, sums, rows),
                (NOTHING, LANES) => self.store_tame::<LANES, NOTHING>(&loaded, sums, rows),
                (NOTHING, _) => self.store_tame::<0, NOTHING>(&loaded, sums, rows),
                (NUMBERS, NR) => self.store_tame::<NR, NUMBERS>(&loaded, sums, rows),
                (CODES, NR) => self.store_tame::<NR, CODES>(&loaded, sums, rows),
                (FUSED, NR) => self.store_tame::<NR, FUSED>(&loaded, sums, rows),
                (SIGNED_FUSED, NR) => self.store_tame::<NR, SIGNED_FUSED>(&loaded, sums, rows),
                (SIGNED_NUMBERS, NR) => self.store_tame::<NR, SIGNED_NUMBERS>(&loaded, sums, rows),
                (SIGNED_CODES, NR) => self.store_tame::<NR, SIGNED_CODES>(&loaded, sums, rows),
                (NUMBERS, _) => self.store_tame::<0, NUMBERS>(&loaded, sums, rows),
                (CODES, _) => self.store_tame::<0, CODES>(&loaded, sums, rows),
                (FUSED, _) => self.store_tame::<0, FUSED>(&loaded, sums, rows),
                (SIGNED_FUSED, _) => self.store_tame::<0, SIGNED_FUSED>(&loaded, sums, rows),
                (SIGNED_NUMBERS, _) => self.store_tame::<0, SIGNED_NUMBERS>(&loaded, sums, rows),
                (_, _) => self.store_tame::<0, SIGNED_CODES>(&loaded, sums, rows),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load(&self) -> Loaded {
        // Loops, not `map`, which is not inlined and would miss the instruction set.
        let mut add = [_mm256_setzero_si256(); 2];
        let mut multiplier = [_mm256_setzero_ps(); 2];
        for i in 0..2 {
            // SAFETY: arrays have 16 elements.
            unsafe {
                add[i] = _mm256_loadu_si256(self.add.as_ptr().add(i * LANES).cast());
                multiplier[i] = _mm256_loadu_ps(self.multiplier.as_ptr().add(i * LANES));
            }
        }
        let residual = self.residual.unwrap_or(Bytes::NONE);
        let own = residual.own.unwrap_or(Bytes::NO_CODES);
        let fused = own.fused.is_some();
        let kind = match (self.residual, residual.own, residual.flip) {
            (None, _, _) => NOTHING,
            (_, None, 0) => NUMBERS,
            (_, Some(_), 0) if fused => FUSED,
            (_, Some(_), 0) => CODES,
            (_, None, _) => SIGNED_NUMBERS,
            (_, Some(_), _) if fused => SIGNED_FUSED,
            (_, Some(_), _) => SIGNED_CODES,
        };
        Loaded { kind, add, multiplier, residual: residual.load(), own: Coded::load(own) }
    }

    /// Whether all values, with a residual, are below 2^31 in magnitude whatever the sums are.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn is_tame(&self, loaded: &Loaded) -> bool {
        let most = _mm256_set1_ps(0.5);
        let magnitude = |m| _mm256_andnot_ps(_mm256_set1_ps(-0.0), m);
        let [first, second] = loaded.multiplier;
        let first = _mm256_cmp_ps::<_CMP_LT_OQ>(magnitude(first), most);
        let second = _mm256_cmp_ps::<_CMP_LT_OQ>(magnitude(second), most);
        let small = _mm256_movemask_ps(_mm256_and_ps(first, second)) == 0xff;
        small && self.residual.as_ref().is_none_or(Bytes::is_tame)
    }

    /// Two rows at a time, where no value can leave 32 bits: then the conversions saturate as the
    /// clamp would.
    ///
    /// # Safety
    /// As [`ToBytes::store`]; `WIDTH` is the width, or 0; the values are tame and of the kind.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn store_tame<const WIDTH: usize, const KIND: u8>(
        &self,
        loaded: &Loaded,
        sums: &[[i32; NR]],
        rows: Rows<u8>,
    ) {
        // Signed results are made as unsigned ones, 128 higher.
        let shift = if self.lo as i32 + self.zero_point < 0 { 128 } else { 0 };
        let zero = _mm256_set1_epi16((self.zero_point + shift) as i16);
        let byte = |limit: f32| _mm256_set1_epi8((limit as i32 + self.zero_point + shift) as i8);
        let (lo, hi, flip) = (byte(self.lo), byte(self.hi), _mm256_set1_epi8(shift as i8));
        let by_rows = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let pack = |first, second| {
            let (first, second) = (_mm256_adds_epi16(first, zero), _mm256_adds_epi16(second, zero));
            let bytes = _mm256_packus_epi16(first, second);
            let bytes = _mm256_min_epu8(_mm256_max_epu8(bytes, lo), hi);
            // Packing went by 128-bit lanes.
            _mm256_permutevar8x32_epi32(_mm256_xor_si256(bytes, flip), by_rows)
        };
        let width = if WIDTH == 0 { rows.width } else { WIDTH };
        let (mut out, mut from) = (rows.out, loaded.residual.first);
        let (pairs, last) = sums.as_chunks::<2>();
        // The number of instructions is what counts here, so pointers go along.
        for [first, second] in pairs {
            let out_below = out.wrapping_add(rows.stride);
            let below = from.wrapping_add(loaded.residual.stride);
            // SAFETY: the caller's promise.
            unsafe {
                let first = loaded.words::<KIND>(first, from, width);
                let second = loaded.words::<KIND>(second, below, width);
                let bytes = pack(first, second);
                store_bytes(_mm256_castsi256_si128(bytes), out, width);
                store_bytes(_mm256_extracti128_si256::<1>(bytes), out_below, width);
            }
            out = out_below.wrapping_add(rows.stride);
            from = below.wrapping_add(loaded.residual.stride);
        }
        if let [last] = last {
            // SAFETY: the caller's promise.
            unsafe {
                let words = loaded.words::<KIND>(last, from, width);
                store_bytes(_mm256_castsi256_si128(pack(words, words)), out, width);
            }
        }
    }

    /// # Safety
    /// As [`ToBytes::store`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn store_any(&self, loaded: &Loaded, sums: &[[i32; NR]], rows: Rows<u8>) {
        let hi = _mm256_set1_ps(self.hi);
        let lo = _mm256_set1_epi16(self.lo as i16);
        let zero_point = _mm256_set1_epi16(self.zero_point as i16);
        for (r, sums) in sums.iter().enumerate() {
            let from = loaded.residual.first.wrapping_add(r * loaded.residual.stride);
            // SAFETY: the caller's promise.
            unsafe {
                let [first, second] = match loaded.kind {
                    NOTHING => loaded.values::<NOTHING>(sums, from, rows.width),
                    NUMBERS => loaded.values::<NUMBERS>(sums, from, rows.width),
                    CODES => loaded.values::<CODES>(sums, from, rows.width),
                    SIGNED_NUMBERS => loaded.values::<SIGNED_NUMBERS>(sums, from, rows.width),
                    FUSED => loaded.values::<FUSED>(sums, from, rows.width),
                    SIGNED_FUSED => loaded.values::<SIGNED_FUSED>(sums, from, rows.width),
                    _ => loaded.values::<SIGNED_CODES>(sums, from, rows.width),
                };
                // Where one is NaN, the second operand is the result: so NaN stays until the
                // conversion, which makes it the least integer, as all below its range.
                let first = _mm256_cvtps_epi32(_mm256_min_ps(hi, first));
                let second = _mm256_cvtps_epi32(_mm256_min_ps(hi, second));
                let words = _mm256_max_epi16(_mm256_packs_epi32(first, second), lo);
                let words = _mm256_add_epi16(words, zero_point);
                let words = _mm256_and_si256(words, _mm256_set1_epi16(0xff));
                let low = _mm256_castsi256_si128(words);
                let high = _mm256_extracti128_si256::<1>(words);
                // Packing went by 128-bit lanes: columns 0-3, 8-11, then 4-7, 12-15.
                let bytes = _mm_shuffle_epi32::<0b11_01_10_00>(_mm_packus_epi16(low, high));
                store_bytes(bytes, rows.out.add(r * rows.stride), rows.width);
            }
        }
    }
}

impl Loaded {
    /// The scaled sums of a row with its residual, which begins at `from`.
    ///
    /// # Safety
    /// As [`ToBytes::store`], and they are of the kind.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn values<const KIND: u8>(
        &self,
        sums: &[i32; NR],
        from: *const u8,
        width: usize,
    ) -> [__m256; 2] {
        let mut values = [_mm256_setzero_ps(); 2];
        for (i, value) in values.iter_mut().enumerate() {
            // SAFETY: the array has 16 elements.
            let sum = unsafe { _mm256_loadu_si256(sums.as_ptr().add(i * LANES).cast()) };
            let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, self.add[i]));
            *value = _mm256_mul_ps(sum, self.multiplier[i]);
        }
        if KIND != NOTHING {
            // SAFETY: the caller's promise.
            let more = unsafe { self.residual.read::<KIND>(&self.own.fused, from, width) };
            for (value, more) in values.iter_mut().zip(more) {
                *value = match KIND {
                    NUMBERS | SIGNED_NUMBERS => _mm256_add_ps(*value, more),
                    FUSED | SIGNED_FUSED => self.own.fused_sum(*value, more),
                    _ => self.own.sum(*value, more),
                };
            }
        }
        values
    }

    /// As [`Loaded::values`], rounded: columns 0-3, 8-11, then 4-7, 12-15.
    ///
    /// # Safety
    /// As [`Loaded::values`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn words<const KIND: u8>(
        &self,
        sums: &[i32; NR],
        from: *const u8,
        width: usize,
    ) -> __m256i {
        // SAFETY: the caller's promise.
        let [first, second] = unsafe { self.values::<KIND>(sums, from, width) };
        _mm256_packs_epi32(_mm256_cvtps_epi32(first), _mm256_cvtps_epi32(second))
    }
}

/// Stores the first `width` bytes.
///
/// # Safety
/// The CPU has AVX2, and they are writable.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn store_bytes(bytes: __m128i, out: *mut u8, width: usize) {
    // SAFETY: the caller's promise; `lanes` has 16 bytes.
    unsafe {
        match width {
            NR => _mm_storeu_si128(out.cast(), bytes),
            LANES => _mm_storel_epi64(out.cast(), bytes),
            width => {
                let mut lanes = [0u8; NR];
                _mm_storeu_si128(lanes.as_mut_ptr().cast(), bytes);
                out.copy_from_nonoverlapping(lanes.as_ptr(), width);
            }
        }
    }
}

impl Coded {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(own: OwnCodes) -> Coded {
        Coded {
            lo: _mm256_set1_ps(own.lo as f32),
            hi: _mm256_set1_ps(own.hi as f32),
            scale: _mm256_set1_ps(own.scale),
            step: _mm256_set1_ps(own.step),
            fused: Fused::load(own.fused),
        }
    }

    /// The numbers that the codes of `value` stand for, plus `more`, in steps of the output.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn sum(&self, value: __m256, more: __m256) -> __m256 {
        let number = _mm256_mul_ps(self.code(value), self.scale);
        _mm256_div_ps(_mm256_add_ps(number, more), self.step)
    }

    /// As [`Coded::sum`], where `more` is in steps of the output already.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn fused_sum(&self, value: __m256, more: __m256) -> __m256 {
        _mm256_fmadd_ps(self.code(value), self.fused.ours, more)
    }

    /// The code of a value, less the zero point.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn code(&self, value: __m256) -> __m256 {
        // The second operand is the result where one is NaN.
        let value = _mm256_min_ps(_mm256_max_ps(value, self.lo), self.hi);
        _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value)
    }
}

impl Fused {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(fused: Option<FusedAdd>) -> Fused {
        let FusedAdd { ours, theirs, offset } = fused.unwrap_or(FusedAdd::NONE);
        Fused {
            ours: _mm256_set1_ps(ours),
            theirs: _mm256_set1_ps(theirs),
            offset: _mm256_set1_ps(offset),
        }
    }
}

impl Bytes {
    /// Where nothing is added.
    const NONE: Bytes =
        Bytes { first: ptr::null(), stride: 0, flip: 0, zero: 0, multiplier: 0.0, own: None };

    /// Where no codes are added.
    pub(super) const NO_CODES: OwnCodes =
        OwnCodes { lo: 0, hi: 0, scale: 0.0, step: 1.0, fused: None };

    /// Whether results stay below 2^31 in magnitude, where the sums by themselves do.
    pub(super) fn is_tame(&self) -> bool {
        match &self.own {
            None => self.multiplier.abs() < 1e6,
            Some(own) => (self.multiplier.abs() + own.scale.abs()) / own.step.abs() < 1e6,
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn load(&self) -> Added {
        // The unsigned form is 128 higher.
        let zero_point = if self.flip == 0 { self.zero } else { self.zero - 128 };
        Added {
            first: self.first,
            stride: self.stride,
            zero_point: _mm256_set1_epi32(zero_point),
            multiplier: _mm256_set1_ps(self.multiplier),
        }
    }
}

impl Added {
    /// `width` values from `from` on, as numbers.
    ///
    /// # Safety
    /// The CPU has AVX2, and the values are readable, and signed or not as the kind says.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn read<const KIND: u8>(
        &self,
        fused: &Fused,
        from: *const u8,
        width: usize,
    ) -> [__m256; 2] {
        let mut lanes = [0u8; NR];
        let mut numbers = [_mm256_setzero_ps(); 2];
        // SAFETY: the caller's promise; `lanes` has 16 bytes.
        unsafe {
            let mut from = from;
            if width < NR {
                lanes.as_mut_ptr().copy_from_nonoverlapping(from, width);
                from = lanes.as_ptr();
            }
            for (i, number) in numbers.iter_mut().enumerate() {
                let bytes = _mm_loadl_epi64(from.add(i * LANES).cast());
                let codes = match KIND {
                    NUMBERS | CODES | FUSED => _mm256_cvtepu8_epi32(bytes),
                    _ => _mm256_cvtepi8_epi32(bytes),
                };
                if matches!(KIND, FUSED | SIGNED_FUSED) {
                    let code = _mm256_cvtepi32_ps(codes);
                    *number = _mm256_fmadd_ps(code, fused.theirs, fused.offset);
                    continue;
                }
                let centred = _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, self.zero_point));
                *number = _mm256_mul_ps(centred, self.multiplier);
            }
        }
        numbers
    }
}

/// How f32 sums become results; see [`super::Epilogue`].
pub(super) struct ToFloats {
    /// Values to be added, which lie as the results do.
    residual: Option<*const f32>,
    is_clamped: bool,
    lo: __m256,
    hi: __m256,
    out: *mut f32,
}

impl ToFloats {
    /// Results go to `out`; the residual begins at the place that belongs to it.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[inline(always)]
    pub(super) unsafe fn new(
        residual: Option<*const f32>,
        clamp: Option<Clamp>,
        out: *mut f32,
    ) -> Self {
        let Clamp { lo, hi } = clamp.unwrap_or(Clamp::RELU);
        // SAFETY: the caller's promise.
        let (lo, hi) = unsafe { (_mm256_set1_ps(lo), _mm256_set1_ps(hi)) };
        ToFloats { residual, is_clamped: clamp.is_some(), lo, hi, out }
    }

    /// Finishes and stores eight sums, `at` elements behind the first result.
    ///
    /// # Safety
    /// The CPU has AVX2. Results are writable there, and residuals readable.
    #[inline(always)]
    pub(super) unsafe fn store(&self, sums: __m256, bias: __m256, at: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let residual = self.residual.map(|residual| _mm256_loadu_ps(residual.add(at)));
            _mm256_storeu_ps(self.out.add(at), self.finish(sums, bias, residual));
        }
    }

    /// As [`ToFloats::store`], of the lanes of `mask` alone.
    ///
    /// # Safety
    /// As there; other lanes are neither read nor written.
    #[inline(always)]
    pub(super) unsafe fn store_some(&self, sums: __m256, bias: __m256, at: usize, mask: __m256i) {
        // SAFETY: the caller's promise.
        unsafe {
            let residual = self.residual.map(|from| _mm256_maskload_ps(from.add(at), mask));
            _mm256_maskstore_ps(self.out.add(at), mask, self.finish(sums, bias, residual));
        }
    }

    /// What is stored.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[inline(always)]
    unsafe fn finish(&self, sums: __m256, bias: __m256, residual: Option<__m256>) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let mut value = _mm256_add_ps(sums, bias);
            if let Some(residual) = residual {
                value = _mm256_add_ps(value, residual);
            }
            if self.is_clamped {
                // The second operand is the result where one is NaN or both are zero.
                value = _mm256_min_ps(self.hi, _mm256_max_ps(self.lo, value));
            }
            value
        }
    }
}

/// A mask of the first `count` lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn first_lanes(count: usize) -> __m256i {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
}
