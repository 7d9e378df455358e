//! Products of a few queries with keys and values that lie in a cache, without packing them.
//!
//! Each sum starts at 0 and runs in order with fused multiply-add, as in
//! [`gemm_f32`](crate::gemm::gemm_f32): one query at a time gives the bits of many at once.

#[cfg(target_arch = "x86_64")]
use crate::Level;
use crate::cpu::ask_for;
use crate::gemm::Matrix;
use crate::scratch::with_scratch;
use crate::{Ctx, Isa, Job};
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
mod x86_avx512;

/// Keys, or elements of a value, that one register block holds.
const LANES: usize = 16;

/// Queries whose sums run side by side.
const ROWS: usize = 4;

/// Values that all queries look at before the next ones.
const TILE: usize = 32;

/// Blocks of elements that AVX-512 weighs at once.
#[cfg(target_arch = "x86_64")]
const WIDE: usize = 4;

/// `scores[i][j] = sum over d of q[i][d] * keys[j][d]` for `rows` queries and `count` keys of
/// `size` numbers each; `dims` is `(rows, size, count)`. `scores` has rows of `count`.
///
/// # Panics
/// When a slice is shorter than its shape says.
pub fn scores_f32(
    ctx: Ctx<'_>,
    dims: (usize, usize, usize),
    q: Matrix<&[f32]>,
    keys: Matrix<&[f32]>,
    scores: &mut [f32],
) {
    // Keys lie row by row; a block of them is turned, so that one step serves all lanes.
    with_scratch(dims.1, |block| {
        ctx.isa.run(Scores { isa: ctx.isa, dims, q, keys, block, scores })
    });
}

/// `out[i][d] = sum over j of weights[i][j] * values[j][d]` for `rows` rows of `count` weights
/// and `count` values of `size` numbers each; `dims` is `(rows, count, size)`. `out` has rows of
/// `size`.
///
/// # Panics
/// When a slice is shorter than its shape says.
pub fn weigh_f32(
    ctx: Ctx<'_>,
    dims: (usize, usize, usize),
    weights: &[f32],
    values: Matrix<&[f32]>,
    out: &mut [f32],
) {
    let (rows, count, size) = dims;
    out[..rows * size].fill(0.0);
    let weights = Matrix { data: weights, stride: count };
    add_weighed_f32(ctx, dims, weights, values, out);
}

/// As [`weigh_f32`], but the sums go on from what `out` holds.
///
/// # Panics
/// As [`weigh_f32`].
pub(crate) fn add_weighed_f32(
    ctx: Ctx<'_>,
    dims: (usize, usize, usize),
    weights: Matrix<&[f32]>,
    values: Matrix<&[f32]>,
    out: &mut [f32],
) {
    ctx.isa.run(Weigh {
        #[cfg(target_arch = "x86_64")]
        isa: ctx.isa,
        dims,
        weights,
        values,
        out,
    });
}

struct Scores<'a> {
    isa: Isa,
    dims: (usize, usize, usize),
    q: Matrix<&'a [f32]>,
    keys: Matrix<&'a [f32]>,
    block: &'a mut [[f32; LANES]],
    scores: &'a mut [f32],
}

impl Job for Scores<'_> {
    type Output = ();
    #[inline(always)]
    fn run(mut self) {
        let (_, size, count) = self.dims;
        for first in (0..count).step_by(LANES) {
            let lanes = LANES.min(count - first);
            touch(self.keys, first..first + lanes, size);
            self.turn(first, lanes);
            let mut row = 0;
            #[cfg(target_arch = "x86_64")]
            if self.isa.level() == Level::Avx512 {
                // SAFETY: the CPU has AVX-512.
                let dot = |keys: &[_], q: [&[_]; 2 * ROWS]| unsafe { x86_avx512::dot(keys, q) };
                row = self.rows(row, (first, lanes), dot);
            }
            row = self.rows(row, (first, lanes), dot::<ROWS>);
            self.rows(row, (first, lanes), dot::<1>);
        }
    }
}

