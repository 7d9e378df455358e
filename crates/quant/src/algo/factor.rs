//! Triangular factors of second moments, for rounding column after column.

use super::hessian::Hessian;
use fewbit_core::{Error, Result};
use fewbit_kernels::Pool;

/// Columns that are eliminated together.
const BLOCK: usize = 64;
/// Rows of the rest that one task updates.
const ROWS: usize = 16;
/// How often the damping grows tenfold before the moments are given up.
const ATTEMPTS: usize = 6;

/// `H + d = R D Rᵀ`, with `R` upper triangular, ones on its diagonal, and `D` diagonal; rows and
/// columns in the order in which the columns are rounded, `d` a damping of the diagonal.
///
/// With errors `E` of the rounding, `tr(E H Eᵀ) = Σ D[k] |(E R)[k]|²`: what rounding a column
/// does to the outputs, beyond what the columns before it did. (The same as the Cholesky factor
/// of the inverse in GPTQ, without the inverse; see QuIP, Chee et al. 2023, theorem 6.)
#[derive(Clone, Debug)]
pub struct Factor {
    /// The column of the weight matrix at each place of the order.
    order: Vec<usize>,
    /// `R`, row-major, in the order.
    unit: Vec<f32>,
    /// `D`, in the order.
    scales: Vec<f64>,
    /// The diagonal of the moments, in the order of the matrix.
    diagonal: Vec<f64>,
    /// The damped moments, symmetric, in the order of the matrix.
    moments: Vec<f32>,
}

impl Factor {
    /// Factors `hessian`, columns by falling diagonal. `damping` is added to the diagonal, as a
    /// share of its mean; more where that does not make it positive definite.
    ///
    /// # Errors
    /// When the moments are no numbers.
    pub fn new(hessian: &Hessian, damping: f64, pool: &Pool) -> Result<Factor> {
        let diagonal = hessian.diagonal();
        let mean = diagonal.iter().map(|&d| f64::from(d)).sum::<f64>() / diagonal.len() as f64;
        if !mean.is_finite() {
            return Err(Error::bad_input("the inputs of a matrix are not finite")
                .code("FB-3714")
                .hint("the model overflows on the calibration text"));
        }
        let mut order: Vec<usize> = (0..diagonal.len()).collect();
        order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]).then(a.cmp(&b)));
        let mut share = damping;
        for _ in 0..ATTEMPTS {
            let added = if mean > 0.0 { mean * share } else { 1.0 };
            let mut matrix = reversed(hessian, &order, added);
            if cholesky(&mut matrix, order.len(), pool) {
                let diagonal = diagonal.iter().map(|&d| f64::from(d)).collect();
                return Ok(Factor {
                    moments: symmetric(hessian, added),
                    ..Factor::from_cholesky(&matrix, order, diagonal)
                });
            }
            share = share.max(1e-6) * 10.0;
        }
        Err(Error::internal("second moments that are not positive definite"))
    }

    /// From the lower triangular factor of the reversed order.
    fn from_cholesky(lower: &[f64], order: Vec<usize>, diagonal: Vec<f64>) -> Factor {
        let n = order.len();
        let root = |k: usize| lower[(n - 1 - k) * (n + 1)];
        let mut unit = vec![0.0; n * n];
        for (j, row) in unit.chunks_exact_mut(n.max(1)).enumerate() {
            let from = &lower[(n - 1 - j) * n..];
            for k in j..n {
                row[k] = (from[n - 1 - k] / root(k)) as f32;
            }
        }
        let scales = (0..n).map(|k| root(k).powi(2)).collect();
        Factor { order, unit, scales, diagonal, moments: Vec::new() }
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.order.len()
    }

    /// Bytes that factoring so many columns takes.
    pub fn bytes(columns: usize) -> u64 {
        (columns as u64).saturating_mul(columns as u64).saturating_mul(16)
    }

    /// The diagonal of the moments, without damping, in the order of the matrix.
    pub(super) fn diagonal(&self) -> &[f64] {
        &self.diagonal
    }

    pub(super) fn moments(&self) -> &[f32] {
        &self.moments
    }

    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    pub(super) fn row(&self, j: usize) -> &[f32] {
        let n = self.order.len();
        &self.unit[j * n..(j + 1) * n]
    }

    pub(super) fn scale(&self, k: usize) -> f64 {
        self.scales[k]
    }
}

