//! Products of states with weights.

use super::cell::Recurrence;
use crate::gemm::{
    Dequantize, Epilogue, Matrix, Output, PackedF32, PackedI8, WeightZero, gemm_f32, gemm_i8,
};
use crate::int8::Int8;
use crate::quantize::{Quantizer, dynamic_range, quantize};
use crate::{Ctx, Isa, Pool};

/// Some columns of the weights, with their bias.
pub(super) struct Product {
    weights: Weights,
    bias: Option<Vec<f32>>,
    columns: usize,
}

enum Weights {
    Floats(PackedF32),
    Codes(PackedI8, Vec<f32>),
}

/// Quantized states, and the scales of the sums with them.
#[derive(Default)]
pub(super) struct Codes {
    values: Vec<u8>,
    scales: Vec<f32>,
}

impl Product {
    /// Packs the given columns.
    ///
    /// # Panics
    /// When a column is missing.
    pub(super) fn new(
        isa: Isa,
        hidden: usize,
        columns: &[usize],
        weights: Recurrence<'_>,
        bias: &[f32],
    ) -> Product {
        let n = columns.len();
        let weights = match weights {
            Recurrence::Floats(rows) => {
                let rows: Vec<f32> =
                    columns.iter().flat_map(|&c| &rows[c * hidden..][..hidden]).copied().collect();
                Weights::Floats(PackedF32::new_transposed(hidden, n, &rows))
            }
            Recurrence::Codes { values, zeros, scales } => {
                let zeros: Vec<i32> = columns.iter().map(|&c| zeros[c]).collect();
                let zero = WeightZero::Column(&zeros);
                let packed = match values {
                    Int8::U8(values) => {
                        let values = picked(values, hidden, columns);
                        PackedI8::new(isa, hidden, n, Int8::U8(&values), zero)
                    }
                    Int8::I8(values) => {
                        let values = picked(values, hidden, columns);
                        PackedI8::new(isa, hidden, n, Int8::I8(&values), zero)
                    }
                };
                Weights::Codes(packed, columns.iter().map(|&c| scales[c]).collect())
            }
        };
        let bias = (!bias.is_empty()).then(|| columns.iter().map(|&c| bias[c]).collect());
        Product { weights, bias, columns: n }
    }

    /// Number of columns.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// `out = states @ weights + bias`, on this thread, for rows of `hidden` states.
    pub(super) fn run(&self, isa: Isa, states: &[f32], codes: &mut Codes, out: &mut [f32]) {
        let ctx = Ctx { isa, pool: &Pool::single() };
        let (bias, n) = (self.bias.as_deref(), self.columns);
        match &self.weights {
            Weights::Floats(weights) => {
                let (k, epilogue) = (weights.k(), Epilogue { bias, ..Epilogue::default() });
                let (a, c) = (Matrix { data: states, stride: k }, Matrix { data: out, stride: n });
                gemm_f32(ctx, states.len() / k, a, weights, epilogue, c);
            }
            Weights::Codes(weights, scales) => {
                let (affine, k) = (dynamic_range(isa, states), weights.k());
                codes.values.resize(states.len(), 0);
                quantize(ctx, Quantizer::of::<u8>(affine), states, &mut codes.values);
                codes.scales.clear();
                codes.scales.extend(scales.iter().map(|scale| affine.scale * scale));
                let to = Dequantize { scale: &codes.scales, bias, clamp: None };
                let a = Matrix { data: Int8::U8(&codes.values), stride: k };
                let c = Matrix { data: Output::F32(out, to), stride: n };
                gemm_i8(ctx, states.len() / k, a, affine.zero_point, weights, c);
            }
        }
    }
}

/// Columns of a matrix of `rows` rows.
fn picked<T: Copy>(values: &[T], rows: usize, columns: &[usize]) -> Vec<T> {
    let width = values.len() / rows;
    let rows = values.chunks_exact(width.max(1));
    rows.flat_map(|row| columns.iter().map(|&column| row[column])).collect()
}
