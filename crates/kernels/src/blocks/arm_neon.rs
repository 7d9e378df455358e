//! The integer microkernels on 64-bit Arm: a vector holds four codes of each of four rows, which
//! `sdot` multiplies at once; where it is missing, products of bytes are added in pairs.

use std::arch::aarch64::*;
use std::arch::asm;
use std::borrow::Borrow;

use super::inputs::Tile;
use super::tile::{Codes, Sums};
use super::unit::{
    CODES, Convert, Halves, Minima, Quads, ROWS, Signed, Steps, StoredSigned, of_pair,
};
use crate::gemm::sdot;

/// Groups of k per unit.
const GROUPS: usize = 8;

/// Vectors of four rows.
const FOURS: usize = ROWS / 4;

/// The instructions of their own.
pub(super) struct Neon;

impl Convert for Neon {
    #[inline(always)]
    fn halves(bytes: &[u8; 2 * ROWS]) -> [f32; ROWS] {
        let mut out = [0.0; ROWS];
        for i in 0..FOURS {
            // SAFETY: 32 bytes are read, 16 numbers written; registers otherwise. Every CPU of
            // this architecture converts from binary16.
            unsafe {
                let halves = vld1_u8(bytes.as_ptr().add(8 * i));
                let mut floats = vdupq_n_f32(0.0);
                asm!(
                    "fcvtl {floats:v}.4s, {halves:v}.4h",
                    floats = inout(vreg) floats, halves = in(vreg) halves,
                    options(pure, nomem, nostack, preserves_flags)
                );
                vst1q_f32(out.as_mut_ptr().add(4 * i), floats);
            }
        }
        out
    }

    #[inline(always)]
    fn lookup(values: &[i8; 16], planes: &[u8; CODES / 2]) -> [i8; CODES] {
        let mut out = [0; CODES];
        for at in (0..CODES / 2).step_by(16) {
            // SAFETY: 256 bytes are read, 512 written.
            unsafe {
                let table = vld1q_s8(values.as_ptr());
                let bytes = vld1q_u8(planes.as_ptr().add(at));
                let out = out.as_mut_ptr().add(at);
                vst1q_s8(out, vqtbl1q_s8(table, vandq_u8(bytes, vdupq_n_u8(15))));
                vst1q_s8(out.add(CODES / 2), vqtbl1q_s8(table, vshrq_n_u8::<4>(bytes)));
            }
        }
        out
    }
}

/// Units, as the microkernels see them.
pub(super) trait Units {
    /// What is beside the codes.
    type Head;

    /// The heads, in order.
    fn heads(&self) -> impl Iterator<Item = Self::Head>;

    /// Vector `i` of group `g` of the codes of unit `b`: rows `4 * i` to `4 * i + 3`.
    ///
    /// # Safety
    /// There are more than `b` units, `g` is below 8, `i` below 4.
    unsafe fn codes(&self, b: usize, g: usize, i: usize) -> int8x16_t;
}

/// Vector `i` of group `g` of 512 codes.
///
/// # Safety
/// There are as many codes.
#[inline(always)]
unsafe fn group(codes: *const i8, g: usize, i: usize) -> int8x16_t {
    // SAFETY: eight groups of four vectors.
    unsafe { vld1q_s8(codes.add(g * 4 * ROWS + i * 16)) }
}

impl<'u> Units for &'u [Quads] {
    type Head = &'u Minima;

    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = &'u Minima> {
        self.iter().map(|unit| &unit.head)
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, i: usize) -> int8x16_t {
        // SAFETY: the caller's promise.
        unsafe { group(self[b].codes.as_ptr().cast(), g, i) }
    }
}

impl<'u> Units for &'u [Halves] {
    type Head = &'u Steps;

    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = &'u Steps> {
        self.iter().map(|unit| &unit.head)
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, i: usize) -> int8x16_t {
        // SAFETY: the caller's promise.
        unsafe { group(self[b].codes.as_ptr().cast(), g, i) }
    }
}

impl Units for &[Signed] {
    type Head = [f32; ROWS];

    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = [f32; ROWS]> {
        self.iter().map(|unit| unit.scale)
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, i: usize) -> int8x16_t {
        // SAFETY: the caller's promise.
        unsafe { group(self[b].codes.as_ptr(), g, i) }
    }
}

impl Units for &[StoredSigned] {
    type Head = [f32; ROWS];

    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = [f32; ROWS]> {
        self.iter().map(|unit| Neon::halves(bytemuck::cast_ref(&unit.scale)))
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, i: usize) -> int8x16_t {
        // SAFETY: the caller's promise.
        unsafe { group(self[b].codes.as_ptr(), g, i) }
    }
}

/// Units whose codes of `BITS` bits are still in planes.
pub(super) struct Packed<'a, H, const BITS: usize> {
    pub heads: &'a [H],
    pub codes: Codes,
}

