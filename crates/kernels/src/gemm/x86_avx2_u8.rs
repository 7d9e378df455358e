//! The microkernel for AVX2 that multiplies bytes: 4 rows by 16 columns in 8 registers.

use std::arch::asm;
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
    let rest = match acc.first_chunk_mut::<4>() {
        // SAFETY: the caller's promise.
        Some(acc) if FIRST && SECOND && SINGLE => unsafe { pairs(count, at, a, lda, acc) },
        _ => count,
    };
    let (mut begins, mut weights) = (at.begins, at.weights);
    for _ in 0..rest {
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

/// The instructions for one row and one safe group, that of `$begin` and of the weights from
/// `$first` and `$second` on.
macro_rules! row {
    ($row:literal, $begin:literal, $first:literal, $second:literal) => {
        concat!(
            "vpbroadcastd {x}, dword ptr [{a",
            $row,
            "} + {",
            $begin,
            "}]\n",
            "vpmaddubsw {y}, {x}, ymmword ptr [{weights} + ",
            $first,
            "]\n",
            "vpmaddubsw {x}, {x}, ymmword ptr [{weights} + ",
            $second,
            "]\n",
            "vpmaddwd {y}, {y}, {ones}\n",
            "vpmaddwd {x}, {x}, {ones}\n",
            "vpaddd {first",
            $row,
            "}, {first",
            $row,
            "}, {y}\n",
            "vpaddd {second",
            $row,
            "}, {second",
            $row,
            "}, {x}\n",
        )
    };
}

/// Adds groups that [`run`] adds, two at a time; returns how many are left. Most groups are safe
/// as a whole: here, a compiler would load weights into registers first and count each group. That
/// costs no time on a core of its own, but 5 % and more where another thread shares it.
///
/// # Safety
/// As [`run`], for safe groups of both halves.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn pairs(
    count: u32,
    at: &mut Cursor,
    a: *const u8,
    lda: usize,
    acc: &mut [[__m256i; 2]; 4],
) -> u32 {
    if count < 2 {
        return count;
    }
    let [[a0, b0], [a1, b1], [a2, b2], [a3, b3]] = acc;
    // SAFETY: reads the beginnings, weights and rows that the caller promises, and writes registers.
    unsafe {
        asm!(
            "2:",
            "mov {one:e}, dword ptr [{begins}]",
            "mov {two:e}, dword ptr [{begins} + 4]",
            row!("0", "one", "0", "32"),
            row!("1", "one", "0", "32"),
            row!("2", "one", "0", "32"),
            row!("3", "one", "0", "32"),
            row!("0", "two", "64", "96"),
            row!("1", "two", "64", "96"),
            row!("2", "two", "64", "96"),
            row!("3", "two", "64", "96"),
            "add {begins}, 8",
            "add {weights}, 128",
            "dec {pairs:e}",
            "jnz 2b",
            pairs = inout(reg) count / 2 => _,
            begins = inout(reg) at.begins,
            weights = inout(reg) at.weights,
            a0 = in(reg) a,
            a1 = in(reg) a.add(lda),
            a2 = in(reg) a.add(2 * lda),
            a3 = in(reg) a.add(3 * lda),
            one = out(reg) _,
            two = out(reg) _,
            x = out(ymm_reg) _,
            y = out(ymm_reg) _,
            ones = in(ymm_reg) _mm256_set1_epi16(1),
            first0 = inout(ymm_reg) *a0,
            first1 = inout(ymm_reg) *a1,
            first2 = inout(ymm_reg) *a2,
            first3 = inout(ymm_reg) *a3,
            second0 = inout(ymm_reg) *b0,
            second1 = inout(ymm_reg) *b1,
            second2 = inout(ymm_reg) *b2,
            second3 = inout(ymm_reg) *b3,
            options(nostack, readonly),
        );
    }
    count % 2
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
