//! What the microkernels of AVX-512 read, and by which each kind of unit is multiplied.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
use std::arch::x86_64::{_mm_cvtsi32_si128, _mm_loadu_si128, _mm256_loadu_si256};

use bytemuck::Zeroable;

use super::inputs::{Form, Tile};
use super::tile::{Codes, Sums};
use super::unit::{Halves, Minima, Quads, ROWS, Signed, Steps, StoredSigned};
use super::weights::Weights;
use super::x86_avx2::{Packed, PackedValues, ahead};
use super::x86_avx512::{halves, joint, quads, started};
use super::x86_avx512_panel::Panel;
use super::x86_units::Avx2Unit;
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;

/// Units as the microkernels see them.
pub(super) trait Units {
    /// What is beside the codes.
    type Head;

    /// What several units that follow each other have in common, taken apart.
    type Common: Zeroable;

    /// How many there are.
    fn count(&self) -> usize;

    /// The head of unit `b`, of which there are more; where they have something in common,
    /// [`Units::enter`] came to it last.
    fn head(&self, b: usize, common: &Self::Common) -> Self::Head;

    /// The codes of unit `b` and group `g`, without a sign.
    ///
    /// # Safety
    /// The CPU has AVX-512 F and BW; there are more than `b` units, `g` is below 8.
    unsafe fn codes(&self, b: usize, g: usize) -> __m512i;

    /// Asks for codes that are read soon after those of unit `b`.
    #[inline(always)]
    fn ahead(&self, _b: usize) {}

    /// Comes to unit `b`, after those before it: reads a byte of each of its lines, in their order,
    /// where its codes are read in another, and takes apart what it is the first one to need.
    ///
    /// # Safety
    /// As [`Units::codes`].
    #[inline(always)]
    unsafe fn enter(&self, _b: usize, _common: &mut Self::Common) {}
}

/// A head that has a scale for each row.
pub(super) trait Scale {
    /// # Safety
    /// The CPU has AVX-512 F.
    unsafe fn scale(&self) -> __m512;
}

impl Scale for [f32; ROWS] {
    #[inline(always)]
    unsafe fn scale(&self) -> __m512 {
        // SAFETY: 16 numbers are read.
        unsafe { _mm512_loadu_ps(self.as_ptr()) }
    }
}

impl<H: Scale> Scale for &H {
    #[inline(always)]
    unsafe fn scale(&self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { (**self).scale() }
    }
}

impl Scale for Minima {
    #[inline(always)]
    unsafe fn scale(&self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { self.scale.scale() }
    }
}

/// Scales in binary16.
impl Scale for [u16; ROWS] {
    #[inline(always)]
    unsafe fn scale(&self) -> __m512 {
        // SAFETY: 32 bytes are read.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(self.as_ptr().cast())) }
    }
}

impl Scale for Steps {
    #[inline(always)]
    unsafe fn scale(&self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { self.scale.scale() }
    }
}

/// A head that also has a minimum for each row.
pub(super) trait Minimum: Scale {
    /// # Safety
    /// The CPU has AVX-512 F.
    unsafe fn min(&self) -> __m512;
}

impl Minimum for &Minima {
    #[inline(always)]
    unsafe fn min(&self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { self.min.scale() }
    }
}

/// A head that also has integer steps for each half.
pub(super) trait Stepped: Scale {
    /// The steps of half `h`, 0 or 1.
    ///
    /// # Safety
    /// The CPU has AVX-512 F.
    unsafe fn steps(&self, h: usize) -> __m512i;
}

impl Stepped for &Steps {
    #[inline(always)]
    unsafe fn steps(&self, h: usize) -> __m512i {
        // SAFETY: 16 words are read, in which the steps stand twice.
        unsafe { _mm512_srai_epi32::<16>(_mm512_loadu_si512(self.steps[h].as_ptr().cast())) }
    }
}

