//! The AVX-512 intrinsics that the kernels use, by their definition in plain Rust.
//!
//! Most machines that develop or test this crate have no AVX-512. With the feature `avx512-model`,
//! the code for it is compiled against these functions instead of the processor's instructions,
//! wherever there is AVX2: every test that loops over the instruction sets then runs the same
//! tiles, packing and choices that a processor with VNNI would. It is slow, and for tests only.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, `VPDPBUSD`,
//! `VPDPWSSD` and `VFMADD231PS`.

#![allow(non_camel_case_types, reason = "the names are those of the instruction set")]

use std::arch::x86_64::{
    __m256, __m256i, _mm256_castsi256_si128, _mm256_cvtph_ps, _mm256_extracti128_si256,
    _mm256_storeu_ps,
};

/// Sixty-four bytes, as sixteen integers.
#[derive(Clone, Copy)]
pub(crate) struct __m512i([i32; 16]);

/// Sixteen floats.
#[derive(Clone, Copy)]
pub(crate) struct __m512([f32; 16]);

/// All bits zero.
#[inline(always)]
pub(crate) fn _mm512_setzero_si512() -> __m512i {
    __m512i([0; 16])
}

/// All floats zero.
#[inline(always)]
pub(crate) fn _mm512_setzero_ps() -> __m512 {
    __m512([0.0; 16])
}

/// One integer in every lane.
#[inline(always)]
pub(crate) fn _mm512_set1_epi32(value: i32) -> __m512i {
    __m512i([value; 16])
}

/// One float in every lane.
#[inline(always)]
pub(crate) fn _mm512_set1_ps(value: f32) -> __m512 {
    __m512([value; 16])
}

/// # Safety
/// 64 bytes are readable at `p`, aligned or not.
#[inline(always)]
pub(crate) unsafe fn _mm512_loadu_si512(p: *const __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { p.read_unaligned() }
}

/// # Safety
/// 16 floats are readable at `p`, aligned or not.
#[inline(always)]
pub(crate) unsafe fn _mm512_loadu_ps(p: *const f32) -> __m512 {
    // SAFETY: the caller's promise.
    __m512(unsafe { p.cast::<[f32; 16]>().read_unaligned() })
}

/// # Safety
/// 64 bytes are writable at `p`, aligned or not.
#[inline(always)]
pub(crate) unsafe fn _mm512_storeu_si512(p: *mut __m512i, value: __m512i) {
    // SAFETY: the caller's promise.
    unsafe { p.write_unaligned(value) }
}

/// # Safety
/// 16 floats are writable at `p`, aligned or not.
#[inline(always)]
pub(crate) unsafe fn _mm512_storeu_ps(p: *mut f32, value: __m512) {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<[f32; 16]>().write_unaligned(value.0) }
}

/// `a * b + c`, rounded once.
#[inline(always)]
pub(crate) fn _mm512_fmadd_ps(a: __m512, b: __m512, c: __m512) -> __m512 {
    __m512(std::array::from_fn(|lane| a.0[lane].mul_add(b.0[lane], c.0[lane])))
}

/// Adds four products of unsigned bytes of `a` and signed bytes of `b` to each lane, without
/// saturation (`VPDPBUSD`).
#[inline(always)]
pub(crate) fn _mm512_dpbusd_epi32(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    __m512i(std::array::from_fn(|lane| {
        let unsigned = a.0[lane].to_le_bytes();
        let signed = b.0[lane].to_le_bytes().map(u8::cast_signed);
        let products = unsigned.iter().zip(signed).map(|(&u, s)| i32::from(u) * i32::from(s));
        products.fold(sum.0[lane], i32::wrapping_add)
    }))
}

