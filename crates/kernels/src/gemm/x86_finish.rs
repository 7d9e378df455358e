//! Epilogues by AVX2 for the rows of a tile, with all that the rows share in registers.

use std::arch::x86_64::*;

use super::kernel::NR;

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

/// 8-bit values to be added, which lie as the results do.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    pub(super) first: *const u8,
    /// Turns a byte into its unsigned form.
    pub(super) flip: u8,
    /// Zero point of the unsigned form.
    pub(super) zero: i32,
    pub(super) multiplier: f32,
}

impl ToBytes<'_> {
    /// Finishes and stores rows of sums.
    ///
    /// # Safety
    /// The CPU has AVX2. Results are writable, and residuals readable, in all rows.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn store(&self, sums: &[[i32; NR]], rows: Rows<u8>) {
        // SAFETY: arrays have 16 elements; the caller's promise for the rest.
        unsafe {
            // Loops, not `map`, which is not inlined and would miss the instruction set.
            let mut add = [_mm256_setzero_si256(); 2];
            let mut multiplier = [_mm256_setzero_ps(); 2];
            for i in 0..2 {
                add[i] = _mm256_loadu_si256(self.add.as_ptr().add(i * LANES).cast());
                multiplier[i] = _mm256_loadu_ps(self.multiplier.as_ptr().add(i * LANES));
            }
            let hi = _mm256_set1_ps(self.hi);
            let lo = _mm256_set1_epi16(self.lo as i16);
            let zero_point = _mm256_set1_epi16(self.zero_point as i16);
            for (r, sums) in sums.iter().enumerate() {
                let mut values = [_mm256_setzero_ps(); 2];
                for (i, value) in values.iter_mut().enumerate() {
                    let sum = _mm256_loadu_si256(sums.as_ptr().add(i * LANES).cast());
                    let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, add[i]));
                    *value = _mm256_mul_ps(sum, multiplier[i]);
                }
                if let Some(residual) = &self.residual {
                    let more = residual.read(r * rows.stride, rows.width);
                    for (value, more) in values.iter_mut().zip(more) {
                        *value = _mm256_add_ps(*value, more);
                    }
                }
                // Where one is NaN, the second operand is the result: so NaN stays until the
                // conversion, which makes it the least integer, as all below its range.
                let first = _mm256_cvtps_epi32(_mm256_min_ps(hi, values[0]));
                let second = _mm256_cvtps_epi32(_mm256_min_ps(hi, values[1]));
                let words = _mm256_max_epi16(_mm256_packs_epi32(first, second), lo);
                let words = _mm256_add_epi16(words, zero_point);
                let words = _mm256_and_si256(words, _mm256_set1_epi16(0xff));
                let low = _mm256_castsi256_si128(words);
                let high = _mm256_extracti128_si256::<1>(words);
                // Packing went by 128-bit lanes: columns 0-3, 8-11, then 4-7, 12-15.
                let bytes = _mm_shuffle_epi32::<0b11_01_10_00>(_mm_packus_epi16(low, high));
                let out = rows.out.add(r * rows.stride);
                match rows.width {
                    NR => _mm_storeu_si128(out.cast(), bytes),
                    width => {
                        let mut lanes = [0u8; NR];
                        _mm_storeu_si128(lanes.as_mut_ptr().cast(), bytes);
                        out.copy_from_nonoverlapping(lanes.as_ptr(), width);
                    }
                }
            }
        }
    }
}

impl Bytes {
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
pub(super) struct ToFloats<'a> {
    pub(super) bias: &'a [f32; NR],
    /// Values to be added, which lie as the results do.
    pub(super) residual: Option<*const f32>,
    /// Smallest and largest result.
    pub(super) clamp: Option<(f32, f32)>,
}

impl ToFloats<'_> {
    /// Finishes and stores rows of sums, of [`NR`] columns.
    ///
    /// # Safety
    /// As [`ToBytes::store`], for full rows.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn store(&self, sums: &[[f32; NR]], rows: Rows<f32>) {
        let (lo, hi) = self.clamp.unwrap_or_default();
        let (lo, hi) = (_mm256_set1_ps(lo), _mm256_set1_ps(hi));
        // SAFETY: arrays have 16 elements; the caller's promise for the rest.
        unsafe {
            let bias = self.bias.as_ptr();
            let bias = [_mm256_loadu_ps(bias), _mm256_loadu_ps(bias.add(LANES))];
            for (r, sums) in sums.iter().enumerate() {
                for (i, bias) in bias.into_iter().enumerate() {
                    let at = r * rows.stride + i * LANES;
                    let mut value = _mm256_loadu_ps(sums.as_ptr().add(i * LANES));
                    value = _mm256_add_ps(value, bias);
                    if let Some(residual) = self.residual {
                        value = _mm256_add_ps(value, _mm256_loadu_ps(residual.add(at)));
                    }
                    if self.clamp.is_some() {
                        // The second operand is the result where one is NaN or both are zero.
                        value = _mm256_min_ps(hi, _mm256_max_ps(lo, value));
                    }
                    _mm256_storeu_ps(rows.out.add(at), value);
                }
            }
        }
    }
}
