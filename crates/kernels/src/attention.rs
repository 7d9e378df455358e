//! Products of a few queries with keys and values that lie in a cache, without packing them.
//!
//! Each sum starts at 0 and runs in order with fused multiply-add, as in
//! [`gemm_f32`](crate::gemm::gemm_f32): one query at a time gives the bits of many at once.

use crate::gemm::Matrix;
use crate::{Ctx, Job};

/// Keys, or elements of a value, that one register block holds.
const LANES: usize = 16;

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
    ctx.isa.run(Scores { dims, q, keys, scores });
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
    ctx.isa.run(Weigh { dims, weights, values, out });
}

struct Scores<'a> {
    dims: (usize, usize, usize),
    q: Matrix<&'a [f32]>,
    keys: Matrix<&'a [f32]>,
    scores: &'a mut [f32],
}

impl Job for Scores<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let (rows, size, count) = self.dims;
        // Keys lie row by row; a block of them is turned, so that one step serves all lanes.
        let mut block = vec![[0f32; LANES]; size];
        for first in (0..count).step_by(LANES) {
            let lanes = LANES.min(count - first);
            for lane in 0..lanes {
                let key = &self.keys.data[(first + lane) * self.keys.stride..][..size];
                block.iter_mut().zip(key).for_each(|(b, &k)| b[lane] = k);
            }
            for row in 0..rows {
                let q = &self.q.data[row * self.q.stride..][..size];
                let mut sums = [0f32; LANES];
                for (&q, keys) in q.iter().zip(&block) {
                    for (sum, &key) in sums.iter_mut().zip(keys) {
                        *sum = q.mul_add(key, *sum);
                    }
                }
                self.scores[row * count + first..][..lanes].copy_from_slice(&sums[..lanes]);
            }
        }
    }
}

struct Weigh<'a> {
    dims: (usize, usize, usize),
    weights: &'a [f32],
    values: Matrix<&'a [f32]>,
    out: &'a mut [f32],
}

impl Job for Weigh<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let (rows, count, size) = self.dims;
        for row in 0..rows {
            let weights = &self.weights[row * count..][..count];
            let out = &mut self.out[row * size..][..size];
            let mut first = 0;
            while first + 2 * LANES <= size {
                let mut sums = [0f32; 2 * LANES];
                for (j, &w) in weights.iter().enumerate() {
                    let values = &self.values.data[j * self.values.stride + first..][..2 * LANES];
                    for (sum, &value) in sums.iter_mut().zip(values) {
                        *sum = w.mul_add(value, *sum);
                    }
                }
                out[first..first + 2 * LANES].copy_from_slice(&sums);
                first += 2 * LANES;
            }
            let rest = &mut out[first..];
            rest.fill(0.0);
            for (j, &w) in weights.iter().enumerate() {
                let values = &self.values.data[j * self.values.stride + first..][..rest.len()];
                for (sum, &value) in rest.iter_mut().zip(values) {
                    *sum = w.mul_add(value, *sum);
                }
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
        for (rows, size, count) in [(1, 64, 100), (3, 20, 16), (2, 33, 5), (1, 1, 1)] {
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
        for (rows, count, size) in [(1, 100, 64), (3, 16, 20), (2, 5, 33), (1, 1, 1)] {
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