impl Scores<'_> {
    /// Scores of the keys that were turned, for `R` queries at a time from `row` on, by `dot`; the
    /// first row that has none yet.
    #[inline(always)]
    fn rows<const R: usize>(
        &mut self,
        mut row: usize,
        (first, lanes): (usize, usize),
        dot: impl Fn(&[[f32; LANES]], [&[f32]; R]) -> [[f32; LANES]; R],
    ) -> usize {
        let (rows, size, count) = self.dims;
        while row + R <= rows {
            let at = |r: usize| &self.q.data[(row + r) * self.q.stride..][..size];
            let q: [&[f32]; R] = std::array::from_fn(at);
            for (r, sums) in dot(self.block, q).iter().enumerate() {
                let scores = &mut self.scores[(row + r) * count + first..][..lanes];
                match scores.first_chunk_mut::<LANES>() {
                    // One vector or two, and no call.
                    Some(scores) => *scores = *sums,
                    None => scores.copy_from_slice(&sums[..lanes]),
                }
            }
            row += R;
        }
        row
    }

    /// Turns the keys from `first` on. Lanes that have none keep what they held.
    #[inline(always)]
    fn turn(&mut self, first: usize, lanes: usize) {
        let (_, size, _) = self.dims;
        let mut keys: [&[f32]; LANES] = [&[]; LANES];
        for (lane, key) in keys[..lanes].iter_mut().enumerate() {
            *key = &self.keys.data[(first + lane) * self.keys.stride..][..size];
        }
        let done = match self.isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Avx512 if lanes == LANES => {
                // SAFETY: the CPU has AVX2.
                unsafe { crate::gemm::interleave(&keys, self.block) }
            }
            _ => 0,
        };
        for (lane, key) in keys[..lanes].iter().enumerate() {
            let rest = self.block[done..].iter_mut().zip(&key[done..]);
            rest.for_each(|(block, &key)| block[lane] = key);
        }
    }
}

/// Products of `R` queries with a block of keys; their sums run side by side.
#[inline(always)]
fn dot<const R: usize>(keys: &[[f32; LANES]], q: [&[f32]; R]) -> [[f32; LANES]; R] {
    let mut sums = [[0f32; LANES]; R];
    for (d, keys) in keys.iter().enumerate() {
        for (sums, q) in sums.iter_mut().zip(q) {
            let q = q[d];
            for (sum, &key) in sums.iter_mut().zip(keys) {
                *sum = q.mul_add(key, *sum);
            }
        }
    }
    sums
}

/// Adds the first `LANES` elements of values that lie `stride` apart, by `R` rows of weights.
#[inline(always)]
fn mix<const R: usize>(out: [&mut [f32]; R], values: &[f32], stride: usize, weights: [&[f32]; R]) {
    let mut sums = [[0f32; LANES]; R];
    for (sums, out) in sums.iter_mut().zip(&out) {
        sums.copy_from_slice(&out[..LANES]);
    }
    for (j, values) in values.chunks(stride).enumerate().take(weights[0].len()) {
        let values = &values[..LANES];
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = weights[j];
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum = weight.mul_add(value, *sum);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        out[..LANES].copy_from_slice(sums);
    }
}

struct Weigh<'a> {
    #[cfg(target_arch = "x86_64")]
    isa: Isa,
    dims: (usize, usize, usize),
    weights: Matrix<&'a [f32]>,
    values: Matrix<&'a [f32]>,
    out: &'a mut [f32],
}

impl Job for Weigh<'_> {
    type Output = ();
    #[inline(always)]
    fn run(mut self) {
        let (rows, count, size) = self.dims;
        for first in (0..count).step_by(TILE) {
            let tile = first..count.min(first + TILE);
            touch(self.values, tile.clone(), size);
            let mut row = 0;
            while row + ROWS <= rows {
                self.rows::<ROWS>(row, tile.clone());
                row += ROWS;
            }
            for row in row..rows {
                self.rows::<1>(row, tile.clone());
            }
        }
    }
}

impl<'a> Weigh<'a> {
    /// Adds the values of `tile` to `R` rows of the output, from `row` on.
    #[inline(always)]
    fn rows<const R: usize>(&mut self, row: usize, tile: Range<usize>) {
        let ((.., size), stride) = (self.dims, self.values.stride);
        let mut first = 0;
        #[cfg(target_arch = "x86_64")]
        if self.isa.level() == Level::Avx512 {
            while first + WIDE * LANES <= size {
                let (out, values, weights) = self.parts::<R>(row, first, &tile);
                // SAFETY: the CPU has AVX-512.
                unsafe { x86_avx512::mix::<R, WIDE>(out, values, stride, weights) };
                first += WIDE * LANES;
            }
        }
        while first + LANES <= size {
            let (out, values, weights) = self.parts::<R>(row, first, &tile);
            mix(out, values, stride, weights);
            first += LANES;
        }
        for r in row..row + R {
            self.rest(r, first..size, &tile);
        }
    }

