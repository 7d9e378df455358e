//! By which microkernel of NEON each kind of unit is multiplied.

use super::arm_neon::{self as arm, Dot};
use super::inputs::{Form, Tile};
use super::tile::{Codes, Sums, Unit};
use super::unit::{Halves, Minima, Quads, ROWS, Signed, Steps, StoredSigned};
use super::weights::Weights;

/// A unit that NEON multiplies.
pub(super) trait NeonUnit: Unit {
    /// As [`Unit::plain`], with the same results, by NEON, where bytes are multiplied as `D` does.
    ///
    /// # Safety
    /// As [`Unit::plain`], and the CPU has what `D` needs.
    unsafe fn neon<W: Weights, D: Dot, const T: usize>(
        units: &[Self],
        tile: Tile,
        sums: &mut Sums<T>,
    );

    /// The same with the codes still packed.
    ///
    /// # Safety
    /// As [`NeonUnit::neon`]; the codes are those of as many units as there are heads.
    unsafe fn neon_packed<W: Weights, D: Dot, const T: usize>(
        heads: &[Self::Head],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    );
}

impl NeonUnit for Quads {
    #[inline(always)]
    unsafe fn neon<W: Weights, D: Dot, const T: usize>(
        units: &[Quads],
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise; one sum for each chain of an offset.
        unsafe {
            match W::FORM {
                Form::Offset { chain: 8, .. } => arm::quads::<_, D, 1, T>(units, tile, sums),
                Form::Offset { .. } => arm::quads::<_, D, 2, T>(units, tile, sums),
                _ => arm::quads::<_, D, 0, T>(units, tile, sums),
            }
        }
    }

    #[inline(always)]
    unsafe fn neon_packed<W: Weights, D: Dot, const T: usize>(
        heads: &[Minima],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise; one sum for each chain of an offset.
        unsafe {
            if let Some(values) = W::VALUES {
                let units = arm::PackedValues { heads, codes, values };
                return arm::quads::<_, D, 0, T>(units, tile, sums);
            }
            let two = arm::Packed::<_, 2> { heads, codes };
            let four = arm::Packed::<_, 4> { heads, codes };
            let five = arm::Packed::<_, 5> { heads, codes };
            match (W::BITS, W::FORM) {
                (4, Form::Offset { .. }) => arm::quads::<_, D, 1, T>(four, tile, sums),
                (4, _) => arm::quads::<_, D, 0, T>(four, tile, sums),
                (5, Form::Offset { .. }) => arm::quads::<_, D, 2, T>(five, tile, sums),
                (5, _) => arm::quads::<_, D, 0, T>(five, tile, sums),
                _ => arm::quads::<_, D, 0, T>(two, tile, sums),
            }
        }
    }
}

impl NeonUnit for Halves {
    #[inline(always)]
    unsafe fn neon<W: Weights, D: Dot, const T: usize>(
        units: &[Halves],
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match W::JOINT {
                true => arm::halves::<_, D, true, T>(units, tile, sums),
                false => arm::halves::<_, D, false, T>(units, tile, sums),
            }
        }
    }

    #[inline(always)]
    unsafe fn neon_packed<W: Weights, D: Dot, const T: usize>(
        heads: &[Steps],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        let two = arm::Packed::<_, 2> { heads, codes };
        let three = arm::Packed::<_, 3> { heads, codes };
        let six = arm::Packed::<_, 6> { heads, codes };
        // SAFETY: the caller's promise.
        unsafe {
            match W::BITS {
                2 => arm::halves::<_, D, false, T>(two, tile, sums),
                3 => arm::halves::<_, D, true, T>(three, tile, sums),
                _ => arm::halves::<_, D, true, T>(six, tile, sums),
            }
        }
    }
}

impl NeonUnit for Signed {
    #[inline(always)]
    unsafe fn neon<W: Weights, D: Dot, const T: usize>(
        units: &[Signed],
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { arm::signed::<_, D, T>(units, tile, sums) }
    }

    #[inline(always)]
    unsafe fn neon_packed<W: Weights, D: Dot, const T: usize>(
        heads: &[[f32; ROWS]],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        let Some(values) = W::VALUES else {
            unreachable!("packed codes of 4 bits choose signed ones")
        };
        let units = arm::PackedValues { heads, codes, values };
        // SAFETY: the caller's promise.
        unsafe { arm::signed::<_, D, T>(units, tile, sums) }
    }
}

impl NeonUnit for StoredSigned {
    #[inline(always)]
    unsafe fn neon<W: Weights, D: Dot, const T: usize>(
        units: &[StoredSigned],
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { arm::signed::<_, D, T>(units, tile, sums) }
    }

    unsafe fn neon_packed<W: Weights, D: Dot, const T: usize>(
        _: &[()],
        _: Codes,
        _: Tile,
        _: &mut Sums<T>,
    ) {
        unreachable!("stored units are never multiplied in packed form");
    }
}