impl<'a, H, const BITS: usize> Units for Packed<'a, H, BITS> {
    type Head = &'a H;

    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = &'a H> {
        self.heads.iter()
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, i: usize) -> int8x16_t {
        // SAFETY: planes of 4 bits have 256 bytes, of 2 bits 128, of one bit 64, in this order.
        unsafe {
            let codes = self.codes.first.add(b * self.codes.stride + i * 16);
            let nibble = || bits(codes.add(g % 4 * 64), g / 4 * 4, 0, 15);
            let crumb = |at: usize, to: usize| bits(codes.add(at + g % 2 * 64), g / 2 * 2, to, 3);
            vreinterpretq_s8_u8(match BITS {
                4 => nibble(),
                5 => vorrq_u8(nibble(), bits(codes.add(256), g, 4, 1)),
                6 => vorrq_u8(nibble(), crumb(256, 4)),
                3 => vorrq_u8(crumb(0, 0), bits(codes.add(128), g, 2, 1)),
                _ => crumb(0, 0),
            })
        }
    }
}

/// Units whose codes of 4 bits, still in planes, choose values.
pub(super) struct PackedValues<'a, H> {
    pub heads: &'a [H],
    pub codes: Codes,
    pub values: &'a [i8; 16],
}

impl<H: Copy> Units for PackedValues<'_, H> {
    type Head = H;

    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = H> {
        self.heads.iter().copied()
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, i: usize) -> int8x16_t {
        // SAFETY: 256 bytes in planes of 4 bits; 16 values.
        unsafe {
            let codes = self.codes.first.add(b * self.codes.stride + g % 4 * 64 + i * 16);
            vqtbl1q_s8(vld1q_s8(self.values.as_ptr()), bits(codes, g / 4 * 4, 0, 15))
        }
    }
}

/// The bits of 16 bytes that lie under `mask` from bit `from` on, moved to bit `to`.
///
/// # Safety
/// 16 bytes are readable.
#[inline(always)]
unsafe fn bits(bytes: *const u8, from: usize, to: usize, mask: u8) -> uint8x16_t {
    // SAFETY: the caller's promise. A negative count shifts to the right.
    unsafe {
        let moved = vshlq_u8(vld1q_u8(bytes), vdupq_n_s8(to as i8 - from as i8));
        vandq_u8(moved, vdupq_n_u8(mask << to))
    }
}

/// How bytes are multiplied.
pub(super) trait Dot: 'static {
    /// Each of four sums, and the products of four bytes each; none is -128.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn dot(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;
}

/// By `sdot`.
pub(super) struct Dotprod;

impl Dot for Dotprod {
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise.
        unsafe { sdot(acc, a, b) }
    }
}

/// By products in 16 bits, two of which fit one number.
pub(super) struct Pairwise;

impl Dot for Pairwise {
    #[inline(always)]
    unsafe fn dot(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: every CPU of this architecture has the instructions.
        unsafe {
            let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(a, b)))
        }
    }
}

/// Sums of four rows each: token, row.
type Dots<const T: usize> = [[int32x4_t; FOURS]; T];

/// Adds the products of some groups of unit `b` with the same block of a tile.
///
/// # Safety
/// The CPU has what `D` needs; there are more than `b` units, and blocks of `T` tokens in the tile.
#[inline(always)]
unsafe fn add_products<U: Units, D: Dot, const T: usize>(
    units: &U,
    groups: std::ops::Range<usize>,
    (tile, b): (Tile, usize),
    dots: &mut Dots<T>,
) {
    for g in groups {
        // SAFETY: the caller's promise; there are four vectors to a group.
        unsafe {
            let mut w = [vdupq_n_s8(0); FOURS];
            for (i, w) in w.iter_mut().enumerate() {
                *w = units.codes(b, g, i);
            }
            for (t, dots) in dots.iter_mut().enumerate() {
                let x = *tile.codes.add((b * GROUPS + g) * T + t);
                let x = vreinterpretq_s8_u32(vdupq_n_u32(x));
                for (dots, w) in dots.iter_mut().zip(w) {
                    *dots = D::dot(*dots, w, x);
                }
            }
        }
    }
}

/// Four numbers of `row`.
#[inline(always)]
fn four(row: &[f32; ROWS], i: usize) -> float32x4_t {
    let four = &row[4 * i..4 * i + 4];
    // SAFETY: four numbers.
    unsafe { vld1q_f32(four.as_ptr()) }
}

/// `sums = fma(dots * scale, s, sums)`.
#[inline(always)]
fn add_scaled(sums: &mut [f32; ROWS], dots: [int32x4_t; FOURS], scale: &[f32; ROWS], s: f32) {
    for (i, (sums, dots)) in sums.as_chunks_mut::<4>().0.iter_mut().zip(dots).enumerate() {
        // SAFETY: four numbers; every CPU of this architecture has the instructions.
        unsafe {
            let dots = vmulq_f32(vcvtq_f32_s32(dots), four(scale, i));
            let sum = vfmaq_n_f32(vld1q_f32(sums.as_ptr()), dots, s);
            vst1q_f32(sums.as_mut_ptr(), sum);
        }
    }
}

