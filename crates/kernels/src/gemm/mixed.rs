//! int8 weights for `vpmaddubsw` on processors without VNNI, packed so that no sum saturates.
//!
//! `vpmaddubsw` multiplies unsigned with signed bytes and adds neighbouring products in 16 bits,
//! with saturation. A pair of weights is *safe* when that cannot happen for any activation: its
//! positive weights sum to at most 128, and so do its negative ones (255 * 128 < 2^15). Which pairs
//! there are in a group of four k is a matter of order: where rows of activations are at hand in
//! three orders ([`ORDERS`]), any two of the four can be neighbours, and one of the orders is safe
//! for nearly all groups. The few others are multiplied as 16-bit numbers. Which way to go is
//! decided for each group of four k, separately for the two halves of a panel; groups of a kind lie
//! together, each with the place in a row it begins at, because the order of exact sums does not
//! matter.

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

/// The orders in which the four factors of a group may stand: each puts others side by side.
pub(super) const ORDERS: [[usize; GROUP]; 3] = [[0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 2, 1]];

/// Bytes in front of the list of beginnings: the number of groups of each kind, and where the
/// weights begin, as `u32`.
pub(super) const HEADER: usize = 4 * (KINDS + 1);

/// Kinds of groups: both halves safe in one order; both, in orders of their own; only the first;
/// only the second; none. Those with halves that differ have a beginning for each, others one.
pub(super) const KINDS: usize = 5;

/// The weights of one group: a quad per column.
type Quads = [[i8; GROUP]; NR];

/// How many halves of groups there are, and how many of them are unsafe.
#[derive(Clone, Copy, Default)]
struct Halves {
    all: usize,
    /// In the order of k.
    plainly: usize,
    /// In all orders.
    anyhow: usize,
}

impl Halves {
    /// Whether this is quicker than 16-bit weights throughout, which it is unless most halves are
    /// unsafe (by measurement on Zen 3).
    fn pays(&self, is_unsafe: usize) -> bool {
        is_unsafe * 2 <= self.all
    }

    /// The number of orders that rows are wanted in for products with `n` columns: copies of rows
    /// cost as much as a few columns do (by measurement on Zen 3). `None` where 16-bit weights
    /// are quicker.
    fn orders(&self, n: usize) -> Option<usize> {
        let gained = self.plainly - self.anyhow;
        match (self.pays(self.plainly), self.pays(self.anyhow)) {
            (true, _) if gained == 0 || gained * n < 16 * self.all => Some(1),
            (false, true) if n < 64 => None,
            (_, pays) => pays.then_some(ORDERS.len()),
        }
    }
}

/// A dense matrix of `k` rows and `n` columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [i8],
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) order: Order<'a>,
}

/// Packs a matrix; `isa` does not change the result. `None` where 16-bit weights are quicker.
pub(super) fn pack(isa: Isa, matrix: Matrix<'_>) -> Option<Panels<i8>> {
    let orders = halves(isa, matrix).orders(matrix.n)?;
    Some(pack_for(isa, matrix, orders))
}

/// Packs a matrix for rows that are at hand in the first `orders` of [`ORDERS`].
pub(super) fn pack_for(isa: Isa, matrix: Matrix<'_>, orders: usize) -> Panels<i8> {
    let Matrix { k, n, .. } = matrix;
    let groups = k.div_ceil(GROUP);
    let mut panels = Panels::empty(n, groups).with_orders(orders);
    // A third more than without unsafe ones.
    panels.reserve(n.div_ceil(NR) * (groups * NR * GROUP * 3 / 2 + 128));
    let mut quads: Vec<Quads> = vec![[[0; GROUP]; NR]; groups];
    let mut safe = vec![[0u8; 2]; groups];
    let mut choices = Vec::with_capacity(groups);
    let table = Choice::table(orders);
    for first in (0..n).step_by(NR) {
        isa.run(Gather { matrix, first, quads: &mut quads, safe: &mut safe });
        choices.clear();
        choices.extend(safe.iter().map(|&[a, b]| table[usize::from(a)][usize::from(b)]));
        let (begins, bytes) = Choice::sizes(&choices);
        let start = (HEADER + begins * size_of::<u32>()).next_multiple_of(64);
        let panel = bytemuck::cast_slice_mut(panels.push(start + bytes));
        isa.run(Store { quads: &quads, choices: &choices, start, panel });
    }
    panels.fit();
    panels
}

