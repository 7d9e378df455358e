//! Microkernels for 64-bit Arm: 6 rows by 16 columns in 24 of 32 registers.
//!
//! Every such processor has fused multiply-add and 16-bit products (`smlal`). Bytes are multiplied
//! by four products per lane (`sdot`, Armv8.2 with `dotprod`) or by two rows times two columns of
//! eight (`smmla`, Armv8.6 with `i8mm`). Both take signed bytes: unsigned activations lose 128, and
//! the sums of the weights' columns give it back, as they do for every zero point.

use std::arch::aarch64::*;
use std::arch::asm;

use super::kernel::{FloatKernel, Microkernel, NR, Tile, word};
use crate::cpu::{self, Job, Level};

/// Registers of four sums per row.
const FOURS: usize = NR / 4;

/// Calls `$f` for a tile of as many rows.
macro_rules! by_rows {
    ($f:ident $(, $more:literal)?; $rows:expr, $groups:expr, $a:expr, $lda:expr, $b:expr, $tile:expr) => {
        match $rows {
            6 => $f::<6 $(, $more)?>($groups, $a, $lda, $b, $tile),
            5 => $f::<5 $(, $more)?>($groups, $a, $lda, $b, $tile),
            4 => $f::<4 $(, $more)?>($groups, $a, $lda, $b, $tile),
            3 => $f::<3 $(, $more)?>($groups, $a, $lda, $b, $tile),
            2 => $f::<2 $(, $more)?>($groups, $a, $lda, $b, $tile),
            _ => $f::<1 $(, $more)?>($groups, $a, $lda, $b, $tile),
        }
    };
}

/// f32 products with fused multiply-add.
pub(crate) struct NeonF32;

impl Microkernel for NeonF32 {
    type A = f32;
    type B = f32;
    type Acc = f32;
    const MR: usize = 6;
    const GROUP: usize = 1;
    const A_BYTES: usize = 256 << 10;
    const LEVEL: Level = Level::Neon;
    const NAME: &'static str = "gemm_f32_f32_f32__neon_6x16";

    #[inline(always)]
    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        tile: &mut Tile<f32>,
    ) {
        // SAFETY: the caller's promise is that of `tile_f32`.
        unsafe { by_rows!(tile_f32, true; rows, groups, a, lda, b, tile) }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        job.run()
    }
}

impl FloatKernel for NeonF32 {
    const PART: usize = 320;

    #[inline(always)]
    unsafe fn more(
        rows: usize,
        groups: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        tile: &mut Tile<f32>,
    ) {
        // SAFETY: the caller's promise is that of `tile_f32`.
        unsafe { by_rows!(tile_f32, false; rows, groups, a, lda, b, tile) }
    }
}

/// # Safety
/// As [`Microkernel::tile`], or as [`FloatKernel::more`] unless `FRESH`, with `ROWS` rows.
#[target_feature(enable = "neon")]
unsafe fn tile_f32<const ROWS: usize, const FRESH: bool>(
    groups: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    tile: &mut Tile<f32>,
) {
    let mut acc = [[vdupq_n_f32(0.0); FOURS]; ROWS];
    if !FRESH {
        for (row, acc) in tile.iter().zip(&mut acc) {
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: a row of the tile has 16 elements.
                *acc = unsafe { vld1q_f32(row.as_ptr().add(4 * i)) };
            }
        }
    }
    for p in 0..groups {
        // SAFETY: `p` is a k index; rows and panel reach `groups`.
        unsafe {
            let b = b.add(p * NR);
            let b = [vld1q_f32(b), vld1q_f32(b.add(4)), vld1q_f32(b.add(8)), vld1q_f32(b.add(12))];
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = *a.add(r * lda + p);
                for (acc, b) in acc.iter_mut().zip(b) {
                    *acc = vfmaq_n_f32(*acc, b, x);
                }
            }
        }
    }
    for (row, acc) in tile.iter_mut().zip(acc) {
        for (i, acc) in acc.into_iter().enumerate() {
            // SAFETY: a row of the tile has 16 elements.
            unsafe { vst1q_f32(row.as_mut_ptr().add(4 * i), acc) }
        }
    }
}

/// i16 products (8-bit values, widened), exact in i32.
pub(crate) struct NeonI16;

impl Microkernel for NeonI16 {
    type A = i16;
    type B = i16;
    type Acc = i32;
    const MR: usize = 6;
    const GROUP: usize = 2;
    const LEVEL: Level = Level::Neon;
    const NAME: &'static str = "gemm_i16_i16_i32__neon_6x16";

    #[inline(always)]
    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const i16,
        lda: usize,
        b: *const i16,
        tile: &mut Tile<i32>,
    ) {
        // SAFETY: the caller's promise is that of `tile_i16`.
        unsafe { by_rows!(tile_i16; rows, groups, a, lda, b, tile) }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        job.run()
    }
}

/// Writes the sums of a row, in order.
///
/// # Safety
/// The CPU has NEON, as all of this architecture.
#[inline]
#[target_feature(enable = "neon")]
fn store_row(row: &mut [i32; NR], acc: [int32x4_t; FOURS]) {
    for (i, acc) in acc.into_iter().enumerate() {
        // SAFETY: a row of the tile has 16 elements.
        unsafe { vst1q_s32(row.as_mut_ptr().add(4 * i), acc) }
    }
}

