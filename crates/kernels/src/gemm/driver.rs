//! The loops around a microkernel: which thread computes which block, and what happens to a tile.

use std::ops::Range;

use super::kernel::{BATCH, Microkernel, NR, Sums};
use super::panels::Panels;
use super::split::Split;
#[cfg(target_arch = "x86_64")]
use super::x86_avx512_lines::{Dot, LineFactors, WIDE};
use crate::cpu::{Job, Level};
use crate::scratch::with_scratch;
use crate::threads::Pool;

/// The left operand: rows of k groups, in memory already or gathered on demand.
pub(crate) trait Rows<T>: Sync {
    /// Elements of scratch that [`Rows::fetch`] wants per row; 0 where it needs none.
    fn scratch_per_row(&self) -> usize;

    /// The rows `range`, and their distance in elements. The scratch has [`NR`] elements more than
    /// the rows need, so that stores of whole vectors may run over.
    fn fetch<'s>(&'s self, range: Range<usize>, scratch: &'s mut [T]) -> (&'s [T], usize);
}

/// What becomes of the accumulators: the epilogue and the store.
pub(crate) trait Finish: Copy + Sync {
    /// Accumulator.
    type Acc;
    /// What the rows of one panel have in common.
    type Columns;

    /// Loads what belongs to the `width` columns from `col` on.
    fn columns(&self, col: usize, width: usize) -> Self::Columns;

    /// Asks for what `rows` rows from (`row`, `col`) on read and write, so that it is there when
    /// their sums are.
    #[inline(always)]
    fn ahead(&self, _row: usize, _col: usize, _rows: usize) {}

    /// Finishes and stores `width` results of row `row` from column `col` on. `FULL` says that
    /// `width` is [`NR`].
    ///
    /// # Safety
    /// No other call may store to the same row and columns at the same time.
    unsafe fn row<const FULL: bool>(
        &self,
        columns: &Self::Columns,
        row: usize,
        col: usize,
        width: usize,
        acc: &[Self::Acc; NR],
    );

    /// Multiplies, and finishes each result as [`Finish::row`] does, if there is a way for such
    /// results: `width` columns from row `row` and column `col` on.
    ///
    /// # Safety
    /// As [`Finish::row`] for all rows and columns; the rows fit, and the CPU has AVX-512 with BW and
    /// VNNI.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn lines<const PANELS: usize>(
        &self,
        _factors: &LineFactors<PANELS>,
        _row: usize,
        _col: usize,
        _width: usize,
    ) -> bool {
        false
    }

    /// As [`Finish::row`], with the same results, for neighbouring rows on processors that have
    /// AVX2.
    ///
    /// # Safety
    /// As [`Finish::row`] for each row, and the CPU has AVX2.
    #[inline(always)]
    unsafe fn rows_avx2(
        &self,
        columns: &Self::Columns,
        row: usize,
        col: usize,
        width: usize,
        sums: &[[Self::Acc; NR]],
    ) {
        for (r, acc) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                match width {
                    NR => self.row::<true>(columns, row + r, col, NR, acc),
                    _ => self.row::<false>(columns, row + r, col, width, acc),
                }
            }
        }
    }
}

/// Multiplies the rows `rows_of` with all panels, and finishes every output of theirs once.
///
/// # Safety
/// The CPU has `K::LEVEL`. The output behind `finish` has these rows of all columns, and nobody
/// else touches them meanwhile.
pub(crate) unsafe fn drive<K, R, F>(
    pool: &Pool,
    rows_of: Range<usize>,
    panels: &Panels<K::B>,
    rows: &R,
    finish: &F,
) where
    K: Microkernel,
    R: Rows<K::A>,
    F: Finish<Acc = K::Acc>,
{
    if rows_of.is_empty() || panels.n() == 0 {
        return;
    }
    // Copies of a row in other orders are read in few places.
    let row_bytes = panels.groups() * K::GROUP * size_of::<K::A>() * (panels.orders() + 1) / 2;
    let most = (K::A_BYTES / row_bytes.max(1) / K::MR).clamp(1, 64);
    let split = Split::even(pool.threads(), [rows_of.len(), K::MR], panels.count(), most);
    pool.for_each_range(split.tasks(), 1, |tasks| {
        for task in tasks {
            let range = split.row_range(task);
            let range = rows_of.start + range.start..rows_of.start + range.end;
            with_scratch(range.len() * rows.scratch_per_row() + NR, |scratch| {
                let cols = split.panel_range(task);
                let block = Block::<K, R, F> { rows, range, scratch, panels, cols, finish };
                // SAFETY: the CPU has the level; tasks cover disjoint rows and panels.
                unsafe { K::featured(block) }
            });
        }
    });
}

/// One task: a range of rows times a range of panels.
struct Block<'a, K: Microkernel, R, F> {
    rows: &'a R,
    range: Range<usize>,
    scratch: &'a mut [K::A],
    panels: &'a Panels<K::B>,
    cols: Range<usize>,
    finish: &'a F,
}

impl<K, R, F> Job for Block<'_, K, R, F>
where
    K: Microkernel,
    R: Rows<K::A>,
    F: Finish<Acc = K::Acc>,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (first, count) = (self.range.start, self.range.len());
        let k = self.panels.groups() * K::GROUP * self.panels.orders();
        let (data, stride) = self.rows.fetch(self.range, self.scratch);
        assert!(data.len() >= (count - 1) * stride + k, "rows of A are too short");
        let left = Left { data, stride, first, count };
        let cols = self.cols;
        // SAFETY: `drive` demands the level; rows of A are long enough by the check above, panels by
        // packing; this task alone stores these outputs.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            let cols = all_lines::<K, F>(&left, self.panels, cols, self.finish);
            // Room for sums is cleared where it is wanted only.
            if cols.is_empty() {
                return;
            }
            let mut sums = Sums::new();
            for index in cols {
                if self.panels.n() - index * NR >= NR {
                    panel::<K, F, true>(&left, self.panels, index, self.finish, &mut sums);
                } else {
                    panel::<K, F, false>(&left, self.panels, index, self.finish, &mut sums);
                }
            }
        }
    }
}

