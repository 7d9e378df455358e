//! Rows of the left operand with their bytes in several orders, as [`super::mixed`] wants them.

use std::ops::Range;

use super::driver::Rows;
use super::kernel::NR;
use super::mixed::{GROUP, ORDERS, swap_middle, swap_odd};
use super::rows::pitch;

/// Rows with a copy of their elements in each of the first `orders` of [`ORDERS`], one behind the
/// other; with one order, the rows themselves.
pub(super) struct InOrders<R> {
    pub(super) rows: R,
    /// Elements of a row, in whole groups.
    pub(super) padded_k: usize,
    pub(super) orders: usize,
}

impl<R: Rows<u8>> InOrders<R> {
    fn pitch(&self) -> usize {
        if self.orders == 1 { 0 } else { pitch::<u8>(ORDERS.len() * self.padded_k) }
    }
}

impl<R: Rows<u8>> Rows<u8> for InOrders<R> {
    fn scratch_per_row(&self) -> usize {
        self.rows.scratch_per_row() + self.pitch()
    }

    #[inline(always)]
    fn fetch<'s>(&'s self, range: Range<usize>, scratch: &'s mut [u8]) -> (&'s [u8], usize) {
        if self.orders == 1 {
            return self.rows.fetch(range, scratch);
        }
        let (count, pitch) = (range.len(), self.pitch());
        // Stores of the rows themselves may run over by NR elements.
        let (own, copies) = scratch.split_at_mut(count * self.rows.scratch_per_row() + NR);
        let (rows, stride) = self.rows.fetch(range, own);
        for (i, copies) in copies.chunks_exact_mut(pitch).enumerate().take(count) {
            copy(&rows[i * stride..][..self.padded_k], &mut copies[..3 * self.padded_k]);
        }
        (copies, pitch)
    }
}

/// Writes the three copies of a row.
#[inline(always)]
fn copy(row: &[u8], copies: &mut [u8]) {
    let (first, rest) = copies.split_at_mut(row.len());
    let (second, third) = rest.split_at_mut(row.len());
    let words = |bytes| <[u8]>::as_chunks_mut::<GROUP>(bytes).0;
    let (first, second, third) = (words(first), words(second), words(third));
    let out = first.iter_mut().zip(second).zip(third);
    for (word, ((first, second), third)) in row.as_chunks::<GROUP>().0.iter().zip(out) {
        let word = u32::from_le_bytes(*word);
        *first = word.to_le_bytes();
        *second = swap_middle(word).to_le_bytes();
        *third = swap_odd(word).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::rows::{MatrixRows, Unsign};

    #[test]
    fn copies_stand_in_their_orders() {
        let data: Vec<u8> = (0..3 * 50).map(|i| (i * 7) as u8).collect();
        let (k, padded_k) = (45, 48);
        let convert = Unsign { flip: 0x80, zero_point: 3 };
        let rows = MatrixRows { data: &data, stride: 50, k, padded_k, convert };
        let rows = InOrders { rows, padded_k, orders: 3 };
        let mut scratch = vec![0; 2 * rows.scratch_per_row() + NR];
        let (found, stride) = rows.fetch(1..3, &mut scratch);
        for row in 0..2 {
            for (copy, order) in ORDERS.iter().enumerate() {
                for i in 0..padded_k {
                    let from = i / GROUP * GROUP + order[i % GROUP];
                    let want = if from < k { data[(row + 1) * 50 + from] ^ 0x80 } else { 3 };
                    assert_eq!(found[row * stride + copy * padded_k + i], want, "{copy} {i}");
                }
            }
        }
    }
}
