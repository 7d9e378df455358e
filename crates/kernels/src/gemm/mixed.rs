//! int8 weights for `vpmaddubsw` on processors without VNNI, packed so that no sum saturates.
//!
//! `vpmaddubsw` multiplies unsigned with signed bytes and adds neighbouring products in 16 bits,
//! with saturation. A pair of weights is *safe* when that cannot happen for any activation: its
//! positive weights sum to at most 128, and so do its negative ones (255 * 128 < 2^15). The few
//! others are multiplied as 16-bit numbers. Which way to go is decided for each group of four k,
//! separately for the two halves of a panel; groups of a kind lie together, each with the k it
//! begins at, because the order of exact sums does not matter.

use super::kernel::NR;
use super::panels::Panels;
use super::weights::Order;
use crate::cpu::{Isa, Job};

/// Elements of k per group.
pub(super) const GROUP: usize = 4;

/// Columns per half of a panel.
const HALF: usize = NR / 2;

/// Bytes of a safe half of a group: a quad of weights per column.
pub(super) const SAFE: usize = GROUP * HALF;

/// Bytes of an unsafe half: weights 0 and 2 of each column in 16 bits, then weights 1 and 3.
pub(super) const UNSAFE: usize = 2 * SAFE;

/// Bytes in front of the list of beginnings: the number of groups of each kind, as `u32`.
pub(super) const HEADER: usize = 4 * KINDS;

/// Kinds of groups: bit 0 says that the first half is unsafe, bit 1 that the second is.
pub(super) const KINDS: usize = 4;

/// The weights of one group: a quad per column.
type Quads = [[i8; GROUP]; NR];

/// A packed matrix, and how much of it is unsafe.
pub(super) struct Mixed {
    pub(super) panels: Panels<i8>,
    halves: usize,
    unsafe_halves: usize,
}

impl Mixed {
    /// Whether this is quicker than 16-bit weights throughout, which it is unless most halves are
    /// unsafe (by measurement on Zen 3).
    pub(super) fn pays(&self) -> bool {
        self.unsafe_halves * 2 <= self.halves
    }
}

/// Where the weights of a panel of `groups` groups begin, in bytes.
pub(super) fn weights_start(groups: usize) -> usize {
    (HEADER + groups * size_of::<u32>()).next_multiple_of(64)
}

/// A dense matrix of `k` rows and `n` columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [i8],
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) order: Order,
}

/// Packs a matrix; `isa` does not change the result.
pub(super) fn pack(isa: Isa, matrix: Matrix<'_>) -> Mixed {
    let Matrix { k, n, .. } = matrix;
    let groups = k.div_ceil(GROUP);
    let mut mixed = Mixed {
        panels: Panels::empty(n, groups),
        halves: 2 * groups * n.div_ceil(NR),
        unsafe_halves: 0,
    };
    // A third more than without unsafe ones.
    mixed.panels.reserve(n.div_ceil(NR) * (groups * NR * GROUP * 3 / 2 + 128));
    let mut quads: Vec<Quads> = vec![[[0; GROUP]; NR]; groups];
    let mut kinds = vec![0u8; groups];
    for first in (0..n).step_by(NR) {
        isa.run(Gather { matrix, first, quads: &mut quads, kinds: &mut kinds });
        mixed.unsafe_halves += kinds.iter().map(|kind| kind.count_ones() as usize).sum::<usize>();
        push(&mut mixed.panels, &quads, &kinds);
    }
    mixed
}

/// Gathers the groups of the panel from column `first` on, and finds their kinds.
struct Gather<'a> {
    matrix: Matrix<'a>,
    first: usize,
    quads: &'a mut [Quads],
    kinds: &'a mut [u8],
}

impl Job for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let width = NR.min(self.matrix.n - self.first);
        if width < NR || !self.matrix.k.is_multiple_of(GROUP) {
            self.quads.fill([[0; GROUP]; NR]);
        }
        match self.matrix.order {
            Order::Rows => by_rows(self.matrix, self.first, width, self.quads),
            Order::Columns => by_columns(self.matrix, self.first, width, self.quads),
        }
        for (kind, quads) in self.kinds.iter_mut().zip(self.quads.iter()) {
            *kind = self::kind(quads);
        }
    }
}

#[inline(always)]
fn by_columns(matrix: Matrix<'_>, first: usize, width: usize, quads: &mut [Quads]) {
    for col in 0..width {
        let column = &matrix.values[(first + col) * matrix.k..][..matrix.k];
        let (whole, rest) = column.as_chunks::<GROUP>();
        for (quads, quad) in quads.iter_mut().zip(whole) {
            quads[col] = *quad;
        }
        if let Some(quads) = quads.get_mut(whole.len()) {
            quads[col][..rest.len()].copy_from_slice(rest);
        }
    }
}

#[inline(always)]
fn by_rows(matrix: Matrix<'_>, first: usize, width: usize, quads: &mut [Quads]) {
    for (g, quads) in quads.iter_mut().enumerate() {
        let rows = g * GROUP..matrix.k.min((g + 1) * GROUP);
        let mut lines = [[0i8; NR]; GROUP];
        for (line, row) in lines.iter_mut().zip(rows) {
            let row = &matrix.values[row * matrix.n + first..][..width];
            match row.first_chunk::<NR>() {
                Some(row) => *line = *row,
                None => line[..width].copy_from_slice(row),
            }
        }
        for (col, quad) in quads.iter_mut().enumerate() {
            *quad = [lines[0][col], lines[1][col], lines[2][col], lines[3][col]];
        }
    }
}