/// A head with steps whose minima have steps and a scale of their own.
pub(super) trait SteppedMinimum: Stepped {
    /// What is added for each unit of the activations' sums of both halves, in pairs of i16.
    ///
    /// # Safety
    /// The CPU has AVX-512 F.
    unsafe fn min_steps(&self) -> __m512i;

    /// The scale of these.
    ///
    /// # Safety
    /// The CPU has AVX-512 F.
    unsafe fn min_scale(&self) -> __m512;
}

impl SteppedMinimum for &Steps {
    #[inline(always)]
    unsafe fn min_steps(&self) -> __m512i {
        // SAFETY: 16 pairs are read.
        unsafe { _mm512_loadu_si512(self.min_steps.as_ptr().cast()) }
    }

    #[inline(always)]
    unsafe fn min_scale(&self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { self.min_scale.scale() }
    }
}

/// Group `g` of 512 codes.
///
/// # Safety
/// The CPU has AVX-512 F, and there are as many codes.
#[inline(always)]
unsafe fn group(codes: *const u8, g: usize) -> __m512i {
    // SAFETY: eight groups of 64 codes.
    unsafe { _mm512_loadu_si512(codes.add(g * 64).cast()) }
}

impl<'a> Units for &'a [Halves] {
    type Head = &'a Steps;
    type Common = ();

    #[inline(always)]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn head(&self, b: usize, (): &()) -> &'a Steps {
        &self[b].head
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize) -> __m512i {
        // SAFETY: a unit has eight groups of 64 codes.
        unsafe { group(self[b].codes.as_ptr(), g) }
    }
}

impl<'a> Units for &'a [StoredSigned] {
    type Head = &'a [u16; ROWS];
    type Common = ();

    #[inline(always)]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn head(&self, b: usize, (): &()) -> &'a [u16; ROWS] {
        &self[b].scale
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize) -> __m512i {
        // SAFETY: a unit has eight groups of 64 codes. With another sign, they are 128 more.
        unsafe {
            let sign = _mm512_set1_epi8(-128);
            _mm512_xor_si512(group(self[b].codes.as_ptr().cast(), g), sign)
        }
    }

    #[inline(always)]
    fn ahead(&self, b: usize) {
        ahead((&raw const self[b]).cast(), size_of::<StoredSigned>());
    }
}

impl<'a, H, const BITS: usize> Units for Packed<'a, H, BITS> {
    type Head = &'a H;
    type Common = ();

    #[inline(always)]
    fn count(&self) -> usize {
        self.heads.len()
    }

    #[inline(always)]
    fn head(&self, b: usize, (): &()) -> &'a H {
        &self.heads[b]
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize) -> __m512i {
        // SAFETY: the codes of each unit are in planes.
        unsafe { planes::<BITS>(self.codes.first.add(b * self.codes.stride), g) }
    }

    #[inline(always)]
    fn ahead(&self, b: usize) {
        ahead(self.codes.first.wrapping_add(b * self.codes.stride), self.codes.stride);
    }
}

/// Codes that others choose are read plus 128, if they are signed: `SIGN` is what that flips.
struct Chosen<'a, H, const SIGN: i8>(PackedValues<'a, H>);

impl<'a, H, const SIGN: i8> Units for Chosen<'a, H, SIGN> {
    type Head = &'a H;
    type Common = ();

    #[inline(always)]
    fn count(&self) -> usize {
        self.0.heads.len()
    }

    #[inline(always)]
    fn head(&self, b: usize, (): &()) -> &'a H {
        &self.0.heads[b]
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize) -> __m512i {
        let PackedValues { codes, values, .. } = self.0;
        // SAFETY: planes of 4 bits have 256 bytes.
        unsafe { chosen::<SIGN>(values, codes.first.add(b * codes.stride), g) }
    }

    #[inline(always)]
    fn ahead(&self, b: usize) {
        let Codes { first, stride } = self.0.codes;
        ahead(first.wrapping_add(b * stride), stride);
    }
}

