//! Keys and values of one group of heads, in the form that the products read.

use super::scaled::Attention;
use fewbit_kernels::Ctx;
use fewbit_kernels::attention::{scores_f32, weigh_f32};
use fewbit_kernels::gemm::{Epilogue, Matrix, PackedF32, gemm_f32};

/// With fewer queries than this, packing costs more than it gains.
const WORTH_PACKING: usize = 24;

/// Keys and values of one group. Both forms give the same bits.
pub(super) enum Operands<'a> {
    /// Read where they lie, for a few queries.
    Plain { keys: Matrix<&'a [f32]>, values: Matrix<&'a [f32]>, size: [usize; 2], reach: usize },
    /// Packed for matrix products.
    Packed { keys: PackedF32, values: PackedF32 },
}

impl<'a> Operands<'a> {
    /// The first `reach` keys, for `queries` queries of all heads of the group together.
    pub fn new(
        of: &'a Attention,
        [batch, group]: [usize; 2],
        queries: usize,
        reach: usize,
    ) -> Operands<'a> {
        let size = [of.keys.heads.size, of.values.heads.size];
        if queries < WORTH_PACKING || size.contains(&0) || reach == 0 {
            let (keys, values) = (of.keys.head(batch, group), of.values.head(batch, group));
            return Operands::Plain { keys, values, size, reach };
        }
        let keys = of.keys.gathered(batch, group, reach);
        let values = of.values.gathered(batch, group, reach);
        Operands::Packed {
            keys: PackedF32::new_transposed(size[0], reach, &keys),
            values: PackedF32::new(reach, size[1], &values),
        }
    }

    /// Keys that are looked at.
    pub fn reach(&self) -> usize {
        match self {
            Operands::Plain { reach, .. } => *reach,
            Operands::Packed { keys, .. } => keys.n(),
        }
    }

    /// The product of each query with each key: `rows` rows of scores.
    pub fn scores(&self, ctx: &Ctx, q: Matrix<&[f32]>, rows: usize, scores: &mut [f32]) {
        match self {
            Operands::Plain { keys, size, reach, .. } => {
                scores_f32(*ctx, (rows, size[0], *reach), q, *keys, scores);
            }
            Operands::Packed { keys, .. } => {
                let c = Matrix { data: scores, stride: keys.n() };
                gemm_f32(*ctx, rows, q, keys, Epilogue::default(), c);
            }
        }
    }

    /// The sums of the values, weighed: `rows` rows.
    pub fn weigh(&self, ctx: &Ctx, weights: &[f32], rows: usize, out: &mut [f32]) {
        match self {
            Operands::Plain { values, size, reach, .. } => {
                weigh_f32(*ctx, (rows, *reach, size[1]), weights, *values, out);
            }
            Operands::Packed { values, .. } => {
                let (k, n) = (values.k(), values.n());
                let a = Matrix { data: weights, stride: k };
                gemm_f32(
                    *ctx,
                    rows,
                    a,
                    values,
                    Epilogue::default(),
                    Matrix { data: out, stride: n },
                );
            }
        }
    }
}
