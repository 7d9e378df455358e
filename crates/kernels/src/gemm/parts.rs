//! f32 products, with k cut into parts, so that what is read again and again stays in the caches
//! next to the core: a part of a panel of B in the first one, a part of some rows of A in the
//! second one. B comes from farther away, once per block of rows.
//!
//! Sums wait in memory for their next part and go on where they were: cutting changes no bit.

use std::ops::Range;

use super::blocks::Blocks;
use super::driver::{Finish, finish_rows};
use super::float::FloatFinish;
use super::kernel::{Ahead, BATCH, Factors, FloatKernel, MAX_MR, NR};
use super::split::Split;
use crate::cpu::Job;
use crate::scratch::with_scratch;
use crate::threads::Pool;

/// The most rows of a task.
const MOST_ROWS: usize = 240;

/// The most panels of a task whose sums wait for further parts.
const MOST_PANELS: usize = 32;

/// The left operand, of which a part of k can be fetched.
pub(crate) trait LeftParts: Sync {
    /// Elements of scratch that [`LeftParts::fetch_part`] wants per row where parts are `len` of `k`,
    /// the last one fewer; 0 where it needs none.
    fn scratch_per_row(&self, len: usize, k: usize) -> usize;

    /// The elements `k` of the rows `rows`, and the distance of two rows. The scratch has `per_row`
    /// elements for each of them, as [`LeftParts::scratch_per_row`] said, and [`NR`] more.
    fn fetch_part<'s>(
        &'s self,
        rows: Range<usize>,
        k: Range<usize>,
        per_row: usize,
        scratch: &'s mut [f32],
    ) -> (&'s [f32], usize);
}

/// The right operand: panels of [`NR`] columns, ready or decoded on demand.
pub(crate) trait RightParts: Sync {
    /// Length of the sums, and number of columns.
    fn size(&self) -> (usize, usize);

    /// Parts begin at multiples of this.
    fn step(&self) -> usize;

    /// The rows `k` of panel `index`; the scratch has as many.
    fn part<'s>(
        &'s self,
        index: usize,
        k: Range<usize>,
        scratch: &'s mut [[f32; NR]],
    ) -> &'s [[f32; NR]];

    /// Whether parts lie there as they are multiplied, so that no scratch is needed.
    fn is_ready(&self) -> bool {
        false
    }

    /// The bytes that [`RightParts::part`] reads, where it pays to ask for them in advance.
    fn bytes(&self, _index: usize, _k: Range<usize>) -> &[u8] {
        &[]
    }
}

/// How k is cut: into parts of `len`, the last of which may be shorter.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) k: usize,
    len: usize,
}

impl Cut {
    /// Parts of at most `most`, which begin at multiples of `step`.
    fn new(k: usize, step: usize, most: usize) -> Cut {
        let most = most / step * step;
        let count = k.div_ceil(most.max(step)).max(1);
        Cut { k, len: k.div_ceil(count).next_multiple_of(step.max(8)).clamp(1, k.max(1)) }
    }

    pub(super) fn count(self) -> usize {
        self.k.div_ceil(self.len).max(1)
    }

    pub(super) fn part(self, index: usize) -> Range<usize> {
        index * self.len..self.k.min((index + 1) * self.len)
    }
}

/// Blocks of rows of which a part stays in the second-level cache, and tasks of equal size for all
/// threads.
fn split<K: FloatKernel>(threads: usize, rows: usize, cut: Cut, panels: usize) -> Split {
    let most = (K::A_BYTES / size_of::<f32>() / cut.len).clamp(K::MR, MOST_ROWS) / K::MR;
    let most_panels = if cut.count() == 1 { panels } else { MOST_PANELS };
    Split::even(threads, [rows, K::MR], panels, most).panels_at_most(most_panels)
}

/// Multiplies `m` rows with all panels, and finishes every output once.
///
/// # Safety
/// The CPU has `K::LEVEL`. The output behind `finish` has `m` rows of all columns, and nobody else
/// touches them meanwhile.
pub(crate) unsafe fn drive_parts<K: FloatKernel, R: LeftParts>(
    pool: &Pool,
    m: usize,
    right: &dyn RightParts,
    rows: &R,
    finish: &FloatFinish<'_>,
) {
    let (k, n) = right.size();
    if m == 0 || n == 0 {
        return;
    }
    let cut = Cut::new(k, right.step(), K::PART);
    let split = split::<K>(pool.threads(), m, cut, n.div_ceil(NR));
    pool.for_each_range(split.tasks(), 1, |tasks| {
        for task in tasks {
            let (rows_of, panels) = (split.row_range(task), split.panel_range(task));
            let task = Task::<K, R> {
                kernel: std::marker::PhantomData,
                rows,
                right,
                finish,
                cut,
                rows_of,
                panels,
            };
            // SAFETY: the CPU has the level; tasks cover disjoint rows and panels.
            with_scratch(task.scratch(), |scratch| unsafe { K::featured(Run { task, scratch }) });
        }
    });
}

