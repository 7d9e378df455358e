//! Integer grids with a scale for each group of neighbouring columns, and a zero point where they
//! are asymmetric: the weights of compressed-tensors, GPTQ and AWQ checkpoints.
//!
//! The scales are searched so that the squared error, each column weighted by its importance, is
//! least; then [`gptq::round`](super::gptq::round) chooses the codes.

use super::gptq::{Levels, Steps};
use fewbit_core::{DType, Error, Result};
use fewbit_kernels::Pool;
use half::{bf16, f16};

/// Shares of the range that are tried; codes beyond it are clipped.
const SHARES: [f32; 12] = [1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.78, 0.74, 0.7, 0.65, 0.6];
/// Steps of codes from the scale, scale from the codes, after the best share.
const REFINEMENTS: usize = 2;

/// An integer grid of 2 to 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouped {
    /// Bits of a code.
    pub bits: u32,
    /// Columns of a group; 0 for whole rows.
    pub group: usize,
    /// Whether 0 is the code in the middle, rather than a zero point of each group.
    pub symmetric: bool,
    /// How scales are stored: `F32`, `F16` or `BF16`.
    pub scale: DType,
}

/// Steps of all groups, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedSteps {
    /// What rounding takes: `scale * level + minimum`, with the numbers as they are stored.
    pub steps: Steps,
    /// The code of 0 in each group; none where the grid is symmetric.
    pub zeros: Vec<u8>,
}

impl Grouped {
    /// The levels of the codes, from code 0: around 0 where the grid is symmetric, else from 0.
    pub fn levels(&self) -> Levels {
        let count = 1 << self.bits.clamp(2, 8);
        match self.symmetric {
            true => Levels::Integers { low: -count / 2, high: count / 2 - 1 },
            false => Levels::Integers { low: 0, high: count - 1 },
        }
    }

    /// Searches the steps of rows of `columns` weights. `importance` says how much the squared
    /// error of each column counts.
    ///
    /// # Errors
    /// When the grid cannot be, lengths do not fit, or a weight is not finite.
    pub fn search(
        &self,
        pool: &Pool,
        weights: &[f32],
        columns: usize,
        importance: Option<&[f32]>,
    ) -> Result<GroupedSteps> {
        self.check(weights, columns, importance)?;
        let group = if self.group == 0 { columns } else { self.group.min(columns) };
        let groups = columns.div_ceil(group);
        let ones = vec![1.0; columns];
        let importance = importance.unwrap_or(&ones);
        let mut found = vec![(0.0, 0u8); weights.len() / columns * groups];
        pool.for_each_chunk(&mut found, groups, |row, found| {
            let row = &weights[row * columns..(row + 1) * columns];
            let parts = row.chunks(group).zip(importance.chunks(group));
            for (found, (x, w)) in found.iter_mut().zip(parts) {
                *found = self.best(x, w);
            }
        });
        let scales: Vec<f32> = found.iter().map(|(scale, _)| *scale).collect();
        if self.symmetric {
            let steps = Steps { group, scales, minima: Vec::new() };
            return Ok(GroupedSteps { steps, zeros: Vec::new() });
        }
        let minima = found.iter().map(|(scale, zero)| -scale * f32::from(*zero)).collect();
        let zeros = found.iter().map(|(_, zero)| *zero).collect();
        Ok(GroupedSteps { steps: Steps { group, scales, minima }, zeros })
    }

    fn check(&self, weights: &[f32], columns: usize, importance: Option<&[f32]>) -> Result<()> {
        let known = matches!(self.scale, DType::F32 | DType::F16 | DType::BF16);
        if !(2..=8).contains(&self.bits) || !known {
            let what = format!("codes of {} bits with scales of {}", self.bits, self.scale);
            return Err(Error::unsupported(what).code("FB-4721"));
        }
        if columns == 0
            || !weights.len().is_multiple_of(columns)
            || importance.is_some_and(|w| w.len() != columns)
        {
            return Err(Error::internal("weights and importance do not fit each other"));
        }
        match weights.iter().position(|w| !w.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let what = format!("{} cannot be quantized", weights[at]);
                let place = format!("row {}, column {}", at / columns, at % columns);
                Err(Error::bad_input(what).code("FB-3713").at(place))
            }
        }
    }

    /// Scale and zero point of one group.
    fn best(&self, x: &[f32], w: &[f32]) -> (f32, u8) {
        let low = x.iter().copied().fold(0.0, f32::min);
        let high = x.iter().copied().fold(0.0, f32::max);
        let (mut best, mut least) = ((0.0, 0), f64::INFINITY);
        for share in SHARES {
            let candidate = self.candidate(low * share, high * share);
            let loss = self.loss(x, w, candidate);
            if loss < least {
                (best, least) = (candidate, loss);
            }
        }
        for _ in 0..REFINEMENTS {
            let candidate = (self.stored(self.fitted(x, w, best)), best.1);
            let loss = self.loss(x, w, candidate);
            if loss < least {
                (best, least) = (candidate, loss);
            }
        }
        best
    }

    /// The grid whose ends are about `low` and `high`.
    fn candidate(&self, low: f32, high: f32) -> (f32, u8) {
        let last = ((1u32 << self.bits) - 1) as f32;
        if self.symmetric {
            let half = (last + 1.0) / 2.0;
            // The side with one level more may take the larger end only if scales had a sign.
            return (self.stored(high.max(-low) / (half - 0.5)), 0);
        }
        let scale = self.stored((high - low) / last);
        let zero =
            if scale > 0.0 { (-low / scale).round_ties_even().clamp(0.0, last) } else { 0.0 };
        (scale, zero as u8)
    }

    /// The weighted squared error.
    fn loss(&self, x: &[f32], w: &[f32], grid: (f32, u8)) -> f64 {
        let error = |(x, w): (&f32, &f32)| {
            let rest = x - grid.0 * self.level(*x, grid);
            f64::from(w * rest * rest)
        };
        x.iter().zip(w).map(error).sum()
    }

    /// The scale of least error for the codes that `grid` gives.
    fn fitted(&self, x: &[f32], w: &[f32], grid: (f32, u8)) -> f32 {
        let (mut xg, mut gg) = (0.0, 0.0);
        for (x, w) in x.iter().zip(w) {
            let level = self.level(*x, grid);
            xg += f64::from(w * x * level);
            gg += f64::from(w * level * level);
        }
        if gg > 0.0 && xg > 0.0 { (xg / gg) as f32 } else { grid.0 }
    }

    /// The level nearest to `x`, counted from zero.
    fn level(&self, x: f32, (scale, zero): (f32, u8)) -> f32 {
        let Levels::Integers { low, high } = self.levels() else { return 0.0 };
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let zero = f32::from(zero);
        (x * inverse).round_ties_even().clamp(low as f32 - zero, high as f32 - zero)
    }

    /// The scale as it is stored.
    fn stored(&self, scale: f32) -> f32 {
        match self.scale {
            DType::F16 => f16::from_f32(scale.min(f16::MAX.to_f32())).to_f32(),
            DType::BF16 => bf16::from_f32(scale).to_f32(),
            _ => scale,
        }
    }
}