/// Panels that are looked at to find how many halves are unsafe.
const SAMPLES: usize = 4;

/// Counts halves, in a few panels of large matrices.
fn halves(isa: Isa, matrix: Matrix<'_>) -> Halves {
    let groups = matrix.k.div_ceil(GROUP);
    let mut quads: Vec<Quads> = vec![[[0; GROUP]; NR]; groups];
    let mut safe = vec![[0u8; 2]; groups];
    let mut found = Halves::default();
    let step = matrix.n.div_ceil(NR).div_ceil(SAMPLES).max(1) * NR;
    for first in (0..matrix.n).step_by(step) {
        isa.run(Gather { matrix, first, quads: &mut quads, safe: &mut safe });
        for half in safe.as_flattened() {
            found.all += 1;
            found.plainly += usize::from(half & 1 == 0);
            found.anyhow += usize::from(*half == 0);
        }
    }
    found
}

/// How a group is multiplied: its kind, and the order of each half.
#[derive(Clone, Copy)]
struct Choice {
    kind: usize,
    orders: [usize; 2],
}

/// Sets of [`ORDERS`].
const SETS: usize = 1 << ORDERS.len();

impl Choice {
    /// The choices by the orders that are safe for the first half, and for the second.
    fn table(orders: usize) -> [[Choice; SETS]; SETS] {
        std::array::from_fn(|a| std::array::from_fn(|b| Choice::new([a, b], orders)))
    }

    /// `safe` has a bit for each order, per half.
    fn new(safe: [usize; 2], orders: usize) -> Choice {
        let first = |bits: usize| (0..orders).find(|order| bits >> order & 1 == 1);
        if let Some(order) = first(safe[0] & safe[1]) {
            return Choice { kind: 0, orders: [order; 2] };
        }
        let (a, b) = (first(safe[0]), first(safe[1]));
        let kind = match (a, b) {
            (Some(_), Some(_)) => 1,
            (Some(_), None) => 2,
            (None, Some(_)) => 3,
            (None, None) => 4,
        };
        Choice { kind, orders: [a.unwrap_or(0), b.unwrap_or(0)] }
    }

    fn is_safe(&self, half: usize) -> bool {
        matches!((self.kind, half), (0 | 1, _) | (2, 0) | (3, 1))
    }

    /// Whether both halves read the same bytes.
    fn is_single(&self) -> bool {
        matches!(self.kind, 0 | 4)
    }

    fn bytes(&self) -> usize {
        (0..2).map(|half| if self.is_safe(half) { SAFE } else { UNSAFE }).sum()
    }

    fn begins(&self) -> usize {
        if self.is_single() { 1 } else { 2 }
    }

    /// The beginnings, and the bytes of weights, of all groups.
    fn sizes(choices: &[Choice]) -> (usize, usize) {
        let sizes = choices.iter().map(|choice| (choice.begins(), choice.bytes()));
        sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }
}