/// Group `g` of 512 codes of `BITS` bits in planes.
///
/// # Safety
/// The CPU has AVX-512 F and BW, and all planes are readable.
#[inline(always)]
pub(super) unsafe fn planes<const BITS: usize>(codes: *const u8, g: usize) -> __m512i {
    // SAFETY: planes of 4 bits have 256 bytes, of 2 bits 128, of one bit 64, in this order.
    unsafe {
        let nibble = || bits(codes.add(g % 4 * 64), g / 4 * 4, 0, 15);
        let crumb = |at: usize, to: usize| bits(codes.add(at + g % 2 * 64), g / 2 * 2, to, 3);
        match BITS {
            4 => nibble(),
            5 => _mm512_or_si512(nibble(), bits(codes.add(256), g, 4, 1)),
            6 => _mm512_or_si512(nibble(), crumb(256, 4)),
            3 => _mm512_or_si512(crumb(0, 0), bits(codes.add(128), g, 2, 1)),
            _ => crumb(0, 0),
        }
    }
}

/// The values that group `g` of 512 codes of 4 bits in planes chooses, changed by `SIGN`.
///
/// # Safety
/// The CPU has AVX-512 F and BW, and 256 bytes are readable.
#[inline(always)]
pub(super) unsafe fn chosen<const SIGN: i8>(
    values: &[i8; 16],
    codes: *const u8,
    g: usize,
) -> __m512i {
    // SAFETY: there are 16 values.
    unsafe {
        let values = _mm512_broadcast_i32x4(_mm_loadu_si128(values.as_ptr().cast()));
        let values = _mm512_xor_si512(values, _mm512_set1_epi8(SIGN));
        _mm512_shuffle_epi8(values, planes::<4>(codes, g))
    }
}

/// The bits of 64 bytes that lie under `mask` from bit `from` on, moved to bit `to`.
///
/// # Safety
/// The CPU has AVX-512 F and BW, and 64 bytes are readable.
#[inline(always)]
pub(super) unsafe fn bits(bytes: *const u8, from: usize, to: usize, mask: u8) -> __m512i {
    // SAFETY: the caller's promise. What a shift brings in from the neighbour byte is masked.
    unsafe {
        let bytes = _mm512_loadu_si512(bytes.cast());
        let count = _mm_cvtsi32_si128(from.abs_diff(to) as i32);
        let shifted = match from >= to {
            true => _mm512_srl_epi16(bytes, count),
            false => _mm512_sll_epi16(bytes, count),
        };
        _mm512_and_si512(shifted, _mm512_set1_epi8((mask << to).cast_signed()))
    }
}

/// A unit that AVX-512 VNNI multiplies.
pub(super) trait Avx512Unit: Avx2Unit {
    /// As [`Unit::plain`](super::tile::Unit::plain), with the same results, by AVX-512 VNNI; the
    /// tile has the form [`Weights::WIDE_FORM`].
    ///
    /// # Safety
    /// As there, and the CPU has AVX-512 F, BW and VNNI.
    unsafe fn avx512<W: Weights, const T: usize>(units: &[Self], tile: Tile, sums: &mut Sums<T>);

    /// The same with the codes still packed.
    ///
    /// # Safety
    /// As [`Avx512Unit::avx512`]; the codes are those of as many units as there are heads.
    unsafe fn avx512_packed<W: Weights, const T: usize>(
        heads: &[Self::Head],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    );

    /// The same for one token and a whole panel of packed blocks.
    ///
    /// # Safety
    /// As [`Avx512Unit::avx512`]; the blocks' heads can be taken apart unit by unit.
    unsafe fn avx512_panel<W: Weights>(_packed: &[u8], _tile: Tile, _sums: &mut Sums<1>) {
        unreachable!("they are read as they are stored");
    }
}

