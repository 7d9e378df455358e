//! The AVX-512 intrinsics that the kernels use, by their definition in plain Rust.
//!
//! Most machines that develop or test this crate have no AVX-512. With the feature `avx512-model`,
//! the code for it is compiled against these functions instead of the processor's instructions,
//! wherever there is AVX2: every test that loops over the instruction sets then runs the same
//! tiles, packing and choices that a processor with VNNI would. It is slow, and for tests only.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, `VPDPBUSD`,
//! `VPDPWSSD`, `VFMADD231PS`, and those that the functions below are named after.

#![allow(non_camel_case_types, reason = "the names are those of the instruction set")]

use std::arch::x86_64::{__m128i, __m256, __m256i};

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

impl __m512i {
    fn bytes(self) -> [u8; 64] {
        bytemuck::cast(self.0)
    }

    fn of_bytes(bytes: [u8; 64]) -> Self {
        __m512i(bytemuck::cast(bytes))
    }

    fn words(self) -> [i16; 32] {
        bytemuck::cast(self.0)
    }

    fn of_words(words: [i16; 32]) -> Self {
        __m512i(bytemuck::cast(words))
    }
}

/// One byte in every lane.
#[inline(always)]
pub(crate) fn _mm512_set1_epi8(value: i8) -> __m512i {
    __m512i::of_bytes([value.cast_unsigned(); 64])
}

/// One word in every lane.
#[inline(always)]
pub(crate) fn _mm512_set1_epi16(value: i16) -> __m512i {
    __m512i::of_words([value; 32])
}

/// Exclusive or.
#[inline(always)]
pub(crate) fn _mm512_xor_si512(a: __m512i, b: __m512i) -> __m512i {
    __m512i(std::array::from_fn(|lane| a.0[lane] ^ b.0[lane]))
}

/// The smaller of unsigned bytes.
#[inline(always)]
pub(crate) fn _mm512_min_epu8(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (a.bytes(), b.bytes());
    __m512i::of_bytes(std::array::from_fn(|i| a[i].min(b[i])))
}

/// The larger of unsigned bytes.
#[inline(always)]
pub(crate) fn _mm512_max_epu8(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (a.bytes(), b.bytes());
    __m512i::of_bytes(std::array::from_fn(|i| a[i].max(b[i])))
}

/// Sums of words that saturate.
#[inline(always)]
pub(crate) fn _mm512_adds_epi16(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (a.words(), b.words());
    __m512i::of_words(std::array::from_fn(|i| a[i].saturating_add(b[i])))
}

/// Integers as floats, rounded half to even.
#[inline(always)]
pub(crate) fn _mm512_cvtepi32_ps(a: __m512i) -> __m512 {
    __m512(a.0.map(|lane| lane as f32))
}

/// Floats as integers, rounded half to even; what does not fit becomes the least integer.
#[inline(always)]
pub(crate) fn _mm512_cvtps_epi32(a: __m512) -> __m512i {
    __m512i(a.0.map(|lane| match lane.round_ties_even() {
        whole if (-2_147_483_648.0..2_147_483_648.0).contains(&whole) => whole as i32,
        _ => i32::MIN,
    }))
}

/// Products.
#[inline(always)]
pub(crate) fn _mm512_mul_ps(a: __m512, b: __m512) -> __m512 {
    __m512(std::array::from_fn(|lane| a.0[lane] * b.0[lane]))
}

/// Integers as words that saturate; in each 128 bits those of `a`, then those of `b`.
#[inline(always)]
pub(crate) fn _mm512_packs_epi32(a: __m512i, b: __m512i) -> __m512i {
    __m512i::of_words(std::array::from_fn(|i| {
        let from = if i % 8 < 4 { a.0 } else { b.0 };
        from[i / 8 * 4 + i % 4].clamp(-32768, 32767) as i16
    }))
}

/// Words as unsigned bytes that saturate; in each 128 bits those of `a`, then those of `b`.
#[inline(always)]
pub(crate) fn _mm512_packus_epi16(a: __m512i, b: __m512i) -> __m512i {
    __m512i::of_bytes(std::array::from_fn(|i| {
        let from = if i % 16 < 8 { a.words() } else { b.words() };
        from[i / 16 * 8 + i % 8].clamp(0, 255) as u8
    }))
}