/// Gathers the groups of the panel from column `first` on, and finds the orders that are safe.
struct Gather<'a> {
    matrix: Matrix<'a>,
    first: usize,
    quads: &'a mut [Quads],
    /// A bit for each order, per half.
    safe: &'a mut [[u8; 2]],
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
            Order::Places(places) => {
                by_places(self.matrix, places, self.first, width, self.quads);
            }
        }
        for (safe, quads) in self.safe.iter_mut().zip(self.quads.iter()) {
            let (halves, _) = quads.as_chunks::<HALF>();
            for (safe, half) in safe.iter_mut().zip(halves) {
                *safe = safe_orders(half);
            }
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
fn by_places(matrix: Matrix<'_>, places: &[u32], first: usize, width: usize, quads: &mut [Quads]) {
    for col in 0..width {
        let column = &matrix.values[(first + col) * matrix.k..][..matrix.k];
        for (quads, places) in quads.iter_mut().zip(places.chunks(GROUP)) {
            for (weight, &place) in quads[col].iter_mut().zip(places) {
                *weight = column[place as usize];
            }
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

/// Writes the groups of a panel, those of a kind together.
struct Store<'a> {
    quads: &'a [Quads],
    choices: &'a [Choice],
    /// Where the weights begin.
    start: usize,
    panel: &'a mut [u8],
}

/// Where the next group of a kind goes.
#[derive(Clone, Copy, Default)]
struct Place {
    begins: usize,
    weights: usize,
}

impl Store<'_> {
    /// How many groups there are of each kind, and where the first of them go.
    #[inline(always)]
    fn places(&self) -> ([u32; KINDS], [Place; KINDS]) {
        let (mut counts, mut sizes) = ([0; KINDS], [Place::default(); KINDS]);
        for choice in self.choices {
            counts[choice.kind] += 1;
            sizes[choice.kind].begins += choice.begins();
            sizes[choice.kind].weights += choice.bytes();
        }
        let mut place = Place { begins: KINDS + 1, weights: 0 };
        for size in &mut sizes {
            let here = place;
            place.begins += size.begins;
            place.weights += size.weights;
            *size = here;
        }
        (counts, sizes)
    }
}

impl Job for Store<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (counts, mut places) = self.places();
        let (head, weights) = self.panel.split_at_mut(self.start);
        let head: &mut [u32] = bytemuck::cast_slice_mut(head);
        let weights: &mut [[u32; HALF]] = bytemuck::cast_slice_mut(weights);
        let word = |value: usize| u32::try_from(value).expect("sums are shorter than 2^30");
        head[..KINDS].copy_from_slice(&counts);
        head[KINDS] = word(self.start);
        for (g, (choice, quads)) in self.choices.iter().zip(self.quads).enumerate() {
            let place = &mut places[choice.kind];
            for order in &choice.orders[..choice.begins()] {
                head[place.begins] = word((order * self.choices.len() + g) * GROUP);
                place.begins += 1;
            }
            let halves: &[[u32; HALF]; 2] = bytemuck::cast_ref(quads);
            for (half, words) in halves.iter().enumerate() {
                let out = &mut weights[place.weights / SAFE..];
                place.weights += match choice.is_safe(half) {
                    true => store_bytes(words, choice.orders[half], out),
                    false => store_words(words, out),
                };
            }
        }
    }
}

/// Writes quads in one of [`ORDERS`]; returns the bytes.
#[inline(always)]
fn store_bytes(quads: &[u32; HALF], order: usize, out: &mut [[u32; HALF]]) -> usize {
    let out = &mut out[0];
    match order {
        0 => *out = *quads,
        1 => {
            for (out, quad) in out.iter_mut().zip(quads) {
                *out = swap_middle(*quad);
            }
        }
        _ => {
            for (out, quad) in out.iter_mut().zip(quads) {
                *out = swap_odd(*quad);
            }
        }
    }
    SAFE
}

/// Writes quads as 16-bit numbers, 0 and 2 of all, then 1 and 3; returns the bytes.
#[inline(always)]
fn store_words(quads: &[u32; HALF], out: &mut [[u32; HALF]]) -> usize {
    let [even, odd, ..] = out else { panic!("a panel is shorter than its groups") };
    for (i, quad) in quads.iter().enumerate() {
        even[i] = widen(quad & EVEN);
        odd[i] = widen(quad >> 8 & EVEN);
    }
    UNSAFE
}

