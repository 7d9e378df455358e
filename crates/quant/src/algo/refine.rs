//! After rounding column by column, a second look at each code and scale.
//!
//! The codes that [`gptq::round`](super::gptq::round) chose early did not know the later ones. With all others fixed, the
//! best code of a column, and the best scale of a group, follow from the gradient `E H`; each
//! change can only lessen the loss (coordinate descent).

use super::factor::Factor;
use super::gptq::{Levels, Rounded, Steps};
use fewbit_kernels::Ctx;
use fewbit_kernels::gemm::{Epilogue, Matrix, PackedF32, gemm_f32};

/// How often scales and codes are looked at.
const SWEEPS: usize = 2;
/// Rows that one task refines.
const ROWS: usize = 8;

/// Changes codes and scales of a rounded matrix where that lessens its loss. `stored` is a scale
/// as the format keeps it.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn refine(
    ctx: Ctx<'_>,
    weights: &[f32],
    factor: &Factor,
    levels: Levels,
    steps: &mut Steps,
    rounded: &mut Rounded,
    stored: impl Fn(f32) -> f32 + Sync,
) {
    let n = factor.columns();
    let rows = weights.len().checked_div(n).unwrap_or(0);
    let groups = n.div_ceil(steps.group);
    assert_eq!(rounded.codes.len(), rows * n, "a code for each weight");
    assert_eq!(steps.scales.len(), rows * groups, "{groups} scales for each of {rows} rows");
    let moments = Moments { values: factor.moments(), n, group: steps.group };
    let mut gradients = vec![0.0; rows * n];
    errors(weights, &rounded.codes, levels, steps, n, &mut gradients);
    moments.times(ctx, rows, &mut gradients);
    let mut losses = vec![0.0; rows];
    let minima = std::mem::take(&mut steps.minima);
    let state = gradients.chunks_exact_mut(n.max(1)).zip(rounded.codes.chunks_exact_mut(n.max(1)));
    let scales = steps.scales.chunks_exact_mut(groups.max(1)).zip(&mut losses);
    let lines = weights.chunks_exact(n.max(1)).zip(state.zip(scales)).enumerate();
    let mut lines: Vec<Line> = lines
        .map(|(row, (weights, ((gradient, codes), (scales, loss))))| {
            let minima = minima.get(row * groups..(row + 1) * groups).unwrap_or(&[]);
            Line { weights, codes, gradient, scales, minima, loss }
        })
        .collect();
    ctx.pool.for_each_chunk(&mut lines, ROWS, |_, lines| {
        for line in lines {
            for _ in 0..SWEEPS {
                (0..groups).for_each(|group| moments.rescale(line, group, levels, &stored));
                (0..n).for_each(|column| moments.recode(line, column, levels));
            }
            *line.loss = line.left(levels, moments.group);
        }
    });
    steps.minima = minima;
    rounded.loss.error = losses.iter().sum();
}

/// What rounding took from each weight.
fn errors(weights: &[f32], codes: &[u8], levels: Levels, steps: &Steps, n: usize, out: &mut [f32]) {
    let groups = n.div_ceil(steps.group);
    for (i, (out, (weight, code))) in out.iter_mut().zip(weights.iter().zip(codes)).enumerate() {
        let at = i / n * groups + i % n / steps.group;
        let minimum = steps.minima.get(at).copied().unwrap_or(0.0);
        *out = weight - (steps.scales[at] * levels.value(*code) + minimum);
    }
}

struct Line<'a> {
    weights: &'a [f32],
    codes: &'a mut [u8],
    /// The error times the moments: half the slope of the loss.
    gradient: &'a mut [f32],
    scales: &'a mut [f32],
    minima: &'a [f32],
    loss: &'a mut f64,
}

impl Line<'_> {
    fn minimum(&self, group: usize) -> f32 {
        self.minima.get(group).copied().unwrap_or(0.0)
    }

    /// The loss, from errors and gradient.
    fn left(&self, levels: Levels, group: usize) -> f64 {
        let each = self.weights.iter().zip(self.codes.iter().zip(self.gradient.iter()));
        let term = |(column, (weight, (code, gradient))): (usize, (&f32, (&u8, &f32)))| {
            let at = column / group;
            let value = self.scales[at] * levels.value(*code) + self.minimum(at);
            f64::from(weight - value) * f64::from(*gradient)
        };
        each.enumerate().map(term).sum::<f64>().max(0.0)
    }
}

/// The damped moments, symmetric, in the order of the matrix.
struct Moments<'f> {
    values: &'f [f32],
    n: usize,
    group: usize,
}

impl Moments<'_> {
    fn row(&self, column: usize) -> &[f32] {
        &self.values[column * self.n..(column + 1) * self.n]
    }

    /// Replaces rows by their products with the moments.
    fn times(&self, ctx: Ctx<'_>, rows: usize, x: &mut [f32]) {
        let n = self.n;
        if rows == 0 || n == 0 {
            return;
        }
        let b = PackedF32::new(n, n, self.values);
        let a = x.to_vec();
        let out = Matrix { data: x, stride: n };
        gemm_f32(ctx, rows, Matrix { data: &a, stride: n }, &b, Epilogue::default(), out);
    }

    /// The best code of one column, all else as it is.
    fn recode(&self, line: &mut Line<'_>, column: usize, levels: Levels) {
        let group = column / self.group;
        let (scale, minimum) = (line.scales[group], line.minimum(group));
        if scale == 0.0 {
            return;
        }
        let row = self.row(column);
        let old = scale * levels.value(line.codes[column]) + minimum;
        let wanted = old + line.gradient[column] / row[column];
        let (level, code) = levels.snap((wanted - minimum) / scale);
        if code != line.codes[column] {
            line.codes[column] = code;
            let change = scale * level + minimum - old;
            line.gradient.iter_mut().zip(row).for_each(|(g, h)| *g -= change * h);
        }
    }

    /// The best scale of one group, all else as it is.
    fn rescale(
        &self,
        line: &mut Line<'_>,
        group: usize,
        levels: Levels,
        stored: &impl Fn(f32) -> f32,
    ) {
        let columns = group * self.group..self.n.min((group + 1) * self.group);
        let values: Vec<f32> =
            line.codes[columns.clone()].iter().map(|&code| levels.value(code)).collect();
        let (mut slope, mut curve) = (0.0, 0.0);
        for (value, column) in values.iter().zip(columns.clone()) {
            let row = &self.row(column)[columns.clone()];
            let product: f32 = row.iter().zip(&values).map(|(h, v)| h * v).sum();
            slope += f64::from(value * line.gradient[column]);
            curve += f64::from(value * product);
        }
        if curve <= 0.0 || line.scales[group] == 0.0 {
            return;
        }
        let old = line.scales[group];
        let new = stored(old + (slope / curve) as f32);
        let change = new - old;
        let gain = 2.0 * f64::from(change) * slope - f64::from(change).powi(2) * curve;
        // A scale that changes its sign, or is lost, is no better one.
        if gain > 0.0 && new * old > 0.0 {
            line.scales[group] = new;
            for (value, column) in values.iter().zip(columns) {
                let step = change * value;
                line.gradient.iter_mut().zip(self.row(column)).for_each(|(g, h)| *g -= step * h);
            }
        }
    }
}
