//! GPTQ: rounding a weight matrix column after column, each taking up the errors of those before.
//!
//! E. Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
//! Transformers, 2022. Scales come first, from a search that weights each column by its mean
//! squared input; then columns are rounded in the order of falling mean squared input.
//!
//! ```
//! use fewbit_kernels::{Ctx, Isa, Pool};
//! use fewbit_quant::algo::{factor::Factor, gptq::{Levels, Steps, round}, hessian::Hessian};
//! let pool = Pool::single();
//! let ctx = Ctx { isa: Isa::best(), pool: &pool };
//! let mut hessian = Hessian::new(2)?;
//! hessian.add(ctx, &[1.0, 0.9, 0.5, 0.6]);
//! let factor = Factor::new(&hessian, 0.01, &pool)?;
//! let steps = Steps { group: 2, scales: vec![0.25], minima: vec![] };
//! let levels = Levels::Integers { low: -8, high: 7 };
//! let rounded = round(ctx, &[0.30, -0.30], &factor, levels, &steps);
//! // -0.30 alone would be -1; it makes up for what 0.30 lost.
//! assert_eq!(rounded.codes, [8 + 1, 8 - 1]);
//! # Ok::<(), fewbit_core::Error>(())
//! ```

use super::factor::Factor;
use fewbit_kernels::Ctx;
use fewbit_kernels::encode::Loss;
use fewbit_kernels::gemm::{Epilogue, Matrix, PackedF32, gemm_f32};

/// Columns whose errors reach the columns behind them together.
const BLOCK: usize = 128;
/// Rows that one task rounds.
const ROWS: usize = 8;

/// The numbers that codes 0, 1, 2, ... stand for, before scale and minimum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Levels {
    /// `low..=high`.
    Integers {
        /// The number of code 0.
        low: i32,
        /// The number of the last code.
        high: i32,
    },
    /// Any, rising; at most 256.
    Table(&'static [f32]),
}

impl Levels {
    /// The nearest level, and its code; halves go to the even integer, or to the lower entry.
    #[inline]
    pub fn snap(self, t: f32) -> (f32, u8) {
        match self {
            Levels::Integers { low, high } => {
                let level = t.round_ties_even().clamp(low as f32, high as f32);
                (level, (level as i32 - low) as u8)
            }
            Levels::Table(values) => {
                let below = values.windows(2).take_while(|pair| (pair[0] + pair[1]) * 0.5 < t);
                let code = below.count();
                (values[code], code as u8)
            }
        }
    }
}

impl Levels {
    /// The number of a code; of the last one where there is no such code.
    #[inline]
    pub fn value(self, code: u8) -> f32 {
        match self {
            Levels::Integers { low, high } => (low + i32::from(code)).min(high) as f32,
            Levels::Table(values) => values[usize::from(code).min(values.len() - 1)],
        }
    }
}

/// Scales, and minima where there are some, of groups of neighbouring columns in each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    /// Columns of a group; the last one of a row may be smaller.
    pub group: usize,
    /// For each row its groups.
    pub scales: Vec<f32>,
    /// Added after scaling; as many as scales, or none.
    pub minima: Vec<f32>,
}

/// A rounded matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// Codes, row-major.
    pub codes: Vec<u8>,
    /// Squared change of the outputs over all inputs (damping counts as inputs too), and the sum
    /// of squares of what each column alone contributes to them.
    pub loss: Loss,
}

/// Rounds the rows of `weights` to the codes whose outputs are near.
///
/// Rows do not depend on each other, so that a large matrix may come in parts.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn round(
    ctx: Ctx<'_>,
    weights: &[f32],
    factor: &Factor,
    levels: Levels,
    steps: &Steps,
) -> Rounded {
    let n = factor.columns();
    let rows = weights.len().checked_div(n).unwrap_or(0);
    let groups = n.div_ceil(steps.group);
    assert_eq!(weights.len(), rows * n, "rows of {n} columns");
    assert_eq!(steps.scales.len(), rows * groups, "{groups} scales for each of {rows} rows");
    assert!(steps.minima.is_empty() || steps.minima.len() == steps.scales.len());
    let mut codes = vec![0; rows * n];
    let mut errors = vec![0.0; rows * n];
    let mut carried = vec![0.0; rows * BLOCK];
    let mut losses = vec![0.0; rows];
    for start in (0..n).step_by(BLOCK) {
        let block = Block::new(factor, start, n.min(start + BLOCK));
        block.carry(ctx, rows, &errors, &mut carried);
        let mut lines: Vec<Line> = lines(weights, &mut codes, &mut errors, n)
            .zip(carried.chunks_exact_mut(BLOCK).zip(&mut losses))
            .enumerate()
            .map(|(row, ((weights, codes, errors), (carried, loss)))| {
                let of = row * groups..(row + 1) * groups;
                let minima = steps.minima.get(of.clone()).unwrap_or(&[]);
                Line { weights, codes, errors, carried, loss, scales: &steps.scales[of], minima }
            })
            .collect();
        ctx.pool.for_each_chunk(&mut lines, ROWS, |_, lines| {
            lines.iter_mut().for_each(|line| block.round(line, levels, steps.group));
        });
    }
    let error = losses.iter().sum();
    Rounded { codes, loss: Loss { error, signal: signal(weights, factor) } }
}