/// Bytes 0 and 2 of a word.
const EVEN: u32 = 0x00ff_00ff;

/// Bytes 0 and 2, signed, as 16-bit numbers.
#[inline(always)]
fn widen(bytes: u32) -> u32 {
    let signs = bytes & 0x0080_0080;
    // Each sign adds 0xff00, without a carry.
    bytes.wrapping_add((signs << 9).wrapping_sub(signs << 1))
}

/// A word whose bytes 1 and 2 change places: the second of [`ORDERS`].
#[inline(always)]
pub(super) fn swap_middle(word: u32) -> u32 {
    (word & 0xff00_00ff) | (word >> 8 & 0xff00) | (word << 8 & 0x00ff_0000)
}

/// A word whose bytes 1 and 3 change places: the third of [`ORDERS`].
#[inline(always)]
pub(super) fn swap_odd(word: u32) -> u32 {
    (word & EVEN) | (word >> 16 & 0xff00) | (word << 16 & 0xff00_0000)
}

/// The orders in which all pairs of half a group are safe: a bit for each.
///
/// A pair is safe when neither its positive weights nor its negative ones sum to more than 128 in
/// magnitude. Sums of two bytes are made in both halves of a word at once, for all orders.
#[inline(always)]
fn safe_orders(half: &[[i8; GROUP]; HALF]) -> u8 {
    let bytes: &[i8; SAFE] = bytemuck::cast_ref(half);
    let (mut positive, mut negative) = ([0u8; SAFE], [0u8; SAFE]);
    for (i, &weight) in bytes.iter().enumerate() {
        positive[i] = weight.max(0) as u8;
        negative[i] = (weight.min(0) as u8).wrapping_neg();
    }
    let mut sums = [[0; HALF]; ORDERS.len()];
    for magnitudes in [positive, negative] {
        let words: [u32; HALF] = bytemuck::cast(magnitudes);
        for (i, word) in words.iter().enumerate() {
            let (even, odd) = (word & EVEN, word >> 8 & EVEN);
            sums[0][i] |= beyond(even + odd);
            // The upper halves of these hold one byte each.
            sums[1][i] |= beyond(even + (even >> 16)) | beyond(odd + (odd >> 16));
            sums[2][i] |= beyond(even + odd.rotate_left(16));
        }
    }
    let mut safe = 0;
    for (order, sums) in sums.iter().enumerate() {
        let mut any = 0;
        for sum in sums {
            any |= sum;
        }
        safe |= u8::from(any == 0) << order;
    }
    safe
}

