//! The microkernel for AVX2 that multiplies bytes: 4 rows by 16 columns in 8 registers.

use std::arch::x86_64::*;

use super::kernel::{Microkernel, NR, Tile, word};
use super::mixed::{self, GROUP, HEADER, KINDS, SAFE, UNSAFE};
use super::panels::Panels;
use super::weights::Order;
use crate::cpu::{self, Isa, Job, Level};

/// u8 by i8 products, exact in i32: by `vpmaddubsw` where the packed weights are safe for it, by
/// `vpmaddwd` where not. Panels are those of [`mixed`], and so are the orders of a row's elements.
pub(crate) struct Avx2U8;

impl Microkernel for Avx2U8 {
    type A = u8;
    type B = i8;
    type Acc = i32;
    const MR: usize = 4;
    const GROUP: usize = GROUP;
    const LEVEL: Level = Level::Avx2;
    const NAME: &'static str = "gemm_u8_i8_i32__avx2_4x16";

    fn pack(k: usize, n: usize, at: impl Fn(usize, usize) -> i8) -> Panels<i8> {
        let values: Vec<i8> = (0..k * n).map(|i| at(i % k, i / k)).collect();
        let matrix = mixed::Matrix { values: &values, k, n, order: Order::Columns };
        mixed::pack_for(Isa::best(), matrix, 1)
    }

    #[inline(always)]
    unsafe fn tile(
        rows: usize,
        groups: usize,
        a: *const u8,
        lda: usize,
        b: *const i8,
        tile: &mut Tile<i32>,
    ) {
        // SAFETY: the caller's promise is that of `tile`.
        unsafe {
            match rows {
                4 => self::tile::<4>(groups, a, lda, b, tile),
                3 => self::tile::<3>(groups, a, lda, b, tile),
                2 => self::tile::<2>(groups, a, lda, b, tile),
                _ => self::tile::<1>(groups, a, lda, b, tile),
            }
        }
    }

    #[inline(always)]
    unsafe fn featured<J: Job>(job: J) -> J::Output {
        // SAFETY: the caller's promise.
        unsafe { cpu::run_avx2(job) }
    }
}

/// # Safety
/// As [`Microkernel::tile`], with `ROWS` rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const ROWS: usize>(
    groups: usize,
    a: *const u8,
    lda: usize,
    b: *const i8,
    tile: &mut Tile<i32>,
) {
    // SAFETY: `b` is a panel as packed; its groups begin within rows of A, as many of them as it
    // says there are.
    unsafe {
        let counts = *b.cast::<[u32; KINDS + 1]>();
        debug_assert!(counts[..KINDS].iter().sum::<u32>() as usize == groups);
        let mut at =
            Cursor { begins: b.add(HEADER).cast(), weights: b.add(counts[KINDS] as usize) };
        let mut acc = [[_mm256_setzero_si256(); 2]; ROWS];
        acc = run::<ROWS, true, true, true>(counts[0], &mut at, a, lda, acc);
        acc = run::<ROWS, true, true, false>(counts[1], &mut at, a, lda, acc);
        acc = run::<ROWS, true, false, false>(counts[2], &mut at, a, lda, acc);
        acc = run::<ROWS, false, true, false>(counts[3], &mut at, a, lda, acc);
        acc = run::<ROWS, false, false, true>(counts[4], &mut at, a, lda, acc);
        for (row, acc) in tile.iter_mut().zip(&acc) {
            _mm256_storeu_si256(row.as_mut_ptr().cast(), acc[0]);
            _mm256_storeu_si256(row.as_mut_ptr().add(NR / 2).cast(), acc[1]);
        }
    }
}

/// Where a walk over a panel stands.
struct Cursor {
    begins: *const u32,
    weights: *const i8,
}

/// Adds `count` groups whose halves are safe or not as said, and of which both halves read the
/// same bytes or not, as `SINGLE` says.
///
/// # Safety
/// The panel has as many groups of that kind at the cursor; rows of A are as long as packed.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn run<const ROWS: usize, const FIRST: bool, const SECOND: bool, const SINGLE: bool>(
    count: u32,
    at: &mut Cursor,
    a: *const u8,
    lda: usize,
    mut acc: [[__m256i; 2]; ROWS],
) -> [[__m256i; 2]; ROWS] {
    let size = |is_safe| if is_safe { SAFE } else { UNSAFE };
    let (mut begins, mut weights) = (at.begins, at.weights);
    for _ in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            let first = a.add(*begins as usize);
            let second = if SINGLE { first } else { a.add(*begins.add(1) as usize) };
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_epi32(word(first.add(r * lda)));
                let y = if SINGLE { x } else { _mm256_set1_epi32(word(second.add(r * lda))) };
                acc[0] = half::<FIRST>(x, weights, acc[0]);
                acc[1] = half::<SECOND>(y, weights.add(size(FIRST)), acc[1]);
            }
            begins = begins.add(if SINGLE { 1 } else { 2 });
            weights = weights.add(size(FIRST) + size(SECOND));
        }
    }
    *at = Cursor { begins, weights };
    acc
}

/// Adds the products of the four bytes that fill `x` with half a group of weights.
///
/// # Safety
/// The weights are of the kind said, and aligned to 32 bytes.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn half<const IS_SAFE: bool>(x: __m256i, weights: *const i8, acc: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let first = _mm256_load_si256(weights.cast());
        if IS_SAFE {
            let pairs = _mm256_maddubs_epi16(x, first);
            return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
        let even = _mm256_and_si256(x, _mm256_set1_epi16(0xff));
        let odd = _mm256_srli_epi16::<8>(x);
        let second = _mm256_load_si256(weights.add(SAFE).cast());
        let sum = _mm256_add_epi32(_mm256_madd_epi16(even, first), _mm256_madd_epi16(odd, second));
        _mm256_add_epi32(acc, sum)
    }
}
