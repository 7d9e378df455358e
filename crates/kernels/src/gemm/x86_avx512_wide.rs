//! Products with AVX-512 VNNI for 64 columns side by side, whose results are whole cache lines:
//! six rows by four panels, one register per row and panel.
//!
//! Each word of A that comes in serves four multiplications, so that there are fewer instructions
//! to issue than in tiles of one panel; and sums are finished where they are, while the products of
//! the next tile are under way.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::kernel::{NR, prefetch, word};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;

/// Panels side by side: their bytes are one cache line.
pub(crate) const WIDE: usize = 4;

/// The most rows of a tile.
const ROWS: usize = 6;

/// How the words of two operands are multiplied.
#[derive(Clone, Copy)]
pub(crate) enum Dot {
    /// Four u8 with four i8.
    Bytes,
    /// Two i16 with two i16.
    Pairs,
}

/// Rows of A and [`WIDE`] whole panels.
pub(crate) struct WideFactors {
    pub(super) dot: Dot,
    /// Words of four bytes in a row of A, and in a column of B.
    pub(super) words: usize,
    /// The first row.
    pub(super) a: *const u8,
    /// From one row to the next, in bytes.
    pub(super) stride: usize,
    pub(super) rows: usize,
    /// For each word, a panel has 64 bytes.
    pub(super) b: [*const u8; WIDE],
    /// The panels that are multiplied next.
    pub(super) next: [*const u8; WIDE],
}

/// The sums of a row: those of each panel.
pub(super) type Line = [__m512i; WIDE];

/// What becomes of sums.
pub(super) trait Lines {
    /// Asks for what the results of row `row` need.
    fn ahead(&self, row: usize);

    /// Makes and stores the results of row `row`.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW, the row is one of those that the results are for.
    unsafe fn store(&self, row: usize, sums: Line);
}

impl WideFactors {
    /// The greatest magnitude of a sum of products.
    pub(super) fn most(&self) -> f32 {
        let products = match self.dot {
            Dot::Bytes => 4 * 255 * 128,
            // Differences of bytes.
            Dot::Pairs => 2 * 255 * 255,
        };
        self.words as f32 * products as f32
    }

    /// Multiplies all rows; each line of sums is stored once.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW and VNNI. Rows and panels have as many words, and the lines
    /// results for all rows.
    #[inline]
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    pub(super) unsafe fn multiply<L: Lines>(&self, lines: &L) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.dot {
                Dot::Bytes => self.tiles::<L, false>(lines),
                Dot::Pairs => self.tiles::<L, true>(lines),
            }
        }
    }

    /// # Safety
    /// As [`WideFactors::multiply`].
    #[inline]
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    unsafe fn tiles<L: Lines, const PAIRS: bool>(&self, lines: &L) {
        // Equal tiles: one of a row or two would wait for its sums.
        let tiles = self.rows.div_ceil(ROWS);
        for tile in 0..tiles {
            let (row, end) = (self.rows * tile / tiles, self.rows * (tile + 1) / tiles);
            (row..end).for_each(|row| lines.ahead(row));
            // The first tile reads the panels; each of the others asks for one of the next ones.
            let ahead = match tile {
                0 => self.b[0],
                _ => self.next[tile % WIDE],
            };
            // SAFETY: the caller's promise.
            unsafe {
                match end - row {
                    6 => self.tile::<L, PAIRS, 6>(row, ahead, lines),
                    5 => self.tile::<L, PAIRS, 5>(row, ahead, lines),
                    4 => self.tile::<L, PAIRS, 4>(row, ahead, lines),
                    3 => self.tile::<L, PAIRS, 3>(row, ahead, lines),
                    2 => self.tile::<L, PAIRS, 2>(row, ahead, lines),
                    _ => self.tile::<L, PAIRS, 1>(row, ahead, lines),
                }
            }
        }
    }

    /// `COUNT` rows from `first` on.
    ///
    /// # Safety
    /// As [`WideFactors::multiply`].
    #[inline]
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    unsafe fn tile<L: Lines, const PAIRS: bool, const COUNT: usize>(
        &self,
        first: usize,
        ahead: *const u8,
        lines: &L,
    ) {
        let a = self.a.wrapping_add(first * self.stride);
        let mut sums = [[_mm512_setzero_si512(); WIDE]; COUNT];
        for at in 0..self.words {
            prefetch(ahead.wrapping_add(at * 4 * NR));
            let mut b = [_mm512_setzero_si512(); WIDE];
            for (b, panel) in b.iter_mut().zip(self.b) {
                // SAFETY: the caller's promise: a panel has 64 bytes for each word.
                *b = unsafe { _mm512_loadu_si512(panel.add(at * 4 * NR).cast()) };
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise: a row has the word.
                let a = unsafe { word(a.add(row * self.stride + 4 * at)) };
                let a = _mm512_set1_epi32(a);
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = match PAIRS {
                        false => _mm512_dpbusd_epi32(*sum, a, b),
                        true => _mm512_dpwssd_epi32(*sum, a, b),
                    };
                }
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { lines.store(first + row, sums) }
        }
    }
}