/// Rows of A, ready for the microkernel.
struct Left<'a, A> {
    data: &'a [A],
    stride: usize,
    /// Number of the first one in the output.
    first: usize,
    count: usize,
}

#[cfg(target_arch = "x86_64")]
impl<A> Left<'_, A> {
    /// The rows, and `PANELS` panels from `index` on; those behind them, below `end`, come next.
    /// `None` where lines cannot cover the rows.
    #[inline(always)]
    fn line_factors<K: Microkernel<A = A>, const PANELS: usize>(
        &self,
        dot: Dot,
        panels: &Panels<K::B>,
        index: usize,
        end: usize,
    ) -> Option<LineFactors<PANELS>> {
        let from = |first: usize| -> [*const u8; PANELS] {
            std::array::from_fn(|i| panels.panel(first + i).as_ptr().cast())
        };
        let (a, stride) = (self.data.as_ptr().cast(), self.stride * size_of::<A>());
        let next = if index + 2 * PANELS <= end { index + PANELS } else { index };
        let (b, next) = (from(index), from(next));
        let factors =
            LineFactors { dot, words: panels.groups(), a, stride, rows: self.count, b, next };
        factors.fits().then_some(factors)
    }
}

/// Multiplies the rows with panels that make lines of results: four at a time, then those that are
/// left; the panels that make none.
///
/// # Safety
/// As [`panel`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn all_lines<K: Microkernel, F: Finish<Acc = K::Acc>>(
    left: &Left<'_, K::A>,
    panels: &Panels<K::B>,
    cols: Range<usize>,
    finish: &F,
) -> Range<usize> {
    // SAFETY: the caller's promise.
    unsafe {
        let cols = lines::<K, F, WIDE>(left, panels, cols, finish);
        let cols = lines::<K, F, 2>(left, panels, cols, finish);
        lines::<K, F, 1>(left, panels, cols, finish)
    }
}

/// Multiplies the rows with `PANELS` panels at a time, as long as there are so many and the output
/// has a way for it; the panels that are left.
///
/// # Safety
/// As [`panel`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn lines<K: Microkernel, F: Finish<Acc = K::Acc>, const PANELS: usize>(
    left: &Left<'_, K::A>,
    panels: &Panels<K::B>,
    mut cols: Range<usize>,
    finish: &F,
) -> Range<usize> {
    let Some(dot) = K::DOT else { return cols };
    while cols.len() >= PANELS {
        let col = cols.start * NR;
        let width = (PANELS * NR).min(panels.n() - col);
        // A whole row of 64 is stored without the question how many columns there are.
        if PANELS == WIDE && width < PANELS * NR {
            break;
        }
        let factors = left.line_factors::<K, PANELS>(dot, panels, cols.start, cols.end);
        let Some(factors) = factors else { break };
        // SAFETY: the caller's promise; the rows fit.
        if !unsafe { finish.lines(&factors, left.first, col, width) } {
            break;
        }
        cols.start += PANELS;
    }
    cols
}

/// Multiplies the rows with panel `index`.
///
/// # Safety
/// The CPU has `K::LEVEL`; each row holds as many elements as the panel has groups of; nobody
/// else stores to these outputs.
#[inline(always)]
unsafe fn panel<K: Microkernel, F: Finish<Acc = K::Acc>, const FULL: bool>(
    left: &Left<'_, K::A>,
    panels: &Panels<K::B>,
    index: usize,
    finish: &F,
    sums: &mut Sums<K::Acc>,
) {
    // A copy of its own, which stores through raw pointers cannot change: so it stays in registers.
    let finish = *finish;
    let (b, col) = (panels.panel(index), index * NR);
    let width = if FULL { NR } else { panels.n() - col };
    let columns = finish.columns(col, width);
    for start in (0..left.count).step_by(BATCH) {
        let rows = BATCH.min(left.count - start);
        finish.ahead(left.first + start, col, rows);
        for row in (0..rows).step_by(K::MR) {
            // SAFETY: the caller's promise.
            unsafe {
                let a = left.data.as_ptr().add((start + row) * left.stride);
                let (rows, tile) = (K::MR.min(rows - row), sums.tile(row));
                K::tile(rows, panels.groups(), a, left.stride, b.as_ptr(), tile);
            }
        }
        let (first, sums) = (left.first + start, &sums.0[..rows]);
        // SAFETY: the caller's promise.
        unsafe { finish_rows::<K, F>(&finish, &columns, first, col, width, sums) }
    }
}

/// Finishes and stores rows of sums from row `first` and column `col` on.
///
/// # Safety
/// The CPU has `K::LEVEL`; nobody else stores to these outputs.
#[inline(always)]
pub(super) unsafe fn finish_rows<K: Microkernel, F: Finish>(
    finish: &F,
    columns: &F::Columns,
    first: usize,
    col: usize,
    width: usize,
    sums: &[[F::Acc; NR]],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match K::LEVEL {
            Level::Avx2 | Level::Avx512 => finish.rows_avx2(columns, first, col, width, sums),
            _ => {
                for (r, sums) in sums.iter().enumerate() {
                    match width {
                        NR => finish.row::<true>(columns, first + r, col, NR, sums),
                        _ => finish.row::<false>(columns, first + r, col, width, sums),
                    }
                }
            }
        }
    }
}