/// # Safety
/// As [`NeonUnit::neon`](super::arm_units::NeonUnit::neon).
#[inline(always)]
pub(super) unsafe fn quads<U, D: Dot, const OFFSETS: usize, const T: usize>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) where
    U: Units<Head: Borrow<Minima>>,
{
    for (b, head) in units.heads().enumerate() {
        let head = head.borrow();
        // SAFETY: the tile has sums for `T` tokens in each block, as many as `OFFSETS` says, or
        // one; and codes and scales.
        unsafe {
            let mut dots = [[vdupq_n_s32(0); FOURS]; T];
            for (t, dots) in dots.iter_mut().enumerate() {
                let offset = |i: usize| of_pair(*tile.sums.add((b * OFFSETS + i) * T + t));
                let offset: i32 = (0..OFFSETS).map(|i| offset(i).iter().sum::<i32>()).sum();
                *dots = [vdupq_n_s32(offset); FOURS];
            }
            add_products::<U, D, T>(&units, 0..GROUPS, (tile, b), &mut dots);
            for (t, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                add_scaled(sums, dots, &head.scale, *tile.scales.add(b * T + t));
                if OFFSETS == 0 {
                    let sum = f32::from_bits(*tile.sums.add(b * T + t));
                    for (acc, min) in sums.iter_mut().zip(&head.min) {
                        *acc = min.mul_add(sum, *acc);
                    }
                }
            }
        }
    }
}

/// The numbers of four pairs.
///
/// # Safety
/// Four pairs are readable.
#[inline(always)]
unsafe fn apart(pairs: *const u32) -> [int32x4_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let pairs = vreinterpretq_s32_u32(vld1q_u32(pairs));
        [vshrq_n_s32::<16>(vshlq_n_s32::<16>(pairs)), vshrq_n_s32::<16>(pairs)]
    }
}

/// # Safety
/// As [`NeonUnit::neon`](super::arm_units::NeonUnit::neon).
#[inline(always)]
pub(super) unsafe fn halves<'u, U, D: Dot, const JOINT: bool, const T: usize>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) where
    U: Units<Head = &'u Steps>,
{
    for (b, head) in units.heads().enumerate() {
        // SAFETY: the tile has a sum, a scale and codes for `T` tokens in each block; pairs come
        // in rows of 16.
        unsafe {
            let none = [[vdupq_n_s32(0); FOURS]; T];
            let (mut dots, mut minima) = (none, none);
            for (h, steps) in head.steps.iter().enumerate() {
                let mut half = none;
                let groups = h * GROUPS / 2..(h + 1) * GROUPS / 2;
                add_products::<U, D, T>(&units, groups, (tile, b), &mut half);
                for i in 0..FOURS {
                    let [step, _] = apart(steps.as_ptr().add(4 * i));
                    for (dots, half) in dots.iter_mut().zip(&half) {
                        dots[i] = vmlaq_s32(dots[i], half[i], step);
                    }
                }
            }
            for i in 0..FOURS {
                let [first, last] = apart(head.min_steps.as_ptr().add(4 * i));
                for (t, minima) in minima.iter_mut().enumerate() {
                    let [a, b] = of_pair(*tile.sums.add(b * T + t));
                    minima[i] = vmlaq_n_s32(vmulq_n_s32(first, a), last, b);
                }
            }
            for (t, sums) in sums.iter_mut().enumerate() {
                let s = *tile.scales.add(b * T + t);
                if JOINT {
                    let mut all = dots[t];
                    for (all, minima) in all.iter_mut().zip(minima[t]) {
                        *all = vaddq_s32(*all, minima);
                    }
                    add_scaled(sums, all, &head.scale, s);
                } else {
                    add_scaled(sums, dots[t], &head.scale, s);
                    add_scaled(sums, minima[t], &head.min_scale, s);
                }
            }
        }
    }
}

/// Signed codes with their scales, in order.
///
/// # Safety
/// As [`NeonUnit::neon`](super::arm_units::NeonUnit::neon).
#[inline(always)]
pub(super) unsafe fn signed<U: Units<Head = [f32; ROWS]>, D: Dot, const T: usize>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) {
    for (b, scale) in units.heads().enumerate() {
        // SAFETY: the tile has a scale and codes for `T` tokens in each block.
        unsafe {
            let mut dots = [[vdupq_n_s32(0); FOURS]; T];
            add_products::<U, D, T>(&units, 0..GROUPS, (tile, b), &mut dots);
            for (t, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
                add_scaled(sums, dots, &scale, *tile.scales.add(b * T + t));
            }
        }
    }
}