/// # Safety
/// As [`Microkernel::tile`], with `ROWS` rows.
#[target_feature(enable = "neon")]
unsafe fn tile_i16<const ROWS: usize>(
    groups: usize,
    a: *const i16,
    lda: usize,
    b: *const i16,
    tile: &mut Tile<i32>,
) {
    let mut acc = [[vdupq_n_s32(0); FOURS]; ROWS];
    for g in 0..groups {
        // SAFETY: `g` is a group; rows and panel reach `groups`.
        unsafe {
            // The first of each pair, and the second, of eight columns.
            let b = b.add(2 * g * NR);
            let (low, high) = (vld2q_s16(b), vld2q_s16(b.add(NR)));
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = a.add(r * lda + 2 * g);
                for (x, b) in [(*x, [low.0, high.0]), (*x.add(1), [low.1, high.1])] {
                    acc[0] = vmlal_n_s16(acc[0], vget_low_s16(b[0]), x);
                    acc[1] = vmlal_high_n_s16(acc[1], b[0], x);
                    acc[2] = vmlal_n_s16(acc[2], vget_low_s16(b[1]), x);
                    acc[3] = vmlal_high_n_s16(acc[3], b[1], x);
                }
            }
        }
    }
    for (row, acc) in tile.iter_mut().zip(acc) {
        store_row(row, acc);
    }
}

/// i8 by i8 products by `sdot`, exact in i32.
pub(crate) struct DotI8;

impl Microkernel for DotI8 {
    type A = i8;
    type B = i8;
    type Acc = i32;
    const MR: usize = 6;
    const GROUP: usize = 4;
    const LEVEL: Level = Level::Dotprod;
    const NAME: &'static str = "gemm_i8_i8_i32__dotprod_6x16";

    #[inline(always)]
    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const i8,
        lda: usize,
        b: *const i8,
        tile: &mut Tile<i32>,
    ) {
        // SAFETY: the caller's promise is that of `tile_dot`.
        unsafe { by_rows!(tile_dot; rows, groups, a, lda, b, tile) }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's promise.
        unsafe { cpu::run_dotprod(job) }
    }
}

/// Each of four sums, and the products of four bytes each. The intrinsic is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the instruction is there.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// # Safety
/// As [`Microkernel::tile`], with `ROWS` rows.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile_dot<const ROWS: usize>(
    groups: usize,
    a: *const i8,
    lda: usize,
    b: *const i8,
    tile: &mut Tile<i32>,
) {
    let mut acc = [[vdupq_n_s32(0); FOURS]; ROWS];
    for g in 0..groups {
        // SAFETY: `g` is a group; rows and panel reach `groups`.
        unsafe {
            let b = b.add(4 * g * NR);
            let b = [vld1q_s8(b), vld1q_s8(b.add(16)), vld1q_s8(b.add(32)), vld1q_s8(b.add(48))];
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = vreinterpretq_s8_s32(vdupq_n_s32(word(a.add(r * lda + 4 * g))));
                for (acc, b) in acc.iter_mut().zip(b) {
                    *acc = sdot(*acc, b, x);
                }
            }
        }
    }
    for (row, acc) in tile.iter_mut().zip(acc) {
        store_row(row, acc);
    }
}

/// i8 by i8 products by `smmla`, exact in i32.
pub(crate) struct MatrixI8;

impl Microkernel for MatrixI8 {
    type A = i8;
    type B = i8;
    type Acc = i32;
    const MR: usize = 6;
    const GROUP: usize = 8;
    const LEVEL: Level = Level::I8mm;
    const NAME: &'static str = "gemm_i8_i8_i32__i8mm_6x16";

    #[inline(always)]
    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const i8,
        lda: usize,
        b: *const i8,
        tile: &mut Tile<i32>,
    ) {
        // SAFETY: the caller's promise is that of `tile_matrix`, with pairs for all rows.
        unsafe {
            match rows {
                5.. => tile_matrix::<3>(rows, groups, a, lda, b, tile),
                3.. => tile_matrix::<2>(rows, groups, a, lda, b, tile),
                _ => tile_matrix::<1>(rows, groups, a, lda, b, tile),
            }
        }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's promise.
        unsafe { cpu::run_i8mm(job) }
    }
}

/// The four sums of two rows and two columns, and the products of eight bytes each. The intrinsic
/// is not stable yet.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut acc: int32x4_t, rows: int8x16_t, columns: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the instruction is there.
    unsafe {
        asm!(
            "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) rows, b = in(vreg) columns,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// # Safety
/// As [`Microkernel::tile`], with one or two rows in each of `PAIRS` pairs.
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn tile_matrix<const PAIRS: usize>(
    rows: usize,
    groups: usize,
    a: *const i8,
    lda: usize,
    b: *const i8,
    tile: &mut Tile<i32>,
) {
    let mut acc = [[vdupq_n_s32(0); NR / 2]; PAIRS];
    // Of an odd number, the last row is multiplied twice.
    let starts: [[usize; 2]; PAIRS] =
        std::array::from_fn(|p| [2 * p * lda, (2 * p + 1).min(rows - 1) * lda]);
    for g in 0..groups {
        // SAFETY: `g` is a group; rows and panel reach `groups`.
        unsafe {
            let mut x = [vdupq_n_s8(0); PAIRS];
            for (x, [even, odd]) in x.iter_mut().zip(starts) {
                let a = a.add(8 * g);
                *x = vcombine_s8(vld1_s8(a.add(even)), vld1_s8(a.add(odd)));
            }
            for i in 0..NR / 2 {
                let b = vld1q_s8(b.add(8 * g * NR + 16 * i));
                for (acc, x) in acc.iter_mut().zip(x) {
                    acc[i] = smmla(acc[i], x, b);
                }
            }
        }
    }
    for (row, sums) in tile.iter_mut().enumerate().take(rows) {
        for (i, acc) in acc[row / 2].into_iter().enumerate() {
            let two = if row % 2 == 0 { vget_low_s32(acc) } else { vget_high_s32(acc) };
            // SAFETY: a row of the tile has 16 elements.
            unsafe { vst1_s32(sums.as_mut_ptr().add(2 * i), two) }
        }
    }
}
