//! Eight blocks side by side: element `j` of all of them is one row.

use super::Group;
use super::lanes::{LANES, Lanes, Row};
use std::hint::black_box;
use std::iter::Zip;
use std::slice::Iter;

/// The elements of eight blocks of `N`, and how much each error counts.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(super) struct Tile<const N: usize> {
    pub(super) x: [Row; N],
    pub(super) weight: [Row; N],
}

impl<const N: usize> Tile<N> {
    /// Eight blocks of the group that follow each other from element `start`.
    #[inline(always)]
    pub(super) fn of<V: Lanes>(group: Group<'_>, start: usize) -> Tile<N> {
        let mut tile = Tile { x: [[0.0; LANES]; N], weight: [[1.0; LANES]; N] };
        gather::<V, N>(&group.x[start..], &mut tile.x);
        if let Some(weight) = group.weight {
            gather::<V, N>(&weight[start..], &mut tile.weight);
        }
        tile
    }

    /// The same elements, whose errors count by `sqrt(mean(x^2) + x^2)`, the mean over the block:
    /// large weights matter more, as in ggml's searches where no importance is known. `unit`
    /// times an element is at most about 1, so that no square overflows.
    #[inline(always)]
    pub(super) fn by_size<V: Lanes>(&self, unit: V) -> Tile<N> {
        let mut squares = V::zero();
        for (x, _) in self.rows() {
            let x = V::load(x) * unit;
            squares = x.fma(x, squares);
        }
        let mean = squares * V::splat(1.0 / N as f32);
        let mut tile = *self;
        for (x, weight) in black_box(&self.x[..]).iter().zip(&mut tile.weight) {
            let x = V::load(x) * unit;
            x.fma(x, mean).sqrt().store(weight);
        }
        tile
    }

    /// The elements and their weights, row by row. The length is hidden from the compiler, which
    /// otherwise unrolls every loop over them: large, slow to build, and no faster.
    #[inline(always)]
    pub(super) fn rows(&self) -> Zip<Iter<'_, Row>, Iter<'_, Row>> {
        let (x, weight): (&[Row], &[Row]) = black_box((&self.x, &self.weight));
        x.iter().zip(weight)
    }
}

#[inline(always)]
fn eight<V: Lanes>(from: &[f32]) -> V {
    V::load(from.first_chunk().unwrap_or(&[0.0; LANES]))
}

/// Element `j` of block `b` is `from[b * N + j]`.
#[inline(always)]
fn gather<V: Lanes, const N: usize>(from: &[f32], to: &mut [Row; N]) {
    for start in (0..black_box(N)).step_by(LANES) {
        let mut rows = [V::zero(); LANES];
        for (b, row) in rows.iter_mut().enumerate() {
            *row = eight(&from[b * N + start..]);
        }
        let rows = V::transpose(rows);
        for (row, to) in rows.iter().zip(&mut to[start..]) {
            row.store(to);
        }
    }
}

/// The codes of eight blocks of `N` as they follow each other: the inverse of `gather`.
#[inline(always)]
pub(super) fn scatter<V: Lanes, const N: usize>(codes: &[Row; N], to: &mut [u8]) {
    for start in (0..black_box(N)).step_by(LANES) {
        let mut rows = [V::zero(); LANES];
        for (row, codes) in rows.iter_mut().zip(&codes[start..]) {
            *row = V::load(codes);
        }
        let blocks = V::transpose(rows);
        for (b, block) in blocks.iter().enumerate() {
            let at = b * N + start;
            to[at..at + LANES].copy_from_slice(&block.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::lanes::Plain;

    #[test]
    fn blocks_stand_in_columns_and_come_back() {
        let x = std::array::from_fn(|i| i as f32 - 128.0);
        let tile = Tile::<16>::of::<Plain>(Group { x: &x, weight: None }, 128);
        assert_eq!(tile.x[3], std::array::from_fn(|b| (b * 16 + 3) as f32));
        let mut back = [0; 128];
        scatter::<Plain, 16>(&tile.x, &mut back);
        assert!(back.iter().enumerate().all(|(i, &code)| usize::from(code) == i));
    }
}
