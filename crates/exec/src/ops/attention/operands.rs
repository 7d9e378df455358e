//! Keys and values of one group of heads, in the form that the products read.

use super::scaled::Attention;
use fewbit_kernels::Ctx;
use fewbit_kernels::cache::Rows;
use fewbit_kernels::gemm::{Epilogue, Matrix, PackedF32, gemm_f32};

/// With fewer queries than this, packing costs more than it gains.
const WORTH_PACKING: usize = 24;

/// Keys and values of one group. Both forms give the same bits.
pub(super) enum Operands<'a> {
    /// Read where they lie, for a few queries.
    Plain { keys: Rows<'a>, values: Rows<'a>, reach: usize },
    /// Packed for matrix products.
    Packed { keys: PackedF32, values: PackedF32 },
}

impl<'a> Operands<'a> {
    /// The first `reach` keys, for `queries` queries of all heads of the group together.
    pub fn new(
        of: &'a Attention,
        ctx: &Ctx,
        [batch, group]: [usize; 2],
        queries: usize,
        reach: usize,
    ) -> Operands<'a> {
        let (keys, values) = (of.keys.head(batch, group), of.values.head(batch, group));
        if queries < WORTH_PACKING || keys.size == 0 || values.size == 0 || reach == 0 {
            return Operands::Plain { keys, values, reach };
        }
        let gathered = |rows: Rows| {
            let mut all = vec![0.0; reach * rows.size];
            rows.decode(*ctx, 0, reach, &mut all);
            all
        };
        Operands::Packed {
            keys: PackedF32::new_transposed(keys.size, reach, &gathered(keys)),
            values: PackedF32::new(reach, values.size, &gathered(values)),
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
            Operands::Plain { keys, reach, .. } => keys.scores(*ctx, (rows, *reach), q, scores),
            Operands::Packed { keys, .. } => {
                let c = Matrix { data: scores, stride: keys.n() };
                gemm_f32(*ctx, rows, q, keys, Epilogue::default(), c);
            }
        }
    }

    /// The sums of the values, weighed: `rows` rows.
    pub fn weigh(&self, ctx: &Ctx, weights: &[f32], rows: usize, out: &mut [f32]) {
        match self {
            Operands::Plain { values, reach, .. } => {
                values.weigh(*ctx, (rows, *reach), weights, out);
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
