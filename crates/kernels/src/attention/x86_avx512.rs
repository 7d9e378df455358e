//! The sums of a few queries with AVX-512: one register for 16 of them, and so many at once that
//! none waits for its last addition.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::LANES;
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;

/// Products of `R` queries with a block of turned keys.
///
/// # Safety
/// The CPU has AVX-512 F.
///
/// # Panics
/// When a query has fewer elements than a key.
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f"))]
pub(super) unsafe fn dot<const R: usize>(
    keys: &[[f32; LANES]],
    q: [&[f32]; R],
) -> [[f32; LANES]; R] {
    let q = q.map(|q| q[..keys.len()].as_ptr());
    let mut sums = [_mm512_setzero_ps(); R];
    for (d, keys) in keys.iter().enumerate() {
        // SAFETY: 16 elements are read of as many, and each query has one at `d`.
        unsafe {
            let keys = _mm512_loadu_ps(keys.as_ptr());
            for (sum, q) in sums.iter_mut().zip(q) {
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(*q.add(d)), keys, *sum);
            }
        }
    }
    let mut out = [[0f32; LANES]; R];
    for (out, sum) in out.iter_mut().zip(sums) {
        // SAFETY: 16 elements are written to as many.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) }
    }
    out
}

/// Adds the first elements of values that lie `stride` apart, `C` blocks, to `sums`, by `R` rows of
/// weights.
///
/// # Safety
/// The CPU has AVX-512 F.
///
/// # Panics
/// When rows of weights differ in length, or there are fewer values.
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f"))]
pub(super) unsafe fn mix<const R: usize, const C: usize>(
    sums: [&mut [f32]; R],
    values: &[f32],
    stride: usize,
    weights: [&[f32]; R],
) {
    let count = weights[0].len();
    if count == 0 {
        return;
    }
    let values = values[..(count - 1) * stride + C * LANES].as_ptr();
    let weights = weights.map(|weights| weights[..count].as_ptr());
    let sums = sums.map(|sums| sums[..C * LANES].as_mut_ptr());
    let mut acc = [[_mm512_setzero_ps(); C]; R];
    for (acc, &sums) in acc.iter_mut().zip(&sums) {
        for (block, acc) in acc.iter_mut().enumerate() {
            // SAFETY: all blocks were checked.
            *acc = unsafe { _mm512_loadu_ps(sums.add(block * LANES)) };
        }
    }
    for j in 0..count {
        let mut blocks = [_mm512_setzero_ps(); C];
        for (at, block) in blocks.iter_mut().enumerate() {
            // SAFETY: all values were checked.
            *block = unsafe { _mm512_loadu_ps(values.add(j * stride + at * LANES)) };
        }
        for (acc, weights) in acc.iter_mut().zip(weights) {
            // SAFETY: each row has that many weights.
            let weight = _mm512_set1_ps(unsafe { *weights.add(j) });
            for (acc, &block) in acc.iter_mut().zip(&blocks) {
                *acc = _mm512_fmadd_ps(weight, block, *acc);
            }
        }
    }
    for (acc, sums) in acc.into_iter().zip(sums) {
        for (block, acc) in acc.into_iter().enumerate() {
            // SAFETY: all blocks were checked.
            unsafe { _mm512_storeu_ps(sums.add(block * LANES), acc) }
        }
    }
}
