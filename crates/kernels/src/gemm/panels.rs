//! The right operand, packed into panels of [`NR`] columns.

use std::slice::ChunksExactMut;

use bytemuck::Pod;

use super::kernel::NR;
use crate::pages::Lines;
use crate::scratch::Line;

/// A matrix of `k` rows and `n` columns, reordered for a microkernel.
///
/// Panel by panel, then group by group of k, then column by column, then the elements of the
/// group: so a microkernel reads it front to back. What lies beyond `k` and `n` is zero.
pub(crate) struct Panels<T> {
    lines: Lines,
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
        let mut panels = Panels::zeros(k.div_ceil(group), n, group);
        for (index, panel) in panels.all_mut().enumerate() {
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

    /// Zeros: `groups` groups of `group` rows.
    pub(super) fn zeros(groups: usize, n: usize, group: usize) -> Self {
        let (panel_len, count) = (groups * group * NR, n.div_ceil(NR));
        let mut panels = Panels::empty(n, groups);
        let bytes = count * panel_len * size_of::<T>();
        panels.lines.push(bytes.div_ceil(size_of::<Line>()));
        panels.ends = (1..=count).map(|end| end * panel_len).collect();
        panels
    }

    /// All panels, where they are equally long.
    pub(super) fn all_mut(&mut self) -> ChunksExactMut<'_, T> {
        let panel_len = self.ends.first().copied().unwrap_or_default();
        bytemuck::cast_slice_mut::<Line, T>(&mut self.lines).chunks_exact_mut(panel_len.max(1))
    }

    /// A matrix whose panels are to be added by [`Panels::push`].
    pub(crate) fn empty(n: usize, groups: usize) -> Self {
        let element = std::marker::PhantomData;
        Panels { lines: Lines::new(), element, n, groups, orders: 1, ends: Vec::new() }
    }

    /// The same for rows of A that hold their elements in several orders, copy after copy.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn with_orders(self, orders: usize) -> Self {
        Panels { orders, ..self }
    }

    /// Number of orders in which a row of A holds its elements.
    pub(crate) fn orders(&self) -> usize {
        self.orders
    }

    /// Makes room for `bytes` bytes in all.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.lines.reserve(bytes.div_ceil(size_of::<Line>()));
    }

    /// Gives back what was reserved in vain.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn fit(&mut self) {
        self.lines.fit();
    }

    /// Adds a panel of at least `bytes` bytes, all zero, which begins at a cache line.
    pub(crate) fn push(&mut self, bytes: usize) -> &mut [T] {
        let count = bytes.div_ceil(size_of::<Line>());
        self.ends.push((self.lines.len() + count) * size_of::<Line>() / size_of::<T>());
        bytemuck::cast_slice_mut(self.lines.push(count))
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
