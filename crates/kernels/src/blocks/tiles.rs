//! The microkernels of each instruction set, as the driver calls them.

#[cfg(target_arch = "aarch64")]
use std::marker::PhantomData;

use super::FastUnit;
#[cfg(target_arch = "aarch64")]
use super::arm_neon::Dot;
#[cfg(target_arch = "x86_64")]
use super::inputs::MAX_TOKENS;
use super::inputs::Tile;
use super::tile::{Codes, Sums, Unit};
#[cfg(target_arch = "x86_64")]
use super::weights::Heads;
use super::weights::Weights;
#[cfg(target_arch = "x86_64")]
use super::x86_units::Avx2Unit;

/// The most tokens that pass over all panels at once, on any instruction set.
pub(super) const MOST_TOKENS: usize = 256;

/// The microkernels of one instruction set.
pub(super) trait Tiles {
    /// Whether packed codes can be multiplied.
    const PACKED: bool;

    /// The most tokens of a tile, the same as [`Weights::layout`] says.
    const MOST: usize = 4;

    /// Tokens that pass over all panels before others do: the codes of 2048 elements of theirs
    /// take half of a second-level cache of 512 kB.
    const TOKENS: usize = 128;

    /// Tokens from which on codes are taken apart beforehand.
    fn few<W: Weights>() -> usize {
        W::FEW
    }

    /// Whether one token is multiplied with a panel of packed blocks front to back.
    fn panels<W: Weights>() -> bool {
        false
    }

    /// The products of all blocks of a panel with one token.
    ///
    /// # Safety
    /// As [`Tiles::tile`].
    unsafe fn panel<W: Weights>(_packed: &[u8], _tile: Tile, _sums: &mut Sums<1>) {
        unreachable!("one token is multiplied as others are");
    }

    /// # Safety
    /// As [`Tiles::tile`]; the codes are those of as many units as there are heads.
    unsafe fn packed<W: Weights, const T: usize>(
        heads: &[<W::Unit as Unit>::Head],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    );

    /// # Safety
    /// As [`Unit::plain`], and the CPU has the instructions.
    unsafe fn tile<U: FastUnit, W: Weights, const T: usize>(
        units: &[U],
        tile: Tile,
        sums: &mut Sums<T>,
    );
}

pub(super) struct PlainTiles;

impl Tiles for PlainTiles {
    const PACKED: bool = false;

    unsafe fn packed<W: Weights, const T: usize>(
        _: &[<W::Unit as Unit>::Head],
        _: Codes,
        _: Tile,
        _: &mut Sums<T>,
    ) {
        unreachable!("plain microkernels read units");
    }

    unsafe fn tile<U: FastUnit, W: Weights, const T: usize>(
        units: &[U],
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { U::plain::<W>(units, tile, sums) }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) struct Avx2Tiles;

#[cfg(target_arch = "x86_64")]
impl Tiles for Avx2Tiles {
    const PACKED: bool = true;

    #[inline(always)]
    unsafe fn packed<W: Weights, const T: usize>(
        heads: &[<W::Unit as Unit>::Head],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { W::Unit::avx2_packed::<W, T>(heads, codes, tile, sums) }
    }

    #[inline(always)]
    unsafe fn tile<U: FastUnit, W: Weights, const T: usize>(
        units: &[U],
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { U::avx2::<W, T>(units, tile, sums) }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512Tiles;

#[cfg(target_arch = "x86_64")]
impl Tiles for Avx512Tiles {
    const PACKED: bool = true;
    const MOST: usize = MAX_TOKENS;
    // Half of a second-level cache of 1 MB; weights are read and heads taken apart half as often.
    const TOKENS: usize = MOST_TOKENS;

    #[inline(always)]
    fn few<W: Weights>() -> usize {
        W::WIDE_FEW
    }

    #[inline(always)]
    fn panels<W: Weights>() -> bool {
        W::HEADS != Heads::Whole
    }

    #[inline(always)]
    unsafe fn panel<W: Weights>(packed: &[u8], tile: Tile, sums: &mut Sums<1>) {
        // SAFETY: the caller's promise.
        unsafe { W::Unit::avx512_panel::<W>(packed, tile, sums) }
    }

    #[inline(always)]
    unsafe fn packed<W: Weights, const T: usize>(
        heads: &[<W::Unit as Unit>::Head],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { W::Unit::avx512_packed::<W, T>(heads, codes, tile, sums) }
    }

    #[inline(always)]
    unsafe fn tile<U: FastUnit, W: Weights, const T: usize>(
        units: &[U],
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { U::avx512::<W, T>(units, tile, sums) }
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) struct NeonTiles<D>(PhantomData<D>);

#[cfg(target_arch = "aarch64")]
impl<D: Dot> Tiles for NeonTiles<D> {
    const PACKED: bool = true;

    #[inline(always)]
    unsafe fn packed<W: Weights, const T: usize>(
        heads: &[<W::Unit as Unit>::Head],
        codes: Codes,
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { W::Unit::neon_packed::<W, D, T>(heads, codes, tile, sums) }
    }

    #[inline(always)]
    unsafe fn tile<U: FastUnit, W: Weights, const T: usize>(
        units: &[U],
        tile: Tile,
        sums: &mut Sums<T>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { U::neon::<W, D, T>(units, tile, sums) }
    }
}