/// Not 0 where one of two sums of two bytes, none above 128, is above 128.
#[inline(always)]
fn beyond(sums: u32) -> u32 {
    (sums + 0x007f_007f) & 0x0100_0100
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `a * w0 + b * w1` fits 16 bits for all `a` and `b` from 0 to 255.
    fn fits(w0: i8, w1: i8) -> bool {
        let extremes = |w: i8| [0, 255 * i32::from(w)];
        let sums = extremes(w0).into_iter().flat_map(|a| extremes(w1).map(|b| a + b));
        sums.map(i16::try_from).all(|sum| sum.is_ok())
    }

    #[test]
    fn safe_pairs_are_those_that_fit() {
        let mut half = [[0; GROUP]; HALF];
        for w0 in i8::MIN..=i8::MAX {
            for w1 in i8::MIN..=i8::MAX {
                for (i, j) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
                    let col = (i + j + w0 as u8 as usize) % HALF;
                    half[col] = [0; GROUP];
                    (half[col][i], half[col][j]) = (w0, w1);
                    let neighbours = |order: &[usize; GROUP]| {
                        order.chunks(2).any(|pair| pair.contains(&i) && pair.contains(&j))
                    };
                    let safe = ORDERS.map(|order| !neighbours(&order) || fits(w0, w1));
                    let want = (0..3).fold(0, |bits, order| bits | u8::from(safe[order]) << order);
                    assert_eq!(safe_orders(&half), want, "{w0} {w1}, {i} {j}");
                    half[col] = [0; GROUP];
                }
            }
        }
    }

    #[test]
    fn words_are_reordered_and_widened_as_bytes_are() {
        let quads: [[i8; GROUP]; 3] = [[1, -2, 3, -4], [-128, 127, -1, 0], [5, -128, -128, 127]];
        for quad in quads {
            let word = u32::from_le_bytes(bytemuck::cast(quad));
            let in_order = |order: [usize; GROUP]| bytemuck::cast(order.map(|i| quad[i]));
            assert_eq!(swap_middle(word), u32::from_le_bytes(in_order(ORDERS[1])));
            assert_eq!(swap_odd(word), u32::from_le_bytes(in_order(ORDERS[2])));
            let mut out = [[0; HALF]; 2];
            store_words(&[word; HALF], &mut out);
            let words: [[[i16; 2]; HALF]; 2] = bytemuck::cast(out);
            let [even, odd] = [[quad[0], quad[2]], [quad[1], quad[3]]].map(|p| p.map(i16::from));
            assert_eq!(words, [[even; HALF], [odd; HALF]]);
        }
    }

    #[test]
    fn sixteen_bit_weights_win_where_most_halves_are_unsafe() {
        let orders = |n: usize, at: fn(usize, usize) -> i8| {
            let values: Vec<i8> = (0..8 * n).map(|i| at(i / 8, i % 8)).collect();
            let matrix = Matrix { values: &values, k: 8, n, order: Order::Columns };
            pack(Isa::best(), matrix).map(|panels| panels.orders())
        };
        assert_eq!(orders(16, |_, _| 64), Some(1));
        assert_eq!(orders(16, |_, _| 65), None);
        assert_eq!(orders(16, |col, _| if col < 8 { 127 } else { 1 }), Some(1));
        assert_eq!(orders(16, |col, _| if col < 9 { 127 } else { 1 }), None);
        // Unsafe as they stand side by side, not in other orders.
        let pairs: fn(usize, usize) -> i8 = |_, k| if k % 4 < 2 { 100 } else { -100 };
        assert_eq!((orders(16, pairs), orders(64, pairs)), (None, Some(3)));
    }

    #[test]
    fn orders_are_permutations_that_pair_all() {
        let mut neighbours: Vec<[usize; 2]> = Vec::new();
        for order in ORDERS {
            let mut sorted = order;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            neighbours.extend(order.chunks(2).map(|p| [p[0].min(p[1]), p[0].max(p[1])]));
        }
        neighbours.sort_unstable();
        neighbours.dedup();
        assert_eq!(neighbours.len(), 6);
    }

    #[test]
    fn all_orders_pack_alike() {
        for (k, n) in [(1, 1), (7, 20), (16, 32), (9, 17)] {
            let at = |row: usize, col: usize| ((row * 31 + col * 57) % 251) as u8 as i8;
            let rows: Vec<i8> = (0..k * n).map(|i| at(i / n, i % n)).collect();
            let columns: Vec<i8> = (0..k * n).map(|i| at(i % k, i / k)).collect();
            let places: Vec<u32> = (0..k as u32).rev().collect();
            let backward: Vec<i8> =
                columns.chunks(k).flat_map(|c| c.iter().rev().copied()).collect();
            for isa in Isa::available() {
                let rows = Matrix { values: &rows, k, n, order: Order::Rows };
                let columns = Matrix { values: &columns, order: Order::Columns, ..rows };
                let placed = Matrix { values: &backward, order: Order::Places(&places), ..rows };
                let [rows, columns, placed] =
                    [rows, columns, placed].map(|matrix| pack_for(isa, matrix, 3));
                for index in 0..rows.count() {
                    assert_eq!(rows.panel(index), columns.panel(index), "{k} x {n}");
                    assert_eq!(rows.panel(index), placed.panel(index), "{k} x {n}");
                }
            }
        }
    }
}