/// One task: a range of rows times a range of panels.
pub(super) struct Task<'a, K, R> {
    kernel: std::marker::PhantomData<fn() -> K>,
    rows: &'a R,
    pub(super) right: &'a dyn RightParts,
    pub(super) finish: &'a FloatFinish<'a>,
    pub(super) cut: Cut,
    rows_of: Range<usize>,
    pub(super) panels: Range<usize>,
}

impl<K: FloatKernel, R: LeftParts> Task<'_, K, R> {
    /// Elements for a row of A.
    fn left_per_row(&self) -> usize {
        self.rows.scratch_per_row(self.cut.len, self.cut.k)
    }

    /// Elements for all rows of A, filled up to whole cache lines.
    fn left_len(&self) -> usize {
        (self.rows_of.len() * self.left_per_row() + NR).next_multiple_of(NR)
    }

    /// Rows of sums per panel: those of a batch where they are finished at once, and room for a
    /// tile that begins at the last one.
    pub(super) fn sums_len(&self) -> usize {
        let rows = self.rows_of.len();
        MAX_MR + if self.cut.count() == 1 { rows.min(BATCH) } else { rows }
    }

    fn scratch(&self) -> usize {
        let panels = if self.cut.count() == 1 { 1 } else { self.panels.len() };
        self.left_len() + (self.cut.len + panels * self.sums_len()) * NR
    }
}

struct Run<'a, 's, K, R> {
    task: Task<'a, K, R>,
    scratch: &'s mut [f32],
}

impl<K: FloatKernel, R: LeftParts> Job for Run<'_, '_, K, R> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Run { task, scratch } = self;
        let (a, rest) = scratch.split_at_mut(task.left_len());
        let (b, sums) = rest.as_chunks_mut::<NR>().0.split_at_mut(task.cut.len);
        let (count, sums_len) = (task.rows_of.len(), task.sums_len());
        let per_row = task.left_per_row();
        for index in 0..task.cut.count() {
            let k = task.cut.part(index);
            let (data, stride) = task.rows.fetch_part(task.rows_of.clone(), k.clone(), per_row, a);
            assert!(data.len() >= (count - 1) * stride + k.len(), "rows of A are too short");
            let left = Left { data, stride, first: task.rows_of.start, count };
            if K::B_BYTES > 0 {
                let blocks = Blocks { task: &task, left: &left, index, k };
                // SAFETY: as below.
                unsafe { blocks.run(b, sums) }
                continue;
            }
            for (i, panel) in task.panels.clone().enumerate() {
                let b = task.right.part(panel, k.clone(), b);
                assert!(b.len() >= k.len(), "a panel of B is too short");
                let at = if task.cut.count() == 1 { 0 } else { i * sums_len };
                let sums = &mut sums[at..][..sums_len];
                let pass = Pass { left: &left, b, k: k.clone(), of: task.cut.k, panel };
                // SAFETY: `drive_parts` demands the level; rows of A and of the panel are long
                // enough; this task alone stores these outputs.
                unsafe { pass.run::<K>(task.right.size().1, task.finish, sums) }
            }
        }
    }
}

/// A part of some rows of A, ready for the microkernel.
pub(super) struct Left<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
    /// Number of the first one in the output.
    pub(super) first: usize,
    pub(super) count: usize,
}

/// One part of k: rows of A times a panel of B.
struct Pass<'a> {
    left: &'a Left<'a>,
    b: &'a [[f32; NR]],
    k: Range<usize>,
    of: usize,
    panel: usize,
}

