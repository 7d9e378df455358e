//! Panels of f32 weights, of bytes that may lie at any address: so those of a mapped file are
//! packed without a copy before.

use super::kernel::NR;
use super::panels::Panels;
use crate::cpu::Isa;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Level;

/// The bytes of an f32.
pub(crate) type Raw = [u8; size_of::<f32>()];

/// Rows of a panel that are written at a time, of one column after the other. A line of the cache
/// holds as many elements of a column.
pub(super) const BLOCK: usize = 16;

/// Bytes of rows that are read at a time, for one panel after the other.
const BAND: usize = 128 << 10;

/// Packs a row-major matrix of `k` rows and `n` columns.
pub(super) fn of_rows(k: usize, n: usize, b: &[Raw]) -> Panels<f32> {
    let band = (BAND / size_of::<Raw>()).div_ceil(n.max(1));
    let mut panels = Panels::zeros(k, n, 1);
    let mut all: Vec<&mut [f32]> = panels.all_mut().collect();
    for (index, rows) in b.chunks(band * n.max(1)).enumerate() {
        let first = index * band;
        for (index, panel) in all.iter_mut().enumerate() {
            let lanes = &mut panel.as_chunks_mut::<NR>().0[first..];
            for (lanes, row) in lanes.iter_mut().zip(rows.chunks_exact(n)) {
                copy(&row[index * NR..], lanes);
            }
        }
    }
    panels
}

/// Copies as many elements as both have.
#[inline(always)]
fn copy(from: &[Raw], to: &mut [f32; NR]) {
    match from.first_chunk::<NR>() {
        Some(from) => *to = from.map(f32::from_ne_bytes),
        None => to.iter_mut().zip(from).for_each(|(to, from)| *to = f32::from_ne_bytes(*from)),
    }
}

/// A matrix of `k` rows and `n` columns, given column by column.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// The elements, of which a column holds `taps` for each channel, channel after channel. The
    /// rows of the matrix are taps times channels, tap after tap.
    pub(crate) values: &'a [Raw],
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) taps: usize,
    /// What the elements of each column are multiplied with.
    pub(crate) scale: Option<&'a [f32]>,
}

impl Columns<'_> {
    /// Packs the matrix.
    ///
    /// # Panics
    /// When there are not `k * n` elements, `taps` does not divide `k`, or a scale is missing.
    pub(super) fn panels(&self, isa: Isa) -> Panels<f32> {
        assert!(self.values.len() == self.k * self.n && self.k.is_multiple_of(self.taps));
        let bytes = self.k * size_of::<[f32; NR]>();
        let mut panels = Panels::empty(self.n, self.k);
        panels.reserve(self.n.div_ceil(NR) * bytes);
        for first in (0..self.n).step_by(NR) {
            let panel = panels.push(bytes).as_chunks_mut().0;
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 | Level::Avx512 if self.n - first >= NR => {
                    // SAFETY: the CPU has AVX2.
                    let from = unsafe { self.blocks(first, panel) };
                    self.fill(first, from, panel);
                }
                _ => self.fill(first, 0, panel),
            }
        }
        panels
    }

    /// Writes the channels from `from` on to the panel of the columns from `first` on.
    fn fill(&self, first: usize, from: usize, panel: &mut [[f32; NR]]) {
        let channels = self.channels();
        let columns = first..self.n.min(first + NR);
        for from in (from..channels).step_by(BLOCK) {
            let len = BLOCK.min(channels - from);
            for (lane, column) in columns.clone().enumerate().take(NR) {
                let block = &self.column(column)[from * self.taps..][..len * self.taps];
                let scale = self.scale.map(|scale| scale[first + lane]);
                for tap in 0..self.taps {
                    let rows = &mut panel[tap * channels + from..][..len];
                    let values = block[tap..].iter().step_by(self.taps);
                    match scale {
                        None => write(rows, lane, values.map(|&v| f32::from_ne_bytes(v))),
                        Some(scale) => {
                            write(rows, lane, values.map(|&v| f32::from_ne_bytes(v) * scale));
                        }
                    }
                }
            }
        }
    }

    pub(super) fn channels(&self) -> usize {
        self.k / self.taps
    }

    pub(super) fn column(&self, index: usize) -> &[Raw] {
        &self.values[index * self.k..][..self.k]
    }
}

/// Writes one column of a block.
#[inline(always)]
fn write(rows: &mut [[f32; NR]], lane: usize, values: impl Iterator<Item = f32>) {
    for (row, value) in rows.iter_mut().zip(values) {
        row[lane] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of which no two are equal, and their bytes from an odd address on.
    fn values(len: usize) -> (Vec<f32>, Vec<u8>) {
        let values: Vec<f32> = (0..len).map(|i| i as f32 - 7.5).collect();
        let bytes = [&[0u8], bytemuck::cast_slice(&values)].concat();
        (values, bytes)
    }

    /// Compares panels with a matrix, and what lies beyond its columns with zero.
    #[track_caller]
    fn check(panels: &Panels<f32>, k: usize, n: usize, at: impl Fn(usize, usize) -> f32) {
        assert_eq!((panels.n(), panels.groups(), panels.count()), (n, k, n.div_ceil(NR)));
        for index in 0..panels.count() {
            let panel = panels.panel(index);
            assert_eq!(panel.len(), k * NR, "{k} x {n}");
            for (i, &got) in panel.iter().enumerate() {
                let (row, col) = (i / NR, index * NR + i % NR);
                let want = if col < n { at(row, col) } else { 0.0 };
                assert_eq!(got.to_bits(), want.to_bits(), "{k} x {n} at {row}, {col}");
            }
        }
    }

    #[test]
    fn rows_come_to_their_places() {
        for (k, n) in [(0, 3), (1, 1), (3, 16), (5, 37), (40, 48), (2, 40_000), (70, 1_000)] {
            let (values, bytes) = values(k * n);
            check(&of_rows(k, n, bytes[1..].as_chunks().0), k, n, |row, col| values[row * n + col]);
        }
    }

    #[test]
    fn columns_come_to_their_places() {
        for (channels, taps, n) in
            [(0, 1, 5), (1, 1, 1), (16, 1, 16), (33, 1, 40), (3, 49, 64), (20, 9, 7), (35, 9, 33)]
        {
            let k = channels * taps;
            let (values, bytes) = values(k * n);
            let scale: Vec<f32> = (0..n).map(|col| 1.0 / (col + 3) as f32).collect();
            for scale in [None, Some(scale.as_slice())] {
                let columns = Columns { values: bytes[1..].as_chunks().0, k, n, taps, scale };
                for isa in Isa::available() {
                    check(&columns.panels(isa), k, n, |row, col| {
                        let value = values[col * k + row % channels * taps + row / channels];
                        scale.map_or(value, |scale| value * scale[col])
                    });
                }
            }
        }
    }
}
