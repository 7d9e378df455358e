//! Keys and values of one group of heads, in the form that the products read.

use super::scaled::Attention;
use fewbit_kernels::Ctx;
use fewbit_kernels::cache::Rows;
use fewbit_kernels::gemm::{Epilogue, Matrix, PackedF32, gemm_f32};
use std::ops::Range;

/// With fewer queries than this, packing costs more than it gains.
const WORTH_PACKING: usize = 24;

/// Keys and values of one group. Both forms give the same bits.
pub(super) enum Operands<'a> {
    /// Read where they lie, for a few queries.
    Plain { keys: Rows<'a>, values: Rows<'a>, count: usize },
    /// Packed for matrix products.
    Packed { keys: PackedF32, values: PackedF32 },
}

impl<'a> Operands<'a> {
    /// Some keys, for `queries` queries of all heads of the group together.
    pub fn new(
        of: &'a Attention,
        ctx: &Ctx,
        [batch, group]: [usize; 2],
        queries: usize,
        seen: &Range<usize>,
    ) -> Operands<'a> {
        let from = |rows: Rows<'a>| Rows { start: rows.start + seen.start * rows.stride, ..rows };
        let (keys, values) = (from(of.keys.head(batch, group)), from(of.values.head(batch, group)));
        let count = seen.len();
        if queries < WORTH_PACKING || keys.size == 0 || values.size == 0 || count == 0 {
            return Operands::Plain { keys, values, count };
        }
        let gathered = |rows: Rows| {
            let mut all = vec![0.0; count * rows.size];
            rows.decode(*ctx, 0, count, &mut all);
            all
        };
        Operands::Packed {
            keys: PackedF32::new_transposed(keys.size, count, &gathered(keys)),
            values: PackedF32::new(count, values.size, &gathered(values)),
        }
    }

    /// The product of each query with each key: `rows` rows of scores.
    pub fn scores(&self, ctx: &Ctx, q: Matrix<&[f32]>, rows: usize, scores: &mut [f32]) {
        match self {
            Operands::Plain { keys, count, .. } => keys.scores(*ctx, (rows, *count), q, scores),
            Operands::Packed { keys, .. } => {
                let c = Matrix { data: scores, stride: keys.n() };
                gemm_f32(*ctx, rows, q, keys, Epilogue::default(), c);
            }
        }
    }

    /// The sums of the values, weighed: `rows` rows.
    pub fn weigh(&self, ctx: &Ctx, weights: &[f32], rows: usize, out: &mut [f32]) {
        match self {
            Operands::Plain { values, count, .. } => {
                values.weigh(*ctx, (rows, *count), weights, out);
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