impl Pass<'_> {
    /// Adds the products to the sums; finishes them after the last part.
    ///
    /// # Safety
    /// The CPU has `K::LEVEL`; each row of A holds `k.len()` elements; nobody else stores to these
    /// outputs.
    #[inline(always)]
    unsafe fn run<K: FloatKernel>(
        &self,
        n: usize,
        finish: &FloatFinish<'_>,
        sums: &mut [[f32; NR]],
    ) {
        let (first, last) = (self.k.start == 0, self.k.end == self.of);
        // A copy of its own, which stores through raw pointers cannot change.
        let (finish, col) = (*finish, self.panel * NR);
        let width = NR.min(n - col);
        let columns = finish.columns(col, width);
        if first && last && width == NR {
            // SAFETY: the caller's promise.
            return unsafe { self.whole::<K>(&finish, &columns) };
        }
        for start in (0..self.left.count).step_by(BATCH) {
            let rows = BATCH.min(self.left.count - start);
            let at = if first && last { 0 } else { start };
            if last {
                finish.ahead(self.left.first + start, col, rows);
            }
            // SAFETY: the caller's promise.
            unsafe {
                self.tiles::<K>(start..start + rows, first, &mut sums[at..]);
                if last {
                    let row = self.left.first + start;
                    finish_rows::<K, _>(&finish, &columns, row, col, width, &sums[at..at + rows]);
                }
            }
        }
    }

    /// All rows, tile by tile, each finished at once.
    ///
    /// # Safety
    /// As [`Pass::run`].
    #[inline(always)]
    unsafe fn whole<K: FloatKernel>(&self, finish: &FloatFinish<'_>, columns: &[f32; NR]) {
        for tile in cut::<K>(0..self.left.count) {
            let at = (self.left.first + tile.start, self.panel * NR);
            finish.ahead(at.0, at.1, tile.len());
            // SAFETY: the caller's promise.
            unsafe { K::whole(self.factors(tile), (finish, columns), at) }
        }
    }

    /// The tiles of some rows.
    ///
    /// # Safety
    /// As [`Pass::run`].
    #[inline(always)]
    unsafe fn tiles<K: FloatKernel>(
        &self,
        rows: Range<usize>,
        first: bool,
        sums: &mut [[f32; NR]],
    ) {
        let start = rows.start;
        for tile in cut::<K>(rows) {
            let Some(sums) = sums[tile.start - start..].first_chunk_mut() else {
                panic!("a tile begins behind its batch")
            };
            // SAFETY: the caller's promise.
            unsafe { K::part(self.factors(tile), first, sums) }
        }
    }

    /// The factors of a tile.
    ///
    /// # Safety
    /// As [`Pass::run`]; the rows are there.
    #[inline(always)]
    unsafe fn factors(&self, tile: Range<usize>) -> Factors {
        let Left { data, stride: lda, .. } = *self.left;
        // SAFETY: the caller's promise.
        let a = unsafe { data.as_ptr().add(tile.start * lda) };
        let b: *const f32 = self.b.as_ptr().cast();
        let ahead = Ahead::nothing(b);
        Factors { rows: tile.len(), groups: self.k.len(), a, lda, b, ahead }
    }
}

/// Cuts rows into tiles.
#[inline(always)]
pub(super) fn cut<K: FloatKernel>(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let (many, end) = (K::rows(rows.len()), rows.end);
    rows.step_by(many).map(move |row| row..end.min(row + many))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::scalar::ScalarF32;

    const PART: usize = ScalarF32::PART;

    #[test]
    fn parts_cover_k_in_steps() {
        for (k, step) in [(0, 1), (1, 1), (320, 1), (321, 1), (4608, 1), (512, 32), (5632, 256)] {
            let cut = Cut::new(k, step, PART);
            let mut next = 0;
            for index in 0..cut.count() {
                let part = cut.part(index);
                assert_eq!(part.start, next);
                assert!(part.start.is_multiple_of(step) && part.len() <= PART, "{part:?}");
                next = part.end;
            }
            assert_eq!(next, k);
        }
    }

    #[test]
    fn tasks_cover_the_output() {
        for threads in [1, 2, 5] {
            for (rows, panels, k) in [(1, 1, 1), (49, 32, 4608), (3136, 4, 64), (100, 63, 2048)] {
                let split = split::<ScalarF32>(threads, rows, Cut::new(k, 1, PART), panels);
                let mut seen = vec![0; rows * panels];
                for task in 0..split.tasks() {
                    for row in split.row_range(task) {
                        split.panel_range(task).for_each(|panel| seen[row * panels + panel] += 1);
                    }
                }
                assert!(seen.iter().all(|&n| n == 1), "{threads} {rows} {panels} {k}");
            }
        }
    }
}