/// Adds two products of signed words to each lane, without saturation (`VPDPWSSD`).
#[inline(always)]
pub(crate) fn _mm512_dpwssd_epi32(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    let words = |lane: i32| [lane as i16, (lane >> 16) as i16].map(i32::from);
    __m512i(std::array::from_fn(|lane| {
        let (a, b) = (words(a.0[lane]), words(b.0[lane]));
        sum.0[lane].wrapping_add(a[0].wrapping_mul(b[0])).wrapping_add(a[1].wrapping_mul(b[1]))
    }))
}

/// `a + b`.
#[inline(always)]
pub(crate) fn _mm512_add_ps(a: __m512, b: __m512) -> __m512 {
    __m512(std::array::from_fn(|lane| a.0[lane] + b.0[lane]))
}

/// The greater one; `b` where one is NaN or both are zero.
#[inline(always)]
pub(crate) fn _mm512_max_ps(a: __m512, b: __m512) -> __m512 {
    __m512(std::array::from_fn(|lane| if a.0[lane] > b.0[lane] { a.0[lane] } else { b.0[lane] }))
}

/// The lesser one; `b` where one is NaN or both are zero.
#[inline(always)]
pub(crate) fn _mm512_min_ps(a: __m512, b: __m512) -> __m512 {
    __m512(std::array::from_fn(|lane| if a.0[lane] < b.0[lane] { a.0[lane] } else { b.0[lane] }))
}

/// The floats whose bit in the mask is set; zeros for the others.
///
/// # Safety
/// Those are readable at `p`, aligned or not.
#[inline(always)]
pub(crate) unsafe fn _mm512_maskz_loadu_ps(mask: u16, p: *const f32) -> __m512 {
    __m512(std::array::from_fn(|lane| match mask >> lane & 1 {
        0 => 0.0,
        // SAFETY: the caller's promise.
        _ => unsafe { p.add(lane).read_unaligned() },
    }))
}

/// Stores the floats whose bit in the mask is set.
///
/// # Safety
/// Those are writable at `p`, aligned or not.
#[inline(always)]
pub(crate) unsafe fn _mm512_mask_storeu_ps(p: *mut f32, mask: u16, value: __m512) {
    for (lane, value) in value.0.into_iter().enumerate().filter(|(lane, _)| mask >> lane & 1 == 1) {
        // SAFETY: the caller's promise.
        unsafe { p.add(lane).write_unaligned(value) }
    }
}

/// Sixteen half floats as floats.
///
/// # Safety
/// The CPU has F16C.
#[inline(always)]
pub(crate) unsafe fn _mm512_cvtph_ps(halves: __m256i) -> __m512 {
    let mut out = [0.0; 16];
    // SAFETY: the caller's promise; the array has 16 floats.
    unsafe {
        let low = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
        let high = _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves));
        _mm256_storeu_ps(out.as_mut_ptr(), low);
        _mm256_storeu_ps(out.as_mut_ptr().add(8), high);
    }
    __m512(out)
}

/// Sixteen words without signs as integers.
#[inline(always)]
pub(crate) fn _mm512_cvtepu16_epi32(words: __m256i) -> __m512i {
    // SAFETY: both are 32 bytes without invalid values.
    let words: [u16; 16] = unsafe { std::mem::transmute(words) };
    __m512i(words.map(i32::from))
}

/// Each integer moved to the left.
#[inline(always)]
pub(crate) fn _mm512_slli_epi32<const BITS: u32>(a: __m512i) -> __m512i {
    __m512i(a.0.map(|lane| lane << BITS))
}

/// The same bits as floats.
#[inline(always)]
pub(crate) fn _mm512_castsi512_ps(a: __m512i) -> __m512 {
    __m512(a.0.map(|lane| f32::from_bits(lane.cast_unsigned())))
}

/// Eight floats, and eight of which nothing is known.
#[inline(always)]
pub(crate) fn _mm512_castps256_ps512(low: __m256) -> __m512 {
    // SAFETY: both are 32 bytes without invalid values.
    let low: [f32; 8] = unsafe { std::mem::transmute(low) };
    __m512(std::array::from_fn(|lane| low.get(lane).copied().unwrap_or(f32::NAN)))
}
