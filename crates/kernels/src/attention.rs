//! Products of a few queries with keys and values that lie in a cache, without packing them.
//!
//! Each sum starts at 0 and runs in order with fused multiply-add, as in
//! [`gemm_f32`](crate::gemm::gemm_f32): one query at a time gives the bits of many at once.

#[cfg(target_arch = "x86_64")]
use crate::Level;
use crate::gemm::Matrix;
use crate::scratch::with_scratch;
use crate::{Ctx, Isa, Job};

/// Keys, or elements of a value, that one register block holds.
const LANES: usize = 16;

/// Queries whose sums run side by side.
const ROWS: usize = 4;

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
    ctx.isa.run(Weigh { dims, weights, values, out });
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
        let (rows, size, count) = self.dims;
        for first in (0..count).step_by(LANES) {
            let lanes = LANES.min(count - first);
            self.turn(first, lanes);
            let at = |row: usize| &self.q.data[row * self.q.stride..][..size];
            let mut row = 0;
            while row + ROWS <= rows {
                let q: [&[f32]; ROWS] = std::array::from_fn(|r| at(row + r));
                for (r, sums) in dot(self.block, q).iter().enumerate() {
                    self.scores[(row + r) * count + first..][..lanes]
                        .copy_from_slice(&sums[..lanes]);
                }
                row += ROWS;
            }
            for row in row..rows {
                let [sums] = dot(self.block, [at(row)]);
                self.scores[row * count + first..][..lanes].copy_from_slice(&sums[..lanes]);
            }
        }
    }
}

impl Scores<'_> {
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
fn mix<const R: usize>(
    mut sums: [[f32; LANES]; R],
    values: &[f32],
    stride: usize,
    weights: [&[f32]; R],
) -> [[f32; LANES]; R] {
    for (j, values) in values.chunks(stride).enumerate().take(weights[0].len()) {
        let values = &values[..LANES];
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weight = weights[j];
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum = weight.mul_add(value, *sum);
            }
        }
    }
    sums
}

struct Weigh<'a> {
    dims: (usize, usize, usize),
    weights: Matrix<&'a [f32]>,
    values: Matrix<&'a [f32]>,
    out: &'a mut [f32],
}

impl Job for Weigh<'_> {
    type Output = ();
    #[inline(always)]
    fn run(mut self) {
        let (rows, ..) = self.dims;
        let mut row = 0;
        while row + ROWS <= rows {
            self.rows::<ROWS>(row);
            row += ROWS;
        }
        for row in row..rows {
            self.rows::<1>(row);
        }
    }
}

impl Weigh<'_> {
    /// `R` rows of the output, from `row` on.
    #[inline(always)]
    fn rows<const R: usize>(&mut self, row: usize) {
        let (_, count, size) = self.dims;
        let weights: [&[f32]; R] =
            std::array::from_fn(|r| &self.weights.data[(row + r) * self.weights.stride..][..count]);
        let mut first = 0;
        while first + LANES <= size {
            let mut sums = [[0f32; LANES]; R];
            for (r, sums) in sums.iter_mut().enumerate() {
                sums.copy_from_slice(&self.out[(row + r) * size + first..][..LANES]);
            }
            let values = self.values.data.get(first..).unwrap_or(&[]);
            let sums = mix(sums, values, self.values.stride, weights);
            for (r, sums) in sums.iter().enumerate() {
                self.out[(row + r) * size + first..][..LANES].copy_from_slice(sums);
            }
            first += LANES;
        }
        for r in row..row + R {
            self.rest(r, first);
        }
    }

    /// The elements of one row that fill no block.
    #[inline(always)]
    fn rest(&mut self, row: usize, first: usize) {
        let (_, count, size) = self.dims;
        let rest = &mut self.out[row * size..][first..size];
        let weights = &self.weights.data[row * self.weights.stride..][..count];
        for (j, &w) in weights.iter().enumerate() {
            let values = &self.values.data[j * self.values.stride + first..][..rest.len()];
            for (sum, &value) in rest.iter_mut().zip(values) {
                *sum = w.mul_add(value, *sum);
            }
        }
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
