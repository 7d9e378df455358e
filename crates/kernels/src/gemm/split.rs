//! How the output of a product is cut into tasks.

use std::ops::Range;

use super::kernel::NR;

/// Where panels are shared out, the most tasks for each thread: more would read inputs more often,
/// fewer would leave nothing to a thread that is done early.
const TASKS: usize = 2;

/// Rows are shared out where there is one for as many columns: more would mean that weights are
/// most of what is read, and each block of rows reads them again.
const MANY_ROWS: usize = 4;

/// Blocks of fewer tiles than this are cut between rows, not between tiles, so as to be equal.
const FEW_TILES: usize = 8;

/// Panels that are worth another pass over the rows.
const PANELS: usize = 32;

/// Blocks of rows by blocks of panels: a task for each pair. Blocks are as equal as whole tiles
/// and panels allow. Neighbouring tasks have neighbouring rows: a thread takes such, in every
/// layer the same.
pub(crate) struct Split {
    rows: usize,
    /// Rows of a tile.
    mr: usize,
    panels: usize,
    row_blocks: usize,
    panel_blocks: usize,
}

impl Split {
    /// As many blocks as are asked for, but none without rows or panels.
    pub(crate) fn new(
        [rows, mr]: [usize; 2],
        panels: usize,
        row_blocks: usize,
        panel_blocks: usize,
    ) -> Split {
        let row_blocks = row_blocks.clamp(1, rows.div_ceil(mr).max(1));
        let panel_blocks = panel_blocks.clamp(1, panels.max(1));
        Split { rows, mr, panels, row_blocks, panel_blocks }
    }

    /// Blocks of at most `most` tiles of rows, which stay in the second-level cache while panels
    /// pass by, and tasks of equal size for all threads.
    pub(crate) fn even(
        threads: usize,
        [rows, mr]: [usize; 2],
        panels: usize,
        most: usize,
    ) -> Split {
        let tiles = rows.div_ceil(mr);
        let needed = tiles.div_ceil(most.max(1)).max(1);
        if threads == 1 {
            return Split::new([rows, mr], panels, needed, 1);
        }
        if tiles >= threads && by_rows(rows, panels * NR) {
            // What a thread writes in one layer, it reads from its own cache in the next.
            let row_blocks = needed.next_multiple_of(threads);
            let unit = if tiles / row_blocks < FEW_TILES { 1 } else { mr };
            return Split::new([rows, unit], panels, row_blocks, 1);
        }
        let panel_blocks = (panels / PANELS * TASKS).clamp(threads, TASKS * threads);
        let panel_blocks = panel_blocks.min(panels.max(1));
        let row_blocks = needed.max(threads.div_ceil(panel_blocks));
        Split::new([rows, mr], panels, row_blocks, panel_blocks)
    }

    /// The same with more blocks, if those have more than `most` panels.
    pub(crate) fn panels_at_most(self, most: usize) -> Split {
        let needed = self.panels.div_ceil(most.max(1)).max(1);
        Split { panel_blocks: self.panel_blocks.next_multiple_of(needed), ..self }
    }

    pub(crate) fn tasks(&self) -> usize {
        self.row_blocks * self.panel_blocks
    }

    pub(crate) fn row_range(&self, task: usize) -> Range<usize> {
        let tiles = even(self.rows.div_ceil(self.mr), self.row_blocks, task % self.row_blocks);
        tiles.start * self.mr..self.rows.min(tiles.end * self.mr)
    }

    pub(crate) fn panel_range(&self, task: usize) -> Range<usize> {
        even(self.panels, self.panel_blocks, task / self.row_blocks)
    }
}

/// Whether rows are many enough, for so many columns, that threads share them out.
pub(crate) fn by_rows(rows: usize, columns: usize) -> bool {
    rows.saturating_mul(MANY_ROWS) >= columns
}

/// Part `index` of `parts` parts.
fn even(items: usize, parts: usize, index: usize) -> Range<usize> {
    items * index / parts..items * (index + 1) / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows times panels of each thread that takes its share of the tasks.
    fn shares(split: &Split, threads: usize) -> Vec<usize> {
        let size = |task| split.row_range(task).len() * split.panel_range(task).len();
        let share = |thread| even(split.tasks(), threads, thread).map(size).sum();
        (0..threads).map(share).collect()
    }

    #[test]
    fn tasks_cover_all_once() {
        for (threads, rows, mr, panels, most) in [
            (1, 100, 6, 3, 4),
            (2, 49, 4, 32, 8),
            (2, 1, 4, 63, 8),
            (3, 7, 4, 1, 1),
            (8, 784, 4, 2, 64),
        ] {
            let split = Split::even(threads, [rows, mr], panels, most);
            let mut seen = vec![0; rows * panels];
            for task in 0..split.tasks() {
                for row in split.row_range(task) {
                    split.panel_range(task).for_each(|panel| seen[row * panels + panel] += 1);
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{threads} {rows} {mr} {panels} {most}");
        }
    }

    #[test]
    fn two_threads_get_equal_shares() {
        // Rows, panels and tiles per block of layers of ResNet-50 and BERT-base.
        for (rows, panels, most) in [
            (49, 32, 8),
            (49, 128, 16),
            (196, 16, 16),
            (196, 64, 32),
            (784, 8, 32),
            (3136, 16, 64),
            (128, 48, 21),
            (128, 48, 5),
        ] {
            let shares = shares(&Split::even(2, [rows, 4], panels, most), 2);
            let (least, greatest) = (shares[0].min(shares[1]), shares[0].max(shares[1]));
            assert!(greatest * 100 <= least * 107, "{rows} rows, {panels} panels: {shares:?}");
        }
    }
}