type Parts<'a> = (&'a [f32], &'a mut [u8], &'a mut [f32]);

fn lines<'a>(
    weights: &'a [f32],
    codes: &'a mut [u8],
    errors: &'a mut [f32],
    n: usize,
) -> impl Iterator<Item = Parts<'a>> {
    let both = codes.chunks_exact_mut(n.max(1)).zip(errors.chunks_exact_mut(n.max(1)));
    weights.chunks_exact(n.max(1)).zip(both).map(|(w, (codes, errors))| (w, codes, errors))
}

/// The squares of the weights, each column weighted by the diagonal of the moments.
fn signal(weights: &[f32], factor: &Factor) -> f64 {
    let diagonal = factor.diagonal();
    let rows = weights.chunks_exact(diagonal.len().max(1));
    let of_row = |row: &[f32]| -> f64 {
        row.iter().zip(diagonal).map(|(&w, d)| f64::from(w) * f64::from(w) * d).sum()
    };
    rows.map(of_row).sum()
}

/// One row of the matrix on its way.
struct Line<'a> {
    /// In the order of the matrix.
    weights: &'a [f32],
    /// In the order of the matrix.
    codes: &'a mut [u8],
    /// In the order of rounding.
    errors: &'a mut [f32],
    /// What the columns before the block ask of those in it.
    carried: &'a mut [f32],
    scales: &'a [f32],
    minima: &'a [f32],
    loss: &'a mut f64,
}

/// Columns that are rounded one after the other, while those before are done.
struct Block<'f> {
    factor: &'f Factor,
    start: usize,
    end: usize,
}

impl Block<'_> {
    fn new(factor: &Factor, start: usize, end: usize) -> Block<'_> {
        Block { factor, start, end }
    }

    /// The errors of all columns before, as far as they concern this block.
    fn carry(&self, ctx: Ctx<'_>, rows: usize, errors: &[f32], carried: &mut [f32]) {
        let (n, width) = (self.factor.columns(), self.end - self.start);
        if self.start == 0 || rows == 0 {
            return carried.fill(0.0);
        }
        let mut part = Vec::with_capacity(self.start * width);
        for j in 0..self.start {
            part.extend_from_slice(&self.factor.row(j)[self.start..self.end]);
        }
        let b = PackedF32::new(self.start, width, &part);
        let out = Matrix { data: carried, stride: BLOCK };
        gemm_f32(ctx, rows, Matrix { data: errors, stride: n }, &b, Epilogue::default(), out);
    }

    fn round(&self, line: &mut Line<'_>, levels: Levels, group: usize) {
        let order = &self.factor.order()[self.start..self.end];
        for (k, &column) in order.iter().enumerate() {
            let scale = line.scales[column / group];
            let minimum = line.minima.get(column / group).copied().unwrap_or(0.0);
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            let weight = line.weights[column];
            let wanted = weight + line.carried[k];
            let (level, code) = levels.snap((wanted - minimum) * inverse);
            let value = scale * level + minimum;
            line.codes[column] = code;
            let error = weight - value;
            line.errors[self.start + k] = error;
            let lost = f64::from(wanted - value);
            *line.loss += lost * lost * self.factor.scale(self.start + k);
            let row = &self.factor.row(self.start + k)[self.start + k + 1..self.end];
            line.carried[k + 1..].iter_mut().zip(row).for_each(|(c, r)| *c += error * r);
        }
    }
}
