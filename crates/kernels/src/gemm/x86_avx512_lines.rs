//! Products with AVX-512 VNNI whose results are lines of 64 bytes: a row of 64 columns, or, of the
//! columns that are left, two rows of 32 or four of 16. A tile is six lines, one register for each
//! row and panel.
//!
//! Each word of A that comes in serves up to four multiplications, so that there are fewer
//! instructions to issue than in tiles of one panel; and sums are finished where they are, while the
//! products of the next tile are under way.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;

use super::kernel::{NR, prefetch, word};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;

/// Registers of a line of results.
pub(crate) const WIDE: usize = 4;

/// The most lines of a tile.
const LINES: usize = 6;

/// How the words of two operands are multiplied.
#[derive(Clone, Copy)]
pub(crate) enum Dot {
    /// Four u8 with four i8.
    Bytes,
    /// Two i16 with two i16.
    Pairs,
}

/// Rows of A and `PANELS` panels: 1, 2 or [`WIDE`] of them.
pub(crate) struct LineFactors<const PANELS: usize> {
    pub(super) dot: Dot,
    /// Words of four bytes in a row of A, and in a column of B.
    pub(super) words: usize,
    /// The first row.
    pub(super) a: *const u8,
    /// From one row to the next, in bytes.
    pub(super) stride: usize,
    /// Such that [`LineFactors::fits`].
    pub(super) rows: usize,
    /// For each word, a panel has 64 bytes.
    pub(super) b: [*const u8; PANELS],
    /// The panels that are multiplied next.
    pub(super) next: [*const u8; PANELS],
}

/// The sums of a line: those of each panel, row by row.
pub(super) type Line = [__m512i; WIDE];

/// What becomes of sums.
pub(super) trait Lines {
    /// Asks for what the results of row `row` need.
    fn ahead(&self, row: usize);

    /// What the sums of a line start from.
    fn start(&self) -> Line;

    /// Makes and stores the results of the line that begins with row `row`.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW, the rows are some of those that the results are for.
    unsafe fn store(&self, row: usize, sums: Line);
}

impl<const PANELS: usize> LineFactors<PANELS> {
    /// Rows of a line.
    pub(super) const ROWS: usize = WIDE / PANELS;

    /// Whether lines can cover the rows: they are a number of lines, or more than one tile, so that
    /// the last tile can begin early enough to end with them.
    pub(super) fn fits(&self) -> bool {
        self.rows.is_multiple_of(Self::ROWS) || self.rows > LINES * Self::ROWS
    }

    /// The greatest magnitude of a sum of products.
    pub(super) fn most(&self) -> f32 {
        let products = match self.dot {
            Dot::Bytes => 4 * 255 * 128,
            // Differences of bytes.
            Dot::Pairs => 2 * 255 * 255,
        };
        self.words as f32 * products as f32
    }

    /// Multiplies all rows, and stores the lines of sums.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW and VNNI. The rows fit, rows and panels have as many words, and
    /// the lines results for all rows.
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
    /// As [`LineFactors::multiply`].
    #[inline]
    #[cfg_attr(
        not(feature = "avx512-model"),
        target_feature(enable = "avx512f,avx512bw,avx512vnni")
    )]
    unsafe fn tiles<L: Lines, const PAIRS: bool>(&self, lines: &L) {
        // Equal tiles: one of a line or two would wait for its sums.
        let count = self.rows.div_ceil(Self::ROWS);
        let tiles = count.div_ceil(LINES);
        for tile in 0..tiles {
            let (line, end) = (count * tile / tiles, count * (tile + 1) / tiles);
            // The last tile makes some rows again where they are no number of lines.
            let rows = (end - line) * Self::ROWS;
            let row = (line * Self::ROWS).min(self.rows - rows);
            (row..row + rows).for_each(|row| lines.ahead(row));
            // The first tile reads the panels; each of the others asks for one of the next ones.
            let ahead = match tile {
                0 => self.b[0],
                _ => self.next[tile % PANELS],
            };
            // SAFETY: the caller's promise.
            unsafe {
                match end - line {
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

    /// `COUNT` lines, the first row of which is `first`.
    ///
    /// # Safety
    /// As [`LineFactors::multiply`].
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
        let mut sums = [lines.start(); COUNT];
        for at in 0..self.words {
            prefetch(ahead.wrapping_add(at * 4 * NR));
            let mut b = [_mm512_setzero_si512(); PANELS];
            for (b, panel) in b.iter_mut().zip(self.b) {
                // SAFETY: the caller's promise: a panel has 64 bytes for each word.
                *b = unsafe { _mm512_loadu_si512(panel.add(at * 4 * NR).cast()) };
            }
            for (row, sums) in sums.as_flattened_mut().chunks_exact_mut(PANELS).enumerate() {
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
        for (line, sums) in sums.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { lines.store(first + line * Self::ROWS, sums) }
        }
    }
}
