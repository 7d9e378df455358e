//! The scalar twins: what every other microkernel must equal bit for bit.

use super::kernel::{FloatKernel, Microkernel, NR, Tile};
use crate::cpu::{Job, Level};

/// f32 products with fused multiply-add.
pub(crate) struct ScalarF32;

impl Microkernel for ScalarF32 {
    type A = f32;
    type B = f32;
    type Acc = f32;
    const MR: usize = 4;
    const GROUP: usize = 1;
    const A_BYTES: usize = 256 << 10;
    const LEVEL: Level = Level::Scalar;
    const NAME: &'static str = "gemm_f32_f32_f32__scalar_4x16";

    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        tile: &mut Tile<f32>,
    ) {
        tile[..rows].fill([0.0; NR]);
        // SAFETY: the caller's promise.
        unsafe { Self::more(rows, groups, a, lda, b, tile) }
    }

    unsafe fn featured<J: Job>(job: J) -> J::Output {
        job.run()
    }
}

impl FloatKernel for ScalarF32 {
    const PART: usize = 320;

    unsafe fn more(
        rows: usize,
        groups: usize,
        a: *const f32,
        lda: usize,
        b: *const f32,
        tile: &mut Tile<f32>,
    ) {
        for (r, acc) in tile.iter_mut().enumerate().take(rows) {
            for p in 0..groups {
                // SAFETY: row `r` has `groups` elements, the panel `groups * NR`.
                let (x, y) = unsafe { (*a.add(r * lda + p), &*b.add(p * NR).cast::<[f32; NR]>()) };
                for (acc, y) in acc.iter_mut().zip(y) {
                    *acc = x.mul_add(*y, *acc);
                }
            }
        }
    }
}

/// i16 products (8-bit values, widened), exact in i32.
pub(crate) struct ScalarI16;

impl Microkernel for ScalarI16 {
    type A = i16;
    type B = i16;
    type Acc = i32;
    const MR: usize = 4;
    const GROUP: usize = 2;
    const LEVEL: Level = Level::Scalar;
    const NAME: &'static str = "gemm_i16_i16_i32__scalar_4x16";

    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const i16,
        lda: usize,
        b: *const i16,
        tile: &mut Tile<i32>,
    ) {
        for (r, acc) in tile.iter_mut().enumerate().take(rows) {
            *acc = [0; NR];
            for g in 0..groups {
                // SAFETY: row `r` has `2 * groups` elements, the panel `2 * groups * NR`.
                let (x, y) = unsafe {
                    let x = &*a.add(r * lda + 2 * g).cast::<[i16; 2]>();
                    (x, &*b.add(2 * g * NR).cast::<[[i16; 2]; NR]>())
                };
                for (acc, y) in acc.iter_mut().zip(y) {
                    let pair =
                        i32::from(x[0]) * i32::from(y[0]) + i32::from(x[1]) * i32::from(y[1]);
                    *acc = acc.wrapping_add(pair);
                }
            }
        }
    }

    unsafe fn featured<J: Job>(job: J) -> J::Output {
        job.run()
    }
}
