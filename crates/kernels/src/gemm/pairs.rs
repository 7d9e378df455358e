//! int8 weights as pairs of 16-bit numbers, less their zero points.

use super::int8::WeightZero;
use super::kernel::NR;
use super::panels::Panels;
use super::weights::{Order, Weights};
use crate::cpu::{Isa, Job};

/// Elements of k per group.
const GROUP: usize = 2;

/// The weights of one group: a pair per column.
type Pairs = [[i16; GROUP]; NR];

/// Packs weights; `isa` does not change the result.
///
/// # Panics
/// When a zero point is not of the weights' type.
pub(super) fn pack(isa: Isa, weights: &Weights<'_>, zero: WeightZero<'_>) -> Panels<i16> {
    let (n, groups) = (weights.n, weights.k.div_ceil(GROUP));
    let mut panels = Panels::empty(n, groups);
    let bytes = groups * size_of::<Pairs>();
    panels.reserve(n.div_ceil(NR) * bytes);
    // Bytes of a signed type are made unsigned, and so are their zero points.
    let flip = weights.values.flip();
    for first in (0..n).step_by(NR) {
        let mut zeros = [0; NR];
        for (col, unsigned) in (first..n).zip(&mut zeros) {
            let value = u8::try_from(zero.get(col) + i32::from(flip));
            *unsigned = i16::from(value.expect("zero points are of the weights' type"));
        }
        let (groups, _) = panels.push(bytes).as_chunks_mut::<GROUP>();
        let (groups, _) = groups.as_chunks_mut::<NR>();
        isa.run(Panel { weights, first, flip, zeros, groups });
    }
    panels
}

/// The panel from column `first` on, which is all zero before.
struct Panel<'a> {
    weights: &'a Weights<'a>,
    first: usize,
    flip: u8,
    zeros: [i16; NR],
    groups: &'a mut [Pairs],
}

impl Job for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.weights.order {
            Order::Rows => self.by_rows(),
            Order::Columns => self.by_columns(|row| row),
            Order::Places(places) => self.by_columns(|row| places[row] as usize),
        }
    }
}

impl Panel<'_> {
    #[inline(always)]
    fn by_columns(self, place: impl Fn(usize) -> usize) {
        let (k, bytes) = (self.weights.k, self.weights.values.bytes());
        for (col, zero) in (self.first..self.weights.n).zip(self.zeros).take(NR) {
            let column = &bytes[col * k..][..k];
            for (g, group) in self.groups.iter_mut().enumerate() {
                for (value, row) in group[col - self.first].iter_mut().zip(g * GROUP..k) {
                    *value = i16::from(column[place(row)] ^ self.flip) - zero;
                }
            }
        }
    }

    #[inline(always)]
    fn by_rows(mut self) {
        let (k, n) = (self.weights.k, self.weights.n);
        let width = NR.min(n - self.first);
        for (g, group) in std::mem::take(&mut self.groups).iter_mut().enumerate() {
            let mut lines = [[0i16; NR]; GROUP];
            for (line, row) in lines.iter_mut().zip(g * GROUP..k) {
                let row = &self.weights.values.bytes()[row * n + self.first..][..width];
                match row.first_chunk::<NR>() {
                    Some(row) => *line = self.centred(row),
                    None => {
                        let mut padded = [0; NR];
                        padded[..width].copy_from_slice(row);
                        line[..width].copy_from_slice(&self.centred(&padded)[..width]);
                    }
                }
            }
            for (col, pair) in group.iter_mut().enumerate() {
                *pair = [lines[0][col], lines[1][col]];
            }
        }
    }

    #[inline(always)]
    fn centred(&self, row: &[u8; NR]) -> [i16; NR] {
        let mut values = [0; NR];
        for (value, (byte, zero)) in values.iter_mut().zip(row.iter().zip(&self.zeros)) {
            *value = i16::from(byte ^ self.flip) - zero;
        }
        values
    }
}
