//! How the output of a product is cut into tasks.

use std::ops::Range;

/// Blocks of rows by blocks of panels: a task for each pair.
pub(super) struct Split {
    pub rows: usize,
    pub panels: usize,
    pub block_rows: usize,
    pub block_panels: usize,
}

impl Split {
    pub(super) fn row_blocks(&self) -> usize {
        self.rows.div_ceil(self.block_rows)
    }

    pub(super) fn tasks(&self) -> usize {
        self.row_blocks() * self.panels.div_ceil(self.block_panels)
    }

    pub(super) fn row_range(&self, task: usize) -> Range<usize> {
        let first = task % self.row_blocks() * self.block_rows;
        first..self.rows.min(first + self.block_rows)
    }

    pub(super) fn panel_range(&self, task: usize) -> Range<usize> {
        let first = task / self.row_blocks() * self.block_panels;
        first..self.panels.min(first + self.block_panels)
    }
}
