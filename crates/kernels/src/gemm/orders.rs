//! Rows of the left operand with their bytes in several orders, as [`super::mixed`] wants them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::driver::Rows;
use super::kernel::NR;
use super::mixed::{GROUP, ORDERS};
use super::rows::pitch;

/// Rows with a copy of their elements in each of the first `orders` of [`ORDERS`], one behind the
/// other; with one order, the rows themselves.
pub(super) struct InOrders<R> {
    rows: R,
    padded_k: usize,
    orders: usize,
}

impl<R: Rows<u8>> InOrders<R> {
    /// Rows of `padded_k` elements, which are whole groups.
    ///
    /// # Safety
    /// The CPU has AVX2.
    pub(super) unsafe fn new(rows: R, padded_k: usize, orders: usize) -> Self {
        InOrders { rows, padded_k, orders }
    }

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
            // SAFETY: `new` demands AVX2.
            unsafe { copy(&rows[i * stride..][..self.padded_k], copies) }
        }
        (copies, pitch)
    }
}

/// Writes the three copies of a row, of whole groups.
///
/// # Safety
/// The CPU has AVX2.
///
/// # Panics
/// When there is no room for them.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn copy(row: &[u8], copies: &mut [u8]) {
    const BYTES: usize = size_of::<__m256i>();
    let len = row.len();
    assert!(copies.len() >= ORDERS.len() * len, "no room for the copies");
    if len < BYTES {
        return copy_short(row, copies);
    }
    let mut at = 0;
    loop {
        // SAFETY: vectors begin at `len - BYTES` at most, in the row and in each copy.
        unsafe {
            let groups = _mm256_loadu_si256(row.as_ptr().add(at).cast());
            for (copy, order) in ORDERS.iter().enumerate() {
                let out = copies.as_mut_ptr().add(copy * len + at);
                _mm256_storeu_si256(out.cast(), _mm256_shuffle_epi8(groups, shuffle(order)));
            }
        }
        if at == len - BYTES {
            return;
        }
        // The last one may write again what the one before it wrote.
        at = (at + BYTES).min(len - BYTES);
    }
}

/// The bytes of a group that stand in the places of an order, for all groups of a register.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn shuffle(order: &[usize; GROUP]) -> __m256i {
    let [a, b, c, d] = order.map(|place| place as i32);
    let word = |first: i32| (a + first) | (b + first) << 8 | (c + first) << 16 | (d + first) << 24;
    let (a, b, c, d) = (word(0), word(4), word(8), word(12));
    _mm256_setr_epi32(a, b, c, d, a, b, c, d)
}

/// As [`copy`], group by group.
fn copy_short(row: &[u8], copies: &mut [u8]) {
    let (groups, _) = row.as_chunks::<GROUP>();
    for (order, copy) in ORDERS.iter().zip(copies.chunks_exact_mut(row.len().max(1))) {
        for (group, out) in groups.iter().zip(copy.as_chunks_mut::<GROUP>().0) {
            *out = order.map(|place| group[place]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::rows::{Flip, MatrixRows};

    #[test]
    fn copies_stand_in_their_orders() {
        if !is_x86_feature_detected!("avx2") {
            return eprintln!("skipped: no AVX2");
        }
        let stride = 150;
        let data: Vec<u8> = (0..3 * stride).map(|i| (i * 7) as u8).collect();
        for k in [1, 4, 27, 31, 32, 33, 45, 64, 147, 150] {
            check(&data, stride, k);
        }
    }

    fn check(data: &[u8], from: usize, k: usize) {
        let padded_k = k.next_multiple_of(GROUP);
        let convert = Flip { flip: 0x80, zero_point: 3 };
        let rows = MatrixRows { data, stride: from, k, padded_k, convert };
        // SAFETY: the test demands AVX2.
        let rows = unsafe { InOrders::new(rows, padded_k, 3) };
        let mut scratch = vec![0; 2 * rows.scratch_per_row() + NR];
        let (found, stride) = rows.fetch(1..3, &mut scratch);
        for row in 0..2 {
            for (copy, order) in ORDERS.iter().enumerate() {
                for i in 0..padded_k {
                    let place = i / GROUP * GROUP + order[i % GROUP];
                    let want = if place < k { data[(row + 1) * from + place] ^ 0x80 } else { 3 };
                    let got = found[row * stride + copy * padded_k + i];
                    assert_eq!(got, want, "{k}: {copy} {i}");
                }
            }
        }
    }
}
