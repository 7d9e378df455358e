//! Second moments of the inputs of a weight matrix.
//!
//! For a matrix `W` whose inputs were the rows of `X`, rounding to `Ŵ` changes the outputs by
//! `(W - Ŵ) Xᵀ`; the squared change is `tr((W - Ŵ) H (W - Ŵ)ᵀ)` with `H = Xᵀ X`. The diagonal of
//! `H` alone is what importance matrices hold.

use fewbit_core::{Error, Result, max_tensor_bytes};
use fewbit_kernels::Ctx;
use fewbit_kernels::gemm::{Epilogue, Matrix, PackedF32, gemm_f32};

/// Columns of `H` that are computed at once.
const BLOCK: usize = 256;

/// Sum of `x xᵀ` over the inputs `x` of a matrix.
#[derive(Clone, Debug)]
pub struct Hessian {
    columns: usize,
    /// Row-major; right of the diagonal and on it. What lies to the left means nothing.
    sums: Vec<f32>,
    /// Where the next sums are computed.
    next: Vec<f32>,
    tokens: u64,
}

impl Hessian {
    /// No inputs yet, of `columns` numbers each.
    ///
    /// # Errors
    /// When so large a matrix is not allowed.
    pub fn new(columns: usize) -> Result<Hessian> {
        let elements = columns.checked_mul(columns).filter(|n| *n <= max_tensor_bytes() / 8);
        let elements = elements.ok_or_else(|| {
            Error::resource(format!("second moments of {columns} columns need too much memory"))
                .code("FB-5101")
                .hint("raise --max-memory, or round to nearest")
        })?;
        let zeros = || vec![0.0; elements];
        Ok(Hessian { columns, sums: zeros(), next: zeros(), tokens: 0 })
    }

    /// Bytes that the moments of `columns` columns take while they are summed.
    pub fn bytes(columns: usize) -> u64 {
        (columns as u64).saturating_mul(columns as u64).saturating_mul(8)
    }

    /// Columns of the weight matrix.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of inputs seen.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Adds inputs, one after the other in `x`. The sums depend on how inputs are cut into calls,
    /// and on nothing else.
    ///
    /// # Panics
    /// When `x` is no whole number of inputs.
    pub fn add(&mut self, ctx: Ctx<'_>, x: &[f32]) {
        let n = self.columns;
        assert!(n > 0 && x.len().is_multiple_of(n), "inputs of {n} columns");
        let tokens = x.len() / n;
        let turned = transposed(x, tokens, n);
        for start in (0..n).step_by(BLOCK) {
            let end = n.min(start + BLOCK);
            let part = &turned[start * tokens..end * tokens];
            let b = PackedF32::new_transposed(tokens, end - start, part);
            let before = Some(&self.sums[start..]);
            let epilogue = Epilogue { residual: before, ..Default::default() };
            let out = Matrix { data: &mut self.next[start..], stride: n };
            let a = Matrix { data: turned.as_slice(), stride: tokens };
            gemm_f32(ctx, end, a, &b, epilogue, out);
        }
        std::mem::swap(&mut self.sums, &mut self.next);
        self.tokens += tokens as u64;
    }

    /// Sum of squares of each column.
    pub fn diagonal(&self) -> Vec<f32> {
        self.sums.iter().step_by(self.columns + 1).copied().collect()
    }

    /// The sum of products of two columns.
    pub(super) fn at(&self, a: usize, b: usize) -> f32 {
        self.sums[a.min(b) * self.columns + a.max(b)]
    }

    /// Lets go of the memory that only adding needs.
    pub fn finish(&mut self) {
        self.next = Vec::new();
    }
}

/// `x` with rows and columns exchanged, in squares that stay in the cache.
fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const SIDE: usize = 16;
    let mut out = vec![0.0; x.len()];
    for first in (0..rows).step_by(SIDE) {
        for start in (0..columns).step_by(SIDE) {
            for row in first..rows.min(first + SIDE) {
                for column in start..columns.min(start + SIDE) {
                    out[column * rows + row] = x[row * columns + column];
                }
            }
        }
    }
    out
}
