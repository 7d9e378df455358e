//! The integer microkernels with AVX-512 VNNI: a register for the 16 rows of a panel and each token.
//!
//! `vpdpbusd` multiplies unsigned codes of weights with signed ones of activations, which come in
//! by broadcasts from memory that ride on the multiplication, and adds four products in 32 bits:
//! nothing can overflow. Codes with an offset are multiplied without it, signed ones plus 128;
//! their sums start from what makes up for it ([`Form::Starts`](super::inputs::Form)).
//!
//! What bounds these loops is the number of multiplications, those of the scaling among them.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use bytemuck::Zeroable;

use super::inputs::{Tile, WORDS};
use super::tile::Sums;
use super::x86_avx512_units::{Minimum, Scale, Stepped, SteppedMinimum, Units};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;

/// Sums of each token in registers.
type Floats<const T: usize> = [__m512; T];
type Dots<const T: usize> = [__m512i; T];

/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn load_sums<const T: usize>(sums: &Sums<T>) -> Floats<T> {
    // SAFETY: a row of sums has 16 elements.
    unsafe {
        let mut out = [_mm512_setzero_ps(); T];
        for (out, sums) in out.iter_mut().zip(sums) {
            *out = _mm512_loadu_ps(sums.as_ptr());
        }
        out
    }
}

/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn store_sums<const T: usize>(values: &Floats<T>, sums: &mut Sums<T>) {
    for (values, sums) in values.iter().zip(sums) {
        // SAFETY: a row of sums has 16 elements.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *values) };
    }
}

/// Sum `part` of `parts` of each token of block `b`, in all lanes.
///
/// # Safety
/// The CPU has AVX-512 F; the tile has the block, of `T` tokens, with as many sums.
#[inline(always)]
unsafe fn words<const T: usize>(tile: Tile, b: usize, (part, parts): (usize, usize)) -> Dots<T> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut out = [_mm512_setzero_si512(); T];
        for (t, out) in out.iter_mut().enumerate() {
            let word = *tile.sums.add((b * parts + part) * T + t);
            *out = _mm512_set1_epi32(word.cast_signed());
        }
        out
    }
}

/// Adds the products of the groups `groups` of unit `b` with the tokens of a tile to `dots`.
///
/// # Safety
/// The CPU has AVX-512 F, BW and VNNI; there are more than `b` units and blocks of `T` tokens, and
/// eight groups.
#[inline(always)]
unsafe fn products<U: Units, const T: usize>(
    units: &U,
    tile: Tile,
    b: usize,
    groups: std::ops::Range<usize>,
    mut dots: Dots<T>,
) -> Dots<T> {
    // SAFETY: the caller's promise; the tile has `T` tokens in each group of each block.
    unsafe {
        for g in groups {
            let w = units.codes(b, g);
            for (t, dot) in dots.iter_mut().enumerate() {
                let x = *tile.codes.add((b * WORDS + g) * T + t);
                *dot = _mm512_dpbusd_epi32(*dot, w, _mm512_set1_epi32(x.cast_signed()));
            }
        }
    }
    dots
}

/// The products of unit `b` with the tokens of a tile, from `start` on.
///
/// # Safety
/// As [`products`].
#[inline(always)]
unsafe fn whole<U: Units, const T: usize>(
    units: &U,
    tile: Tile,
    b: usize,
    start: Dots<T>,
) -> Dots<T> {
    // SAFETY: the caller's promise.
    unsafe {
        if T >= 4 {
            return products(units, tile, b, 0..WORDS, start);
        }
        // So few sums would wait for each other.
        let mut dots = products(units, tile, b, 0..WORDS / 2, start);
        let zero = [_mm512_setzero_si512(); T];
        for (t, more) in products(units, tile, b, WORDS / 2..WORDS, zero).into_iter().enumerate() {
            dots[t] = _mm512_add_epi32(dots[t], more);
        }
        dots
    }
}

/// Readies unit `b`: several tokens ask for codes that they read soon after it. One token reads so
/// fast that the memory fetches ahead by itself, if lines are read in the order in which they lie.
///
/// # Safety
/// The CPU has AVX-512 F and BW, and there are more than `b` units.
#[inline(always)]
unsafe fn ready<U: Units, const T: usize>(units: &U, b: usize, common: &mut U::Common) {
    match T {
        // SAFETY: the caller's promise.
        1 => unsafe { units.enter(b, common) },
        _ => units.ahead(b),
    }
}

/// The products of both halves of unit `b` with the tokens of a tile, each from its start on and
/// times its steps.
///
/// # Safety
/// As [`products`].
#[inline(always)]
unsafe fn stepped<U: Units<Head: Stepped>, const T: usize>(
    units: &U,
    tile: Tile,
    b: usize,
    head: &U::Head,
    starts: [Dots<T>; 2],
) -> Dots<T> {
    // SAFETY: the caller's promise.
    unsafe {
        let half = WORDS / 2;
        let mut dots = products(units, tile, b, 0..half, starts[0]);
        let more = products(units, tile, b, half..WORDS, starts[1]);
        let (first, last) = (head.steps(0), head.steps(1));
        for (dot, more) in dots.iter_mut().zip(more) {
            let more = _mm512_mullo_epi32(more, last);
            *dot = _mm512_add_epi32(_mm512_mullo_epi32(*dot, first), more);
        }
        dots
    }
}

