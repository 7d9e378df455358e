//! Reductions of `[outer, len, inner]` along the middle.

use super::lanes::{
    Fold, L1Fold, L2Fold, LANES, LogSumExpFold, LogSumFold, MaxFold, MeanFold, MinFold, ProdFold,
    SumFold, SumSquareFold, lanes, tree,
};
use super::{Reduce, columns_from};
use crate::{Ctx, Job};

/// Elements that are worth a task of their own.
const LEAST: usize = 32_768;

/// Columns that are reduced together.
const COLUMNS: usize = 16;

/// `output[o, i]` = `op` over `input[o, .., i]`, with `dims = [outer, len, inner]`.
///
/// Axes that lie side by side count as one; with `inner` 1 it reduces contiguous rows.
///
/// # Panics
/// When a length does not fit `dims`.
pub fn reduce_f32(ctx: Ctx<'_>, op: Reduce, input: &[f32], dims: [usize; 3], output: &mut [f32]) {
    let io = Io { input, dims, output };
    match op {
        Reduce::Sum => io.reduce(ctx, SumFold),
        Reduce::Mean => io.reduce(ctx, MeanFold),
        Reduce::Max => io.reduce(ctx, MaxFold),
        Reduce::Min => io.reduce(ctx, MinFold),
        Reduce::Prod => io.reduce(ctx, ProdFold),
        Reduce::L1 => io.reduce(ctx, L1Fold),
        Reduce::L2 => io.reduce(ctx, L2Fold),
        Reduce::SumSquare => io.reduce(ctx, SumSquareFold),
        Reduce::LogSum => io.reduce(ctx, LogSumFold),
        Reduce::LogSumExp => io.reduce(ctx, LogSumExpFold),
    }
}

struct Io<'a> {
    input: &'a [f32],
    dims: [usize; 3],
    output: &'a mut [f32],
}

impl Io<'_> {
    fn reduce<F: Fold>(self, ctx: Ctx<'_>, fold: F) {
        let [outer, len, inner] = self.dims;
        assert_eq!(self.input.len(), outer * len * inner, "input does not fit {:?}", self.dims);
        assert_eq!(self.output.len(), outer * inner, "output does not fit {:?}", self.dims);
        let grain = ctx.pool.grain(self.output.len(), LEAST / len.max(1));
        ctx.pool.for_each_chunk(self.output, grain, |i, output| {
            ctx.isa.run(Part {
                input: self.input,
                len,
                inner,
                start: i * grain,
                output,
                _fold: fold,
            });
        });
    }
}

/// The part of the output that begins at element `start`.
struct Part<'a, F> {
    input: &'a [f32],
    len: usize,
    inner: usize,
    start: usize,
    output: &'a mut [f32],
    _fold: F,
}

impl<F: Fold> Job for Part<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run(mut self) {
        if self.inner == 1 {
            self.rows();
        } else {
            self.columns();
        }
    }
}