/// By the offset of the codes, or with minima.
///
/// # Safety
/// As [`Avx512Unit::avx512`].
#[inline(always)]
unsafe fn any_quads<W: Weights, U: Units<Head: Minimum>, const T: usize>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match W::WIDE_FORM {
            Form::Starts { .. } => started(units, tile, sums),
            _ => quads(units, tile, sums),
        }
    }
}

impl Avx512Unit for Quads {
    unsafe fn avx512<W: Weights, const T: usize>(_: &[Quads], _: Tile, _: &mut Sums<T>) {
        unreachable!("their codes are always multiplied in packed form");
    }

    #[inline(always)]
    unsafe fn avx512_packed<W: Weights, const T: usize>(
        heads: &[Minima],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(values) = W::VALUES {
                let units = Chosen::<_, 0>(PackedValues { heads, codes, values });
                return quads(units, tile, sums);
            }
            match W::BITS {
                4 => any_quads::<W, _, T>(Packed::<_, 4> { heads, codes }, tile, sums),
                5 => any_quads::<W, _, T>(Packed::<_, 5> { heads, codes }, tile, sums),
                _ => quads(Packed::<_, 2> { heads, codes }, tile, sums),
            }
        }
    }

    #[inline(always)]
    unsafe fn avx512_panel<W: Weights>(packed: &[u8], tile: Tile, sums: &mut Sums<1>) {
        // SAFETY: the caller's promise.
        unsafe { any_quads::<W, _, 1>(Panel::<W>::new(packed), tile, sums) }
    }
}

impl Avx512Unit for Halves {
    #[inline(always)]
    unsafe fn avx512<W: Weights, const T: usize>(units: &[Halves], tile: Tile, sums: &mut Sums<T>) {
        // SAFETY: the caller's promise.
        unsafe {
            match W::JOINT {
                true => joint(units, tile, sums),
                false => halves(units, tile, sums),
            }
        }
    }

    #[inline(always)]
    unsafe fn avx512_packed<W: Weights, const T: usize>(
        heads: &[Steps],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match W::BITS {
                2 => halves(Packed::<_, 2> { heads, codes }, tile, sums),
                3 => joint(Packed::<_, 3> { heads, codes }, tile, sums),
                _ => joint(Packed::<_, 6> { heads, codes }, tile, sums),
            }
        }
    }

    #[inline(always)]
    unsafe fn avx512_panel<W: Weights>(packed: &[u8], tile: Tile, sums: &mut Sums<1>) {
        // SAFETY: the caller's promise.
        unsafe {
            match W::JOINT {
                true => joint(Panel::<W>::new(packed), tile, sums),
                false => halves(Panel::<W>::new(packed), tile, sums),
            }
        }
    }
}

impl Avx512Unit for Signed {
    unsafe fn avx512<W: Weights, const T: usize>(_: &[Signed], _: Tile, _: &mut Sums<T>) {
        unreachable!("their codes are always multiplied in packed form");
    }

    #[inline(always)]
    unsafe fn avx512_packed<W: Weights, const T: usize>(
        heads: &[[f32; ROWS]],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        let Some(values) = W::VALUES else {
            unreachable!("packed codes of 4 bits choose signed ones")
        };
        let units = Chosen::<_, { i8::MIN }>(PackedValues { heads, codes, values });
        // SAFETY: the caller's promise.
        unsafe { started(units, tile, sums) }
    }

    #[inline(always)]
    unsafe fn avx512_panel<W: Weights>(packed: &[u8], tile: Tile, sums: &mut Sums<1>) {
        // SAFETY: the caller's promise.
        unsafe { started(Panel::<W>::new(packed), tile, sums) }
    }
}

impl Avx512Unit for StoredSigned {
    #[inline(always)]
    unsafe fn avx512<W: Weights, const T: usize>(
        units: &[StoredSigned],
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { started(units, tile, sums) }
    }

    unsafe fn avx512_packed<W: Weights, const T: usize>(
        _: &[()],
        _: Codes,
        _: Tile,
        _: &mut Sums<T>,
    ) {
        unreachable!("stored units are never multiplied in packed form");
    }
}