/// `acc = fma(dot * scale, s, acc)` with the scale `s` of each token's block `b`.
///
/// # Safety
/// The CPU has AVX-512 F; the tile has the block, of `T` tokens.
#[inline(always)]
unsafe fn scaled<const T: usize>(
    acc: &mut Floats<T>,
    dots: Dots<T>,
    scale: __m512,
    tile: Tile,
    b: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for (t, (acc, dot)) in acc.iter_mut().zip(dots).enumerate() {
            let s = _mm512_set1_ps(*tile.scales.add(b * T + t));
            *acc = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), scale), s, *acc);
        }
    }
}

/// Units whose codes have one offset: products start from the tile's sums.
///
/// # Safety
/// As [`Avx512Unit::avx512`](super::x86_avx512_units::Avx512Unit::avx512).
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw,avx512vnni"))]
pub(super) unsafe fn started<U: Units<Head: Scale>, const T: usize>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) {
    // SAFETY: for each of the units, the tile has a block, with one sum.
    unsafe {
        let (mut acc, mut common) = (load_sums(sums), U::Common::zeroed());
        for b in 0..units.count() {
            ready::<_, T>(&units, b, &mut common);
            let dots = whole(&units, tile, b, words(tile, b, (0, 1)));
            scaled(&mut acc, dots, units.head(b, &common).scale(), tile, b);
        }
        store_sums(&acc, sums);
    }
}

/// Units with minima of their own.
///
/// # Safety
/// As [`Avx512Unit::avx512`](super::x86_avx512_units::Avx512Unit::avx512).
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw,avx512vnni"))]
pub(super) unsafe fn quads<U: Units<Head: Minimum>, const T: usize>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) {
    // SAFETY: for each of the units, the tile has a block, with one sum, a float.
    unsafe {
        let (mut acc, mut common) = (load_sums(sums), U::Common::zeroed());
        for b in 0..units.count() {
            ready::<_, T>(&units, b, &mut common);
            let dots = whole(&units, tile, b, [_mm512_setzero_si512(); T]);
            let head = units.head(b, &common);
            scaled(&mut acc, dots, head.scale(), tile, b);
            let min = head.min();
            for (t, acc) in acc.iter_mut().enumerate() {
                let sum = _mm512_set1_ps(*tile.sums.add(b * T + t).cast());
                *acc = _mm512_fmadd_ps(min, sum, *acc);
            }
        }
        store_sums(&acc, sums);
    }
}

/// Units with steps, whose minima follow from one offset: products of each half start from the
/// tile's sums.
///
/// # Safety
/// As [`Avx512Unit::avx512`](super::x86_avx512_units::Avx512Unit::avx512).
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw,avx512vnni"))]
pub(super) unsafe fn joint<U: Units<Head: Stepped>, const T: usize>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) {
    // SAFETY: for each of the units, the tile has a block, with two sums.
    unsafe {
        let (mut acc, mut common) = (load_sums(sums), U::Common::zeroed());
        for b in 0..units.count() {
            ready::<_, T>(&units, b, &mut common);
            let starts = [words(tile, b, (0, 2)), words(tile, b, (1, 2))];
            let head = units.head(b, &common);
            let dots = stepped(&units, tile, b, &head, starts);
            scaled(&mut acc, dots, head.scale(), tile, b);
        }
        store_sums(&acc, sums);
    }
}

/// Units with steps and minima that have a scale of their own.
///
/// # Safety
/// As [`Avx512Unit::avx512`](super::x86_avx512_units::Avx512Unit::avx512).
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw,avx512vnni"))]
pub(super) unsafe fn halves<U: Units<Head: SteppedMinimum>, const T: usize>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) {
    // SAFETY: for each of the units, the tile has a block, with one sum, a pair of i16.
    unsafe {
        let (mut acc, mut common) = (load_sums(sums), U::Common::zeroed());
        for b in 0..units.count() {
            ready::<_, T>(&units, b, &mut common);
            let head = units.head(b, &common);
            let dots = stepped(&units, tile, b, &head, [[_mm512_setzero_si512(); T]; 2]);
            scaled(&mut acc, dots, head.scale(), tile, b);
            let minima = minima(tile, b, head.min_steps());
            scaled(&mut acc, minima, head.min_scale(), tile, b);
        }
        store_sums(&acc, sums);
    }
}

/// The steps of the minima times the sums of both halves.
///
/// # Safety
/// The CPU has AVX-512 F and VNNI; the tile has the block, of `T` tokens, with a pair of sums.
#[inline(always)]
unsafe fn minima<const T: usize>(tile: Tile, b: usize, steps: __m512i) -> Dots<T> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut out = words(tile, b, (0, 1));
        for out in &mut out {
            *out = _mm512_dpwssd_epi32(_mm512_setzero_si512(), steps, *out);
        }
        out
    }
}