/// The bytes of one half (`from` 0 or 8) of each 128 bits of `a` and `b` in turns.
#[inline(always)]
fn unpack_bytes(a: __m512i, b: __m512i, from: usize) -> __m512i {
    let both = [a.bytes(), b.bytes()];
    __m512i::of_bytes(std::array::from_fn(|i| both[i % 2][i / 16 * 16 + from + i % 16 / 2]))
}

/// The lower bytes of each 128 bits in turns.
#[inline(always)]
pub(crate) fn _mm512_unpacklo_epi8(a: __m512i, b: __m512i) -> __m512i {
    unpack_bytes(a, b, 0)
}

/// The upper bytes of each 128 bits in turns.
#[inline(always)]
pub(crate) fn _mm512_unpackhi_epi8(a: __m512i, b: __m512i) -> __m512i {
    unpack_bytes(a, b, 8)
}

/// The words of one half (`from` 0 or 4) of each 128 bits of `a` and `b` in turns.
#[inline(always)]
fn unpack_words(a: __m512i, b: __m512i, from: usize) -> __m512i {
    let both = [a.words(), b.words()];
    __m512i::of_words(std::array::from_fn(|i| both[i % 2][i / 8 * 8 + from + i % 8 / 2]))
}

/// The lower words of each 128 bits in turns.
#[inline(always)]
pub(crate) fn _mm512_unpacklo_epi16(a: __m512i, b: __m512i) -> __m512i {
    unpack_words(a, b, 0)
}

/// The upper words of each 128 bits in turns.
#[inline(always)]
pub(crate) fn _mm512_unpackhi_epi16(a: __m512i, b: __m512i) -> __m512i {
    unpack_words(a, b, 4)
}

/// 128 bits in the lowest place; the others are 0 here, and open in the definition.
#[inline(always)]
pub(crate) fn _mm512_castsi128_si512(a: __m128i) -> __m512i {
    _mm512_inserti32x4::<0>(_mm512_setzero_si512(), a)
}

/// 256 bits in the lower half; the others are 0 here, and open in the definition.
#[inline(always)]
pub(crate) fn _mm512_castsi256_si512(a: __m256i) -> __m512i {
    _mm512_inserti64x4::<0>(_mm512_setzero_si512(), a)
}

/// `b` as 128 bits number `PLACE`.
#[inline(always)]
pub(crate) fn _mm512_inserti32x4<const PLACE: usize>(mut a: __m512i, b: __m128i) -> __m512i {
    // SAFETY: both are 128 bits.
    let b = unsafe { std::mem::transmute::<__m128i, [i32; 4]>(b) };
    a.0[4 * PLACE..4 * PLACE + 4].copy_from_slice(&b);
    a
}

/// `b` as half number `PLACE`.
#[inline(always)]
pub(crate) fn _mm512_inserti64x4<const PLACE: usize>(mut a: __m512i, b: __m256i) -> __m512i {
    // SAFETY: both are 256 bits.
    let b = unsafe { std::mem::transmute::<__m256i, [i32; 8]>(b) };
    a.0[8 * PLACE..8 * PLACE + 8].copy_from_slice(&b);
    a
}

/// The first 128 bits.
#[inline(always)]
pub(crate) fn _mm512_castsi512_si128(a: __m512i) -> __m128i {
    _mm512_extracti32x4_epi32::<0>(a)
}

/// The lower half.
#[inline(always)]
pub(crate) fn _mm512_castsi512_si256(a: __m512i) -> __m256i {
    _mm512_extracti64x4_epi64::<0>(a)
}

/// 128 bits number `PLACE`.
#[inline(always)]
pub(crate) fn _mm512_extracti32x4_epi32<const PLACE: usize>(a: __m512i) -> __m128i {
    let lanes: [i32; 4] = std::array::from_fn(|lane| a.0[4 * PLACE + lane]);
    // SAFETY: both are 128 bits.
    unsafe { std::mem::transmute::<[i32; 4], __m128i>(lanes) }
}

