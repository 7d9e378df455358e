//! Epilogues by AVX2 for the rows of a tile, with all that the rows share in registers.

use std::arch::x86_64::*;

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
    /// Results per row, at most [`NR`].
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

/// [`ToBytes`] in registers.
struct Loaded<'a> {
    add: [__m256i; 2],
    multiplier: [__m256; 2],
    residual: Option<&'a Bytes>,
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
            if loaded.is_tame() {
                match rows.width {
                    NR => self.store_tame::<NR>(&loaded, sums, rows),
                    LANES => self.store_tame::<LANES>(&loaded, sums, rows),
                    _ => self.store_tame::<0>(&loaded, sums, rows),
                }
            } else {
                self.store_any(&loaded, sums, rows);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load(&self) -> Loaded<'_> {
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
        Loaded { add, multiplier, residual: self.residual.as_ref() }
    }

    /// Two rows at a time, where no value can leave 32 bits: then the conversions saturate as the
    /// clamp would.
    ///
    /// # Safety
    /// As [`ToBytes::store`]; `WIDTH` is the width, or 0.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn store_tame<const WIDTH: usize>(
        &self,
        loaded: &Loaded<'_>,
        sums: &[[i32; NR]],
        rows: Rows<u8>,
    ) {
        // Signed results are made as unsigned ones, 128 higher.
        let shift = if self.lo as i32 + self.zero_point < 0 { 128 } else { 0 };
        let zero = _mm256_set1_epi16((self.zero_point + shift) as i16);
        let byte = |limit: f32| _mm256_set1_epi8((limit as i32 + self.zero_point + shift) as i8);
        let (lo, hi, flip) = (byte(self.lo), byte(self.hi), _mm256_set1_epi8(shift as i8));
        let by_rows = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        for (pair, sums) in sums.chunks(2).enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let first = loaded.words(&sums[0], 2 * pair, rows.width);
                let second = match sums.get(1) {
                    Some(sums) => loaded.words(sums, 2 * pair + 1, rows.width),
                    None => first,
                };
                let first = _mm256_adds_epi16(first, zero);
                let second = _mm256_adds_epi16(second, zero);
                let bytes = _mm256_packus_epi16(first, second);
                let bytes = _mm256_min_epu8(_mm256_max_epu8(bytes, lo), hi);
                // Packing went by 128-bit lanes.
                let bytes = _mm256_permutevar8x32_epi32(_mm256_xor_si256(bytes, flip), by_rows);
                let width = if WIDTH == 0 { rows.width } else { WIDTH };
                let out = rows.out.add(2 * pair * rows.stride);
                store_bytes(_mm256_castsi256_si128(bytes), out, width);
                if sums.len() == 2 {
                    let second = _mm256_extracti128_si256::<1>(bytes);
                    store_bytes(second, out.add(rows.stride), width);
                }
            }
        }
    }

    /// # Safety
    /// As [`ToBytes::store`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn store_any(&self, loaded: &Loaded<'_>, sums: &[[i32; NR]], rows: Rows<u8>) {
        let hi = _mm256_set1_ps(self.hi);
        let lo = _mm256_set1_epi16(self.lo as i16);
        let zero_point = _mm256_set1_epi16(self.zero_point as i16);
        for (r, sums) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let [first, second] = loaded.values(sums, r, rows.width);
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

