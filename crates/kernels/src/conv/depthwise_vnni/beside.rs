//! Two output rows at steps of 1, for images of 32 channels: two pixels side by side are a register
//! as they lie, without any putting together. What the kernel's outer columns see lies half a
//! register further on: it is put together from the words of two registers.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::pairs::{HALF, Half, PAIR};
use super::window::Window;
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::gemm::Limits;

impl Window<'_, 1, PAIR> {
    /// As [`Window::run_pairs`], where columns and outputs are two pixels each, and the first output
    /// stands over the first column.
    ///
    /// # Safety
    /// As there.
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    pub(super) unsafe fn run_beside<const WHOLE: bool, const SIGNED: bool>(
        &mut self,
        limits: Limits,
    ) {
        if self.has_outputs() {
            // SAFETY: the caller's promise, and the checks.
            unsafe {
                self.half_beside::<WHOLE, SIGNED, 0>(limits);
                self.half_beside::<WHOLE, SIGNED, 1>(limits);
            }
        }
    }

    /// # Safety
    /// As [`Window::half`].
    #[inline]
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    unsafe fn half_beside<const WHOLE: bool, const SIGNED: bool, const SIDE: usize>(
        &mut self,
        limits: Limits,
    ) {
        // SAFETY: the caller's promise; there are halves for all outputs.
        unsafe {
            let constants = self.constants::<SIDE>(limits);
            let here = self.column::<SIGNED, SIDE>(0, &constants);
            let mut ahead = self.column::<SIGNED, SIDE>(1, &constants);
            let mut words = [between([constants.zero; HALF], here), here, between(here, ahead)];
            let mut sums = Self::sums(&words, &constants);
            for x in 1..self.columns.outputs {
                let far = self.column::<SIGNED, SIDE>(x + 1, &constants);
                words = [words[2], ahead, between(ahead, far)];
                ahead = far;
                let later = Self::sums(&words, &constants);
                self.finish::<WHOLE, SIGNED, SIDE>(sums, x - 1, &constants);
                sums = later;
            }
            let last = self.columns.outputs - 1;
            self.finish::<WHOLE, SIGNED, SIDE>(sums, last, &constants);
        }
    }
}

/// The second pixels of some words, and the first ones of those that follow.
#[inline]
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f"))]
fn between(before: Half, behind: Half) -> Half {
    [_mm512_alignr_epi64::<4>(behind[0], before[0]), _mm512_alignr_epi64::<4>(behind[1], before[1])]
}