    /// Sums of `R` rows and values, from the element `first` on, and the weights.
    #[inline(always)]
    fn parts<const R: usize>(
        &mut self,
        row: usize,
        first: usize,
        tile: &Range<usize>,
    ) -> ([&mut [f32]; R], &'a [f32], [&'a [f32]; R]) {
        let (.., size) = self.dims;
        let (weights, values) = (self.weights, self.values);
        let mut rows = self.out[row * size..].chunks_exact_mut(size);
        let out = std::array::from_fn(|_| &mut rows.next().expect("a row of sums")[first..]);
        let weights =
            std::array::from_fn(|r| &weights.data[(row + r) * weights.stride..][tile.clone()]);
        (out, values.data.get(tile.start * values.stride + first..).unwrap_or(&[]), weights)
    }

    /// The elements of one row that fill no block.
    #[inline(always)]
    fn rest(&mut self, row: usize, columns: Range<usize>, tile: &Range<usize>) {
        let (.., size) = self.dims;
        let rest = &mut self.out[row * size..][columns.clone()];
        let weights = &self.weights.data[row * self.weights.stride..][tile.clone()];
        for (j, &w) in tile.clone().zip(weights) {
            let values = &self.values.data[j * self.values.stride..][columns.clone()];
            for (sum, &value) in rest.iter_mut().zip(values) {
                *sum = w.mul_add(value, *sum);
            }
        }
    }
}

/// Asks for rows in the order of their addresses: the memory is fastest so, and what follows reads
/// them in another.
#[inline(always)]
fn touch(matrix: Matrix<&[f32]>, rows: Range<usize>, size: usize) {
    for row in rows {
        ask_for(&matrix.data[row * matrix.stride..][..size]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{bits, everywhere, numbers};
    use crate::gemm::{Epilogue, PackedF32, gemm_f32};

    /// Rows of `cols` that lie `cols + 3` apart.
    fn spread(rows: usize, cols: usize, seed: u32) -> (Vec<f32>, usize) {
        (numbers(rows * (cols + 3), seed, 2.0), cols + 3)
    }

    fn dense(data: &[f32], stride: usize, rows: usize, cols: usize) -> Vec<f32> {
        (0..rows).flat_map(|r| data[r * stride..][..cols].to_vec()).collect()
    }

    #[test]
    fn few_queries_give_the_bits_of_the_matrix_product() {
        for (rows, size, count) in [(1, 64, 100), (3, 20, 16), (2, 33, 5), (1, 1, 1), (9, 64, 50)] {
            let (q, q_stride) = spread(rows, size, 1);
            let (keys, k_stride) = spread(count, size, 2);
            let packed =
                PackedF32::new_transposed(size, count, &dense(&keys, k_stride, count, size));
            let found = everywhere(|ctx| {
                let a = Matrix { data: &q[..], stride: q_stride };
                let mut scores = vec![0.0; rows * count];
                let b = Matrix { data: &keys[..], stride: k_stride };
                scores_f32(ctx, (rows, size, count), a, b, &mut scores);
                let mut expected = vec![0.0; rows * count];
                let c = Matrix { data: &mut expected[..], stride: count };
                gemm_f32(ctx, rows, a, &packed, Epilogue::default(), c);
                assert_eq!(bits(&scores), bits(&expected));
                bits(&scores)
            });
            assert_eq!(found.len(), rows * count);
        }
    }

    #[test]
    fn weighed_values_give_the_bits_of_the_matrix_product() {
        for (rows, count, size) in [(1, 100, 64), (3, 16, 20), (2, 5, 33), (1, 1, 1), (9, 50, 72)] {
            let weights = numbers(rows * count, 3, 1.0);
            let (values, stride) = spread(count, size, 4);
            let packed = PackedF32::new(count, size, &dense(&values, stride, count, size));
            everywhere(|ctx| {
                let b = Matrix { data: &values[..], stride };
                let mut out = vec![0.0; rows * size];
                weigh_f32(ctx, (rows, count, size), &weights, b, &mut out);
                let mut expected = vec![0.0; rows * size];
                let a = Matrix { data: &weights[..], stride: count };
                let c = Matrix { data: &mut expected[..], stride: size };
                gemm_f32(ctx, rows, a, &packed, Epilogue::default(), c);
                assert_eq!(bits(&out), bits(&expected));
                bits(&out)
            });
        }
    }
}
