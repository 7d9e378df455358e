//! The innermost loop of the int8 depthwise convolution, and its scalar twin.

use crate::cpu::Job;
use crate::gemm::kernel::NR;

/// Distances in the ring of prepared rows, in elements.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// Kernel columns.
    pub(super) taps: usize,
    /// From one kernel column to the next.
    pub(super) tap: usize,
    /// From one output pixel to the next.
    pub(super) pixel: usize,
}

/// A few output pixels times [`NR`] channels, from pairs of interleaved input rows.
pub(super) trait PairTile {
    /// Whether the instructions include AVX2.
    const AVX2: bool;

    /// Sums over the pairs of rows at `ring + rows[i]` and over the kernel columns. The weights
    /// hold a group of [`NR`] pairs per row and kernel column.
    ///
    /// # Safety
    /// The CPU has the instructions. Every group of `2 * NR` elements that `rows` and `step` lead
    /// to is readable, for all `N` pixels, and the weights are complete.
    unsafe fn tile<const N: usize>(
        ring: *const i16,
        rows: &[usize],
        step: Step,
        weights: *const i16,
        sums: &mut [[i32; NR]; N],
    );

    /// Writes `(byte ^ flip) - zero` of both rows, interleaved.
    ///
    /// # Safety
    /// The CPU has the instructions; `2 * NR` elements are writable at `out`.
    unsafe fn widen(even: &[u8; NR], odd: &[u8; NR], flip: u8, zero: u8, out: *mut i16);

    /// Runs `job` compiled for the instructions.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn featured<J: Job>(job: J) -> J::Output;
}

/// The scalar twin.
pub(super) struct ScalarPairs;

impl PairTile for ScalarPairs {
    const AVX2: bool = false;

    unsafe fn tile<const N: usize>(
        ring: *const i16,
        rows: &[usize],
        step: Step,
        weights: *const i16,
        sums: &mut [[i32; NR]; N],
    ) {
        let mut acc = [[0i32; NR]; N];
        for (i, row) in rows.iter().enumerate() {
            for tap in 0..step.taps {
                // SAFETY: the caller's promise.
                let weights = unsafe { &*weights.add((i * step.taps + tap) * 2 * NR).cast() };
                let weights: &[[i16; 2]; NR] = weights;
                for (n, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: the caller's promise.
                    let values: &[[i16; 2]; NR] =
                        unsafe { &*ring.add(row + tap * step.tap + n * step.pixel).cast() };
                    for (acc, (a, b)) in acc.iter_mut().zip(values.iter().zip(weights)) {
                        *acc = acc.wrapping_add(i32::from(a[0]) * i32::from(b[0]));
                        *acc = acc.wrapping_add(i32::from(a[1]) * i32::from(b[1]));
                    }
                }
            }
        }
        *sums = acc;
    }

    unsafe fn widen(even: &[u8; NR], odd: &[u8; NR], flip: u8, zero: u8, out: *mut i16) {
        // SAFETY: the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(out, 2 * NR) };
        for (i, out) in out.iter_mut().enumerate() {
            let byte = if i % 2 == 0 { even[i / 2] } else { odd[i / 2] };
            *out = i16::from(byte ^ flip) - i16::from(zero);
        }
    }

    unsafe fn featured<J: Job>(job: J) -> J::Output {
        job.run()
    }
}