fn push(panels: &mut Panels<i8>, quads: &[Quads], kinds: &[u8]) {
    let halves = kinds.iter().map(|kind| match kind.count_ones() {
        0 => 2 * SAFE,
        1 => SAFE + UNSAFE,
        _ => 2 * UNSAFE,
    });
    let start = weights_start(quads.len());
    let panel = panels.push(start + halves.sum::<usize>());
    let (head, mut weights) = bytemuck::cast_slice_mut::<i8, u8>(panel).split_at_mut(start);
    let head = bytemuck::cast_slice_mut::<u8, u32>(head);
    let mut begin = KINDS;
    for wanted in 0..KINDS as u8 {
        for (g, quads) in quads.iter().enumerate().filter(|(g, _)| kinds[*g] == wanted) {
            head[usize::from(wanted)] += 1;
            head[begin] = u32::try_from(g * GROUP).expect("sums are shorter than 2^32");
            begin += 1;
            for (half, quads) in quads.chunks_exact(HALF).enumerate() {
                let is_safe = wanted >> half & 1 == 0;
                let (out, rest) = weights.split_at_mut(if is_safe { SAFE } else { UNSAFE });
                if is_safe {
                    store_bytes(quads, out)
                } else {
                    store_words(quads, out)
                }
                weights = rest;
            }
        }
    }
}

fn store_bytes(quads: &[[i8; GROUP]], out: &mut [u8]) {
    out.copy_from_slice(bytemuck::cast_slice(quads));
}

fn store_words(quads: &[[i8; GROUP]], out: &mut [u8]) {
    let words: &mut [[i16; 2]] = bytemuck::cast_slice_mut(out);
    let (even, odd) = words.split_at_mut(quads.len());
    for ((quad, even), odd) in quads.iter().zip(even).zip(odd) {
        *even = [i16::from(quad[0]), i16::from(quad[2])];
        *odd = [i16::from(quad[1]), i16::from(quad[3])];
    }
}

#[inline(always)]
fn kind(quads: &Quads) -> u8 {
    let is_unsafe = |half: &[[i8; GROUP]]| {
        let mut is_unsafe = false;
        for quad in half {
            is_unsafe |= !is_safe(quad[0], quad[1]) | !is_safe(quad[2], quad[3]);
        }
        u8::from(is_unsafe)
    };
    let (first, second) = quads.split_at(HALF);
    is_unsafe(first) | is_unsafe(second) << 1
}

/// Whether `a * w0 + b * w1` fits 16 bits for all `a` and `b` from 0 to 255.
#[inline(always)]
fn is_safe(w0: i8, w1: i8) -> bool {
    let (w0, w1) = (i16::from(w0), i16::from(w1));
    w0.max(0) + w1.max(0) <= 128 && w0.min(0) + w1.min(0) >= -128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_pairs_are_those_that_fit() {
        let extremes = |w: i8| [0, 255 * i32::from(w)];
        for w0 in i8::MIN..=i8::MAX {
            for w1 in i8::MIN..=i8::MAX {
                let sums = extremes(w0).into_iter().flat_map(|a| extremes(w1).map(|b| a + b));
                let fits = sums.map(i16::try_from).all(|sum| sum.is_ok());
                assert_eq!(is_safe(w0, w1), fits, "{w0} {w1}");
            }
        }
    }

    #[test]
    fn sixteen_bit_weights_win_where_most_halves_are_unsafe() {
        let pays = |n: usize, at: fn(usize) -> i8| {
            let values: Vec<i8> = (0..8 * n).map(|i| at(i / 8)).collect();
            let matrix = Matrix { values: &values, k: 8, n, order: Order::Columns };
            pack(Isa::best(), matrix).pays()
        };
        assert!(pays(16, |_| 64));
        assert!(!pays(16, |_| 65));
        assert!(pays(16, |col| if col < 8 { 127 } else { 1 }));
        assert!(!pays(16, |col| if col < 9 { 127 } else { 1 }));
    }

    #[test]
    fn both_orders_pack_alike() {
        for (k, n) in [(1, 1), (7, 20), (16, 32), (9, 17)] {
            let at = |row: usize, col: usize| ((row * 31 + col * 57) % 251) as u8 as i8;
            let rows: Vec<i8> = (0..k * n).map(|i| at(i / n, i % n)).collect();
            let columns: Vec<i8> = (0..k * n).map(|i| at(i % k, i / k)).collect();
            for isa in Isa::available() {
                let rows = Matrix { values: &rows, k, n, order: Order::Rows };
                let columns = Matrix { values: &columns, order: Order::Columns, ..rows };
                let [rows, columns] = [rows, columns].map(|matrix| pack(isa, matrix).panels);
                for index in 0..rows.count() {
                    assert_eq!(rows.panel(index), columns.panel(index), "{k} x {n}");
                }
            }
        }
    }
}
