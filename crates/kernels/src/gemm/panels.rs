//! The right operand, packed into panels of [`NR`] columns.

use bytemuck::{Pod, Zeroable};

use super::kernel::NR;
use crate::scratch::Line;

/// A matrix of `k` rows and `n` columns, reordered for a microkernel.
///
/// Panel by panel, then group by group of k, then column by column, then the elements of the
/// group: so a microkernel reads it front to back. What lies beyond `k` and `n` is zero.
pub(crate) struct Panels<T> {
    lines: Vec<Line>,
    element: std::marker::PhantomData<T>,
    n: usize,
    groups: usize,
    orders: usize,
    /// Where each panel ends, in elements.
    ends: Vec<usize>,
}

impl<T: Pod> Panels<T> {
    /// Packs the matrix whose element in row `k` and column `n` is `at(k, n)`.
    pub(crate) fn pack(k: usize, n: usize, group: usize, at: impl Fn(usize, usize) -> T) -> Self {
        let groups = k.div_ceil(group);
        let (panel_len, count) = (groups * group * NR, n.div_ceil(NR));
        let bytes = count * panel_len * size_of::<T>();
        let mut panels = Panels::empty(n, groups);
        panels.lines = vec![Line::zeroed(); bytes.div_ceil(size_of::<Line>())];
        panels.ends = (1..=count).map(|end| end * panel_len).collect();
        let data = bytemuck::cast_slice_mut::<Line, T>(&mut panels.lines);
        for (index, panel) in data.chunks_exact_mut(panel_len.max(1)).enumerate() {
            let cols = index * NR..n.min((index + 1) * NR);
            for (g, lanes) in panel.chunks_exact_mut(group * NR).enumerate() {
                let rows = g * group..k.min((g + 1) * group);
                for (col, lane) in cols.clone().zip(lanes.chunks_exact_mut(group)) {
                    for (row, element) in rows.clone().zip(lane) {
                        *element = at(row, col);
                    }
                }
            }
        }
        panels
    }

    /// As [`Panels::pack`] for groups of one, of a row-major matrix of `n` columns, row by row.
    pub(crate) fn of_rows(n: usize, k: usize, b: &[T]) -> Self {
        let (panel_len, count) = (k * NR, n.div_ceil(NR));
        let mut panels = Panels::empty(n, k);
        let bytes = count * panel_len * size_of::<T>();
        panels.lines = vec![Line::zeroed(); bytes.div_ceil(size_of::<Line>())];
        panels.ends = (1..=count).map(|end| end * panel_len).collect();
        let data = bytemuck::cast_slice_mut::<Line, T>(&mut panels.lines);
        for (index, panel) in data.chunks_exact_mut(panel_len.max(1)).enumerate() {
            let rows = b.chunks_exact(n.max(1)).map(|row| &row[index * NR..]);
            for (lanes, row) in panel.as_chunks_mut::<NR>().0.iter_mut().zip(rows) {
                match row.first_chunk::<NR>() {
                    Some(row) => *lanes = *row,
                    None => lanes[..row.len()].copy_from_slice(row),
                }
            }
        }
        panels
    }

    /// A matrix whose panels are to be added by [`Panels::push`].
    pub(crate) fn empty(n: usize, groups: usize) -> Self {
        let element = std::marker::PhantomData;
        Panels { lines: Vec::new(), element, n, groups, orders: 1, ends: Vec::new() }
    }

    /// The same for rows of A that hold their elements in several orders, copy after copy.
    pub(crate) fn with_orders(self, orders: usize) -> Self {
        Panels { orders, ..self }
    }

    /// Number of orders in which a row of A holds its elements.
    pub(crate) fn orders(&self) -> usize {
        self.orders
    }

    /// Makes room for `bytes` bytes in all.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.lines.reserve_exact(bytes.div_ceil(size_of::<Line>()));
    }

    /// Adds a panel of at least `bytes` bytes, all zero, which begins at a cache line.
    pub(crate) fn push(&mut self, bytes: usize) -> &mut [T] {
        let start = self.lines.len();
        self.lines.resize(start + bytes.div_ceil(size_of::<Line>()), Line::zeroed());
        self.ends.push(self.lines.len() * size_of::<Line>() / size_of::<T>());
        bytemuck::cast_slice_mut(&mut self.lines[start..])
    }

    /// Number of columns.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Number of k groups.
    pub(crate) fn groups(&self) -> usize {
        self.groups
    }

    /// Number of panels.
    pub(crate) fn count(&self) -> usize {
        self.n.div_ceil(NR)
    }

    /// The elements of panel `index`.
    #[inline(always)]
    pub(crate) fn panel(&self, index: usize) -> &[T] {
        let data = bytemuck::cast_slice::<Line, T>(&self.lines);
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &data[start..self.ends[index]]
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }
}
