//! By which microkernel of AVX2 each kind of unit is multiplied.

use super::inputs::{Form, Tile};
use super::tile::{Codes, Sums, Unit};
use super::unit::{Halves, Quads, ROWS, Signed, StoredSigned};
use super::weights::Weights;
use super::x86_avx2::{self, Packed};

/// A unit that AVX2 multiplies.
pub(super) trait Avx2Unit: Unit {
    /// As [`Unit::plain`], with the same results, by AVX2.
    ///
    /// # Safety
    /// As [`Unit::plain`], and the CPU has AVX2, FMA and F16C.
    unsafe fn avx2<W: Weights, const T: usize>(units: &[Self], tile: Tile, sums: &mut Sums<T>);

    /// The same with the codes still packed.
    ///
    /// # Safety
    /// As [`Avx2Unit::avx2`]; the codes are those of as many units as there are heads.
    unsafe fn avx2_packed<W: Weights, const T: usize>(
        heads: &[Self::Head],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    );
}

impl Avx2Unit for Quads {
    #[inline(always)]
    unsafe fn avx2<W: Weights, const T: usize>(units: &[Quads], tile: Tile, sums: &mut Sums<T>) {
        // SAFETY: the caller's promise.
        unsafe {
            match (W::CHAIN, W::FORM) {
                (8, Form::Offset { .. }) => x86_avx2::quads::<_, 8, true, T>(units, tile, sums),
                (8, _) => x86_avx2::quads::<_, 8, false, T>(units, tile, sums),
                (_, Form::Offset { .. }) => x86_avx2::quads::<_, 4, true, T>(units, tile, sums),
                _ => x86_avx2::quads::<_, 4, false, T>(units, tile, sums),
            }
        }
    }

    #[inline(always)]
    unsafe fn avx2_packed<W: Weights, const T: usize>(
        heads: &[Self::Head],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(values) = W::VALUES {
                let units = x86_avx2::PackedValues { heads, codes, values };
                return x86_avx2::quads::<_, 4, false, T>(units, tile, sums);
            }
            let four = Packed::<_, 4> { heads, codes };
            let five = Packed::<_, 5> { heads, codes };
            match (W::BITS, W::FORM) {
                (4, Form::Offset { .. }) => x86_avx2::quads::<_, 8, true, T>(four, tile, sums),
                (4, _) => x86_avx2::quads::<_, 8, false, T>(four, tile, sums),
                (5, Form::Offset { .. }) => x86_avx2::quads::<_, 4, true, T>(five, tile, sums),
                (5, _) => x86_avx2::quads::<_, 4, false, T>(five, tile, sums),
                _ => {
                    let two = Packed::<_, 2> { heads, codes };
                    x86_avx2::quads::<_, 8, false, T>(two, tile, sums)
                }
            }
        }
    }
}

impl Avx2Unit for Halves {
    #[inline(always)]
    unsafe fn avx2<W: Weights, const T: usize>(units: &[Halves], tile: Tile, sums: &mut Sums<T>) {
        // SAFETY: the caller's promise.
        unsafe {
            match (W::CHAIN, W::JOINT) {
                (4, true) => x86_avx2::halves::<_, 4, true, T>(units, tile, sums),
                (4, false) => x86_avx2::halves::<_, 4, false, T>(units, tile, sums),
                _ => x86_avx2::halves::<_, 2, true, T>(units, tile, sums),
            }
        }
    }

    #[inline(always)]
    unsafe fn avx2_packed<W: Weights, const T: usize>(
        heads: &[Self::Head],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match W::BITS {
                2 => {
                    x86_avx2::halves::<_, 4, false, T>(Packed::<_, 2> { heads, codes }, tile, sums)
                }
                3 => x86_avx2::halves::<_, 4, true, T>(Packed::<_, 3> { heads, codes }, tile, sums),
                _ => x86_avx2::halves::<_, 2, true, T>(Packed::<_, 6> { heads, codes }, tile, sums),
            }
        }
    }
}

impl Avx2Unit for Signed {
    #[inline(always)]
    unsafe fn avx2<W: Weights, const T: usize>(units: &[Signed], tile: Tile, sums: &mut Sums<T>) {
        // SAFETY: the caller's promise.
        unsafe { x86_avx2::signed(units, tile, sums) }
    }

    #[inline(always)]
    unsafe fn avx2_packed<W: Weights, const T: usize>(
        heads: &[[f32; ROWS]],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        let Some(values) = W::VALUES else {
            unreachable!("packed codes of 4 bits choose signed ones")
        };
        let units = x86_avx2::PackedValues { heads, codes, values };
        // SAFETY: the caller's promise.
        unsafe { x86_avx2::signed(units, tile, sums) }
    }
}

impl Avx2Unit for StoredSigned {
    #[inline(always)]
    unsafe fn avx2<W: Weights, const T: usize>(
        units: &[StoredSigned],
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { x86_avx2::signed(units, tile, sums) }
    }

    unsafe fn avx2_packed<W: Weights, const T: usize>(
        _: &[()],
        _: Codes,
        _: Tile,
        _: &mut Sums<T>,
    ) {
        unreachable!("stored units are never multiplied in packed form");
    }
}