/// Half number `PLACE`.
#[inline(always)]
pub(crate) fn _mm512_extracti64x4_epi64<const PLACE: usize>(a: __m512i) -> __m256i {
    let lanes: [i32; 8] = std::array::from_fn(|lane| a.0[8 * PLACE + lane]);
    // SAFETY: both are 256 bits.
    unsafe { std::mem::transmute::<[i32; 8], __m256i>(lanes) }
}

/// Sums that wrap around.
#[inline(always)]
pub(crate) fn _mm512_add_epi32(a: __m512i, b: __m512i) -> __m512i {
    __m512i(std::array::from_fn(|lane| a.0[lane].wrapping_add(b.0[lane])))
}

/// Differences that wrap around.
#[inline(always)]
pub(crate) fn _mm512_sub_epi32(a: __m512i, b: __m512i) -> __m512i {
    __m512i(std::array::from_fn(|lane| a.0[lane].wrapping_sub(b.0[lane])))
}

/// Sums.
#[inline(always)]
pub(crate) fn _mm512_add_ps(a: __m512, b: __m512) -> __m512 {
    __m512(std::array::from_fn(|lane| a.0[lane] + b.0[lane]))
}

/// The smaller; `b` where one is NaN.
#[inline(always)]
pub(crate) fn _mm512_min_ps(a: __m512, b: __m512) -> __m512 {
    __m512(std::array::from_fn(|lane| if a.0[lane] < b.0[lane] { a.0[lane] } else { b.0[lane] }))
}

/// The larger; `b` where one is NaN.
#[inline(always)]
pub(crate) fn _mm512_max_ps(a: __m512, b: __m512) -> __m512 {
    __m512(std::array::from_fn(|lane| if a.0[lane] > b.0[lane] { a.0[lane] } else { b.0[lane] }))
}

/// To whole numbers, half to even; only with no binary places kept.
#[inline(always)]
pub(crate) fn _mm512_roundscale_ps<const IMM: i32>(a: __m512) -> __m512 {
    const { assert!(IMM == 0) };
    __m512(a.0.map(f32::round_ties_even))
}

/// Bytes, as integers.
#[inline(always)]
fn lanes_of(a: __m128i) -> [u8; 16] {
    // SAFETY: both are 128 bits.
    unsafe { std::mem::transmute(a) }
}

/// Unsigned bytes as integers.
#[inline(always)]
pub(crate) fn _mm512_cvtepu8_epi32(a: __m128i) -> __m512i {
    __m512i(lanes_of(a).map(i32::from))
}

/// Signed bytes as integers.
#[inline(always)]
pub(crate) fn _mm512_cvtepi8_epi32(a: __m128i) -> __m512i {
    __m512i(lanes_of(a).map(|byte| i32::from(byte.cast_signed())))
}

/// The lanes of `a` that `index` names.
#[inline(always)]
pub(crate) fn _mm512_permutexvar_epi32(index: __m512i, a: __m512i) -> __m512i {
    __m512i(index.0.map(|index| a.0[(index & 15) as usize]))
}

/// Four integers, four times.
#[inline(always)]
pub(crate) fn _mm512_broadcast_i32x4(a: __m128i) -> __m512i {
    __m512i(bytemuck::cast([a; 4]))
}

/// All bits that both have.
#[inline(always)]
pub(crate) fn _mm512_and_si512(a: __m512i, b: __m512i) -> __m512i {
    __m512i(std::array::from_fn(|lane| a.0[lane] & b.0[lane]))
}

/// All bits that either has.
#[inline(always)]
pub(crate) fn _mm512_or_si512(a: __m512i, b: __m512i) -> __m512i {
    __m512i(std::array::from_fn(|lane| a.0[lane] | b.0[lane]))
}