/// Both halves of the moments, and what is added to the diagonal.
fn symmetric(hessian: &Hessian, added: f64) -> Vec<f32> {
    let n = hessian.columns();
    let mut matrix = vec![0.0; n * n];
    for (i, row) in matrix.chunks_exact_mut(n.max(1)).enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            *value = hessian.at(i, j);
        }
        row[i] += added as f32;
    }
    matrix
}

/// The lower half of the moments in reversed order.
fn reversed(hessian: &Hessian, order: &[usize], added: f64) -> Vec<f64> {
    let n = order.len();
    let mut matrix = vec![0.0; n * n];
    for (i, row) in matrix.chunks_exact_mut(n.max(1)).enumerate() {
        let a = order[n - 1 - i];
        for (j, value) in row[..=i].iter_mut().enumerate() {
            *value = f64::from(hessian.at(a, order[n - 1 - j]));
        }
        row[i] += added;
    }
    matrix
}

/// Replaces the lower half of a symmetric matrix by its Cholesky factor, block by block. Whether
/// the matrix was positive definite.
fn cholesky(matrix: &mut [f64], n: usize, pool: &Pool) -> bool {
    for start in (0..n).step_by(BLOCK) {
        let end = n.min(start + BLOCK);
        if !eliminate_block(matrix, n, start, end) {
            return false;
        }
        let (done, rest) = matrix.split_at_mut(end * n);
        pool.for_each_chunk(rest, ROWS * n, |_, rows| {
            rows.chunks_exact_mut(n).for_each(|row| solve(row, done, n, start, end));
        });
        let panel = turned_panel(rest, n, start, end);
        let width = n - end;
        pool.for_each_chunk(rest, ROWS * n, |chunk, rows| {
            for (i, row) in rows.chunks_exact_mut(n).enumerate() {
                let (left, right) = row.split_at_mut(end);
                update(&mut right[..=chunk * ROWS + i], &left[start..], &panel, width);
            }
        });
    }
    true
}

/// The factor of the block on the diagonal.
fn eliminate_block(matrix: &mut [f64], n: usize, start: usize, end: usize) -> bool {
    for i in start..end {
        let (above, row) = matrix.split_at_mut(i * n);
        solve(&mut row[..n], above, n, start, i);
        let left: f64 = row[start..i].iter().map(|x| x * x).sum();
        let pivot = row[i] - left;
        // Not a number counts as not positive.
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        row[i] = pivot.sqrt();
    }
    true
}

/// Columns `start..end` of a row of the factor, from the rows above.
fn solve(row: &mut [f64], above: &[f64], n: usize, start: usize, end: usize) {
    for j in start..end {
        let other = &above[j * n..j * n + j + 1];
        let sum: f64 = row[start..j].iter().zip(&other[start..j]).map(|(a, b)| a * b).sum();
        row[j] = (row[j] - sum) / other[j];
    }
}

/// Columns `start..end` of the rest, each column a row.
fn turned_panel(rest: &[f64], n: usize, start: usize, end: usize) -> Vec<f64> {
    let width = n - end;
    let mut panel = vec![0.0; (end - start) * width];
    for (i, row) in rest.chunks_exact(n.max(1)).enumerate() {
        for (k, value) in row[start..end].iter().enumerate() {
            panel[k * width + i] = *value;
        }
    }
    panel
}

/// Takes from a row of the rest what the eliminated columns explain.
fn update(row: &mut [f64], factors: &[f64], panel: &[f64], width: usize) {
    let len = row.len();
    let mut quads = factors.chunks_exact(4);
    let mut lines = panel.chunks_exact(4 * width.max(1));
    for (f, lines) in quads.by_ref().zip(lines.by_ref()) {
        let (a, rest) = lines.split_at(width);
        let (b, rest) = rest.split_at(width);
        let (c, d) = rest.split_at(width);
        let columns = a[..len].iter().zip(&b[..len]).zip(c[..len].iter().zip(&d[..len]));
        for (x, ((a, b), (c, d))) in row.iter_mut().zip(columns) {
            *x -= (f[0] * a + f[1] * b) + (f[2] * c + f[3] * d);
        }
    }
    for (f, line) in quads.remainder().iter().zip(lines.remainder().chunks_exact(width.max(1))) {
        row.iter_mut().zip(line).for_each(|(x, p)| *x -= f * p);
    }
}
