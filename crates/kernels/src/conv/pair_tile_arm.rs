//! Registers for the int8 depthwise convolution on 64-bit Arm: four channels each.

use std::arch::aarch64::*;

use super::pair_tile::Lanes;
use crate::cpu::Job;
use crate::gemm::kernel::NR;

/// Four channels per register.
pub(super) struct NeonLanes;

impl Lanes for NeonLanes {
    type Register = int32x4_t;
    const CHANNELS: usize = 4;
    const AVX2: bool = false;

    #[inline(always)]
    unsafe fn zero() -> int32x4_t {
        // SAFETY: every CPU of this architecture has the instruction.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    unsafe fn load(pairs: *const i16) -> int32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vreinterpretq_s32_s16(vld1q_s16(pairs)) }
    }

    #[inline(always)]
    unsafe fn add_products(sums: int32x4_t, pairs: int32x4_t, weights: int32x4_t) -> int32x4_t {
        // SAFETY: every CPU of this architecture has the instructions.
        unsafe {
            let (x, w) = (vreinterpretq_s16_s32(pairs), vreinterpretq_s16_s32(weights));
            let low = vmull_s16(vget_low_s16(x), vget_low_s16(w));
            vaddq_s32(sums, vpaddq_s32(low, vmull_high_s16(x, w)))
        }
    }

    #[inline(always)]
    unsafe fn store(sums: int32x4_t, out: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_s32(out, sums) }
    }

    #[inline(always)]
    unsafe fn widen(even: &[u8; NR], odd: &[u8; NR], flip: u8, zero: u8, out: *mut i16) {
        // SAFETY: 16 elements are readable in each row, and 32 writable by the caller's promise.
        unsafe {
            let (flip, zero) = (vdupq_n_u8(flip), vdup_n_u8(zero));
            let even = veorq_u8(vld1q_u8(even.as_ptr()), flip);
            let odd = veorq_u8(vld1q_u8(odd.as_ptr()), flip);
            for (i, both) in [vzip1q_u8(even, odd), vzip2q_u8(even, odd)].into_iter().enumerate() {
                // The difference wraps around, which makes it the signed one.
                let low = vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(both), zero));
                let high = vreinterpretq_s16_u16(vsubl_u8(vget_high_u8(both), zero));
                vst1q_s16(out.add(16 * i), low);
                vst1q_s16(out.add(16 * i + 8), high);
            }
        }
    }

    unsafe fn featured<J: Job>(job: J) -> J::Output {
        job.run()
    }
}