impl Loaded<'_> {
    /// Whether all values, with a residual, are below 2^31 in magnitude whatever the sums are.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn is_tame(&self) -> bool {
        let most = _mm256_set1_ps(0.5);
        let magnitude = |m| _mm256_andnot_ps(_mm256_set1_ps(-0.0), m);
        let [first, second] = self.multiplier;
        let first = _mm256_cmp_ps::<_CMP_LT_OQ>(magnitude(first), most);
        let second = _mm256_cmp_ps::<_CMP_LT_OQ>(magnitude(second), most);
        let small = _mm256_movemask_ps(_mm256_and_ps(first, second)) == 0xff;
        small && self.residual.is_none_or(Bytes::is_tame)
    }

    /// The scaled sums of row `row`, with its residual.
    ///
    /// # Safety
    /// As [`ToBytes::store`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn values(&self, sums: &[i32; NR], row: usize, width: usize) -> [__m256; 2] {
        let mut values = [_mm256_setzero_ps(); 2];
        for (i, value) in values.iter_mut().enumerate() {
            // SAFETY: the array has 16 elements.
            let sum = unsafe { _mm256_loadu_si256(sums.as_ptr().add(i * LANES).cast()) };
            let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, self.add[i]));
            *value = _mm256_mul_ps(sum, self.multiplier[i]);
        }
        if let Some(residual) = self.residual {
            // SAFETY: the caller's promise.
            let more = unsafe { residual.read(row * residual.stride, width) };
            match &residual.own {
                None => {
                    for (value, more) in values.iter_mut().zip(more) {
                        *value = _mm256_add_ps(*value, more);
                    }
                }
                Some(own) => {
                    for (value, more) in values.iter_mut().zip(more) {
                        *value = add_coded(own, *value, more);
                    }
                }
            }
        }
        values
    }

    /// As [`Loaded::values`], rounded: columns 0-3, 8-11, then 4-7, 12-15.
    ///
    /// # Safety
    /// As [`ToBytes::store`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn words(&self, sums: &[i32; NR], row: usize, width: usize) -> __m256i {
        // SAFETY: the caller's promise.
        let [first, second] = unsafe { self.values(sums, row, width) };
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

/// The numbers that the codes of `value` stand for, plus `more`, in steps of the output.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_coded(own: &OwnCodes, value: __m256, more: __m256) -> __m256 {
    // The second operand is the result where one is NaN.
    let value = _mm256_max_ps(value, _mm256_set1_ps(own.lo as f32));
    let value = _mm256_min_ps(value, _mm256_set1_ps(own.hi as f32));
    let code = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value);
    let number = _mm256_mul_ps(code, _mm256_set1_ps(own.scale));
    _mm256_div_ps(_mm256_add_ps(number, more), _mm256_set1_ps(own.step))
}

impl Bytes {
    /// Whether results stay below 2^31 in magnitude, where the sums by themselves do.
    fn is_tame(&self) -> bool {
        match &self.own {
            None => self.multiplier.abs() < 1e6,
            Some(own) => (self.multiplier.abs() + own.scale.abs()) / own.step.abs() < 1e6,
        }
    }

    /// `width` values from `start` on, as numbers.
    ///
    /// # Safety
    /// The CPU has AVX2, and the values are readable.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn read(&self, start: usize, width: usize) -> [__m256; 2] {
        let mut lanes = [0u8; NR];
        // SAFETY: the caller's promise; `lanes` has 16 bytes.
        let bytes = unsafe {
            let from = self.first.add(start);
            match width {
                NR => _mm_loadu_si128(from.cast()),
                width => {
                    lanes.as_mut_ptr().copy_from_nonoverlapping(from, width);
                    _mm_loadu_si128(lanes.as_ptr().cast())
                }
            }
        };
        let bytes = _mm_xor_si128(bytes, _mm_set1_epi8(self.flip.cast_signed()));
        let zero = _mm256_set1_epi32(self.zero);
        let halves = [bytes, _mm_srli_si128::<8>(bytes)];
        let mut numbers = [_mm256_setzero_ps(); 2];
        for (number, half) in numbers.iter_mut().zip(halves) {
            let centred = _mm256_sub_epi32(_mm256_cvtepu8_epi32(half), zero);
            *number = _mm256_mul_ps(_mm256_cvtepi32_ps(centred), _mm256_set1_ps(self.multiplier));
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
            let mut value = _mm256_add_ps(sums, bias);
            if let Some(residual) = self.residual {
                value = _mm256_add_ps(value, _mm256_loadu_ps(residual.add(at)));
            }
            if self.is_clamped {
                // The second operand is the result where one is NaN or both are zero.
                value = _mm256_min_ps(self.hi, _mm256_max_ps(self.lo, value));
            }
            _mm256_storeu_ps(self.out.add(at), value);
        }
    }
}