impl<F: Fold> Part<'_, F> {
    #[inline(always)]
    fn rows(&mut self) {
        for (i, y) in self.output.iter_mut().enumerate() {
            let row = &self.input[(self.start + i) * self.len..][..self.len];
            let shift = if F::SHIFTED { lanes::<MaxFold>(row, 0.0) } else { 0.0 };
            let total = lanes::<F>(row, shift);
            *y = F::finish(total, self.len, shift);
        }
    }

    #[inline(always)]
    fn columns(&mut self) {
        let mut done = 0;
        while done < self.output.len() {
            let (base, beside) = columns_from(self.start + done, self.len, self.inner);
            let left = beside.min(self.output.len() - done);
            done += if left >= COLUMNS {
                self.block::<COLUMNS>(base, done)
            } else {
                self.block::<1>(base, done)
            };
        }
    }

    /// Reduces the `W` columns that begin at `base` into `output[done..]`.
    #[inline(always)]
    fn block<const W: usize>(&mut self, base: usize, done: usize) -> usize {
        let shift = if F::SHIFTED { self.totals::<MaxFold, W>(base, &[0.0; W]) } else { [0.0; W] };
        let totals = self.totals::<F, W>(base, &shift);
        for c in 0..W {
            self.output[done + c] = F::finish(totals[c], self.len, shift[c]);
        }
        W
    }

    #[inline(always)]
    fn totals<G: Fold, const W: usize>(&self, base: usize, shift: &[f32; W]) -> [f32; W] {
        let mut acc = [[G::START; W]; LANES];
        for i in 0..self.len {
            let at = base + i * self.inner;
            let row = &self.input[at..at + W];
            let lane = &mut acc[i % LANES];
            for c in 0..W {
                lane[c] = G::step(lane[c], row[c], shift[c]);
            }
        }
        std::array::from_fn(|c| tree(acc.map(|lane| lane[c]), G::join))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{LENGTHS, bits, everywhere, numbers, wild};

    const ALL: [Reduce; 10] = [
        Reduce::Sum,
        Reduce::Mean,
        Reduce::Max,
        Reduce::Min,
        Reduce::Prod,
        Reduce::L1,
        Reduce::L2,
        Reduce::SumSquare,
        Reduce::LogSum,
        Reduce::LogSumExp,
    ];

    fn exact(op: Reduce, x: &[f32]) -> f64 {
        let x = || x.iter().map(|&x| f64::from(x));
        match op {
            Reduce::Sum => x().sum(),
            Reduce::Mean => x().sum::<f64>() / x().count() as f64,
            Reduce::Max => x().fold(f64::NEG_INFINITY, f64::max),
            Reduce::Min => x().fold(f64::INFINITY, f64::min),
            Reduce::Prod => x().product(),
            Reduce::L1 => x().map(f64::abs).sum(),
            Reduce::L2 => x().map(|x| x * x).sum::<f64>().sqrt(),
            Reduce::SumSquare => x().map(|x| x * x).sum(),
            Reduce::LogSum => x().sum::<f64>().ln(),
            Reduce::LogSumExp => x().map(f64::exp).sum::<f64>().ln(),
        }
    }

    fn reduce(ctx: Ctx<'_>, op: Reduce, x: &[f32], dims: [usize; 3]) -> Vec<f32> {
        let mut y = vec![0.0; dims[0] * dims[2]];
        reduce_f32(ctx, op, x, dims, &mut y);
        y
    }

    #[test]
    fn rows_are_accurate_and_the_same_everywhere() {
        for op in ALL {
            for len in LENGTHS.into_iter().filter(|&len| len > 0) {
                let x: Vec<f32> = numbers(3 * len, 12, 0.5).iter().map(|x| x + 0.8).collect();
                let y = everywhere(|ctx| bits(&reduce(ctx, op, &x, [3, len, 1])));
                for (row, y) in x.chunks(len).zip(y) {
                    let (y, expected) = (f64::from(f32::from_bits(y)), exact(op, row));
                    let error = (y - expected).abs() / expected.abs().max(1.0);
                    assert!(error < 1e-5, "{op:?} of {len}: {y}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn the_axis_may_lie_anywhere() {
        for op in ALL {
            for [outer, len, inner] in [[2, 17, 37], [1, 49, 64], [3, 5, 3], [1, 1000, 16]] {
                let x = wild(outer * len * inner, 13);
                let middle = everywhere(|ctx| bits(&reduce(ctx, op, &x, [outer, len, inner])));
                let moved: Vec<f32> = (0..outer * inner * len)
                    .map(|i| (i / (inner * len), i / len % inner, i % len))
                    .map(|(o, c, i)| x[(o * len + i) * inner + c])
                    .collect();
                let rows =
                    everywhere(|ctx| bits(&reduce(ctx, op, &moved, [outer * inner, len, 1])));
                assert_eq!(middle, rows, "{op:?} of {outer} {len} {inner}");
            }
        }
    }

    #[test]
    fn nothing_has_a_value() {
        let of = |op| everywhere(|ctx| bits(&reduce(ctx, op, &[], [1, 0, 1])))[0];
        let value = |op| f32::from_bits(of(op));
        assert_eq!(value(Reduce::Sum), 0.0);
        assert_eq!(value(Reduce::Prod), 1.0);
        assert_eq!(value(Reduce::Max), f32::NEG_INFINITY);
        assert_eq!(value(Reduce::LogSumExp), f32::NEG_INFINITY);
        assert!(value(Reduce::Mean).is_nan());
    }
}