/// Words of 16 bits, shifted to the right by the count in the lower half of `count`.
#[inline(always)]
pub(crate) fn _mm512_srl_epi16(a: __m512i, count: __m128i) -> __m512i {
    let [count, _]: [u64; 2] = bytemuck::cast(count);
    let words: [u16; 32] = bytemuck::cast(a.0);
    __m512i(bytemuck::cast(words.map(|word| if count < 16 { word >> count } else { 0 })))
}

/// Words of 16 bits, shifted to the left by the count in the lower half of `count`.
#[inline(always)]
pub(crate) fn _mm512_sll_epi16(a: __m512i, count: __m128i) -> __m512i {
    let [count, _]: [u64; 2] = bytemuck::cast(count);
    let words: [u16; 32] = bytemuck::cast(a.0);
    __m512i(bytemuck::cast(words.map(|word| if count < 16 { word << count } else { 0 })))
}

/// Integers, shifted to the right with their sign.
#[inline(always)]
pub(crate) fn _mm512_srai_epi32<const COUNT: u32>(a: __m512i) -> __m512i {
    __m512i(a.0.map(|lane| lane >> COUNT.min(31)))
}

/// The lower halves of products of integers.
#[inline(always)]
pub(crate) fn _mm512_mullo_epi32(a: __m512i, b: __m512i) -> __m512i {
    __m512i(std::array::from_fn(|lane| a.0[lane].wrapping_mul(b.0[lane])))
}

/// In each 16 bytes, those of `a` that the bytes of `places` name; 0 where the upper bit is set.
#[inline(always)]
pub(crate) fn _mm512_shuffle_epi8(a: __m512i, places: __m512i) -> __m512i {
    let (from, places) = (a.bytes(), places.bytes());
    let byte = |i: usize| match places[i] {
        place @ 0..128 => from[i / 16 * 16 + usize::from(place % 16)],
        _ => 0,
    };
    __m512i(bytemuck::cast::<[u8; 64], _>(std::array::from_fn(byte)))
}

/// 64-bit numbers of `b` from number `COUNT` on, then those of `a`.
#[inline(always)]
pub(crate) fn _mm512_alignr_epi64<const COUNT: usize>(a: __m512i, b: __m512i) -> __m512i {
    let lane = |i: usize| i + 2 * COUNT;
    let of = |i: usize| if lane(i) < 16 { b.0[lane(i)] } else { a.0[lane(i) - 16] };
    __m512i(std::array::from_fn(of))
}

/// Sixteen binary16 as floats.
#[inline(always)]
pub(crate) fn _mm512_cvtph_ps(a: __m256i) -> __m512 {
    let bits: [u16; 16] = bytemuck::cast(a);
    __m512(bits.map(|bits| half::f16::from_bits(bits).to_f32()))
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

/// The bytes whose bit in the mask is set; zeros for the others.
///
/// # Safety
/// Those are readable at `p`, aligned or not.
#[inline(always)]
pub(crate) unsafe fn _mm512_maskz_loadu_epi8(mask: u64, p: *const i8) -> __m512i {
    let bytes: [i8; 64] = std::array::from_fn(|lane| match mask >> lane & 1 {
        0 => 0,
        // SAFETY: the caller's promise.
        _ => unsafe { p.wrapping_add(lane).read() },
    });
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute::<[i8; 64], __m512i>(bytes) }
}

/// Stores the bytes whose bit in the mask is set.
///
/// # Safety
/// Those are writable at `p`, aligned or not.
#[inline(always)]
pub(crate) unsafe fn _mm512_mask_storeu_epi8(p: *mut i8, mask: u64, value: __m512i) {
    // SAFETY: both are 64 bytes without invalid values.
    let bytes = unsafe { std::mem::transmute::<__m512i, [i8; 64]>(value) };
    for (lane, value) in bytes.into_iter().enumerate().filter(|(lane, _)| mask >> lane & 1 == 1) {
        // SAFETY: the caller's promise.
        unsafe { p.wrapping_add(lane).write(value) }
    }
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

/// The bits of floats, as integers.
#[inline(always)]
pub(crate) fn _mm512_castps_si512(a: __m512) -> __m512i {
    __m512i(a.0.map(|lane| lane.to_bits().cast_signed()))
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
