//! Rows of a matrix on grids of few codes with a scale for each group of neighbours, as
//! compressed-tensors, GPTQ and AWQ keep them.
//!
//! A weight is `code * scale`, codes around 0. Scales come from a search: of several that map the
//! largest weight near the end of the grid, the one of least squared error, each column's error
//! counted by its importance. They are rounded to the type they are stored in before codes are
//! chosen.

use super::gptq::Levels;
use fewbit_core::codec::MiniFloat;
use fewbit_core::{DType, Error, Result};
use fewbit_kernels::encode::Loss;
use half::{bf16, f16};

/// Ends of the grid that the largest weight of a group is tried on, as shares of the usual one.
const TRIES: [f32; 21] = [
    1.0, 0.98, 0.96, 0.94, 0.92, 0.9, 0.88, 0.86, 0.84, 0.82, 0.8, 0.78, 0.76, 0.74, 0.72, 0.7,
    1.02, 1.04, 1.06, 0.66, 0.62,
];

/// Smallest scale, for groups of zeros.
const LEAST_SCALE: f32 = 1e-7;

/// The numbers that codes stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// Integers of so many bits around 0: `-8..=7` for 4.
    Integers {
        /// 2 to 8.
        bits: u32,
    },
    /// Floats of 8 bits, 4 of exponent and 3 of mantissa.
    Float8,
}

/// How the rows of a matrix are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The codes.
    pub codes: Codes,
    /// Columns that share a scale; all of a row where it is the row's length.
    pub group: usize,
    /// What scales are stored as: `F32`, `F16` or `BF16`.
    pub scales: DType,
}

/// Rows on a grid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantized {
    /// A byte for each weight: integers in two's complement, floats of 8 bits as they are.
    pub codes: Vec<u8>,
    /// For each row its groups, exactly as they are stored.
    pub scales: Vec<f32>,
    /// What was lost, weighted by the importance.
    pub loss: Loss,
}

impl Grid {
    /// Groups of a row.
    ///
    /// # Errors
    /// When they do not divide the row.
    pub fn groups(&self, columns: usize) -> Result<usize> {
        match self.group {
            0 => Err(Error::usage("groups of 0 columns").code("FB-2703")),
            group if columns.is_multiple_of(group) => Ok(columns / group),
            group => Err(Error::unsupported(format!(
                "rows of {columns} columns are no whole number of groups of {group}"
            ))
            .code("FB-4714")),
        }
    }

    /// The levels that [`gptq::round`](super::gptq::round) chooses from; none of floats. Its codes
    /// count from 0, these are in two's complement.
    pub fn levels(&self) -> Option<Levels> {
        match self.codes {
            Codes::Integers { bits } => {
                let half = 1i32 << (bits - 1);
                Some(Levels::Integers { low: -half, high: half - 1 })
            }
            Codes::Float8 => None,
        }
    }

    /// Quantizes rows of `columns` weights; `importance` counts the errors of each column.
    ///
    /// # Errors
    /// When groups do not divide rows, or a weight is not finite.
    pub fn quantize(
        &self,
        weights: &[f32],
        columns: usize,
        importance: Option<&[f32]>,
    ) -> Result<Quantized> {
        self.groups(columns)?;
        if let Some(bad) = weights.iter().position(|w| !w.is_finite()) {
            let place = format!("row {}, column {}", bad / columns, bad % columns);
            let what = format!("{} cannot be quantized", weights[bad]);
            return Err(Error::bad_input(what).code("FB-3713").at(place));
        }
        self.check_range(weights)?;
        let mut out =
            Quantized { codes: Vec::with_capacity(weights.len()), ..Quantized::default() };
        let ones = vec![1.0; self.group];
        for (index, group) in weights.chunks(self.group).enumerate() {
            let first = index * self.group % columns;
            let counts = importance.map_or(&ones[..], |w| &w[first..first + self.group]);
            self.group(group, counts, &mut out);
        }
        Ok(out)
    }

    /// # Errors
    /// When scales of half floats do not reach as far as a weight.
    fn check_range(&self, weights: &[f32]) -> Result<()> {
        let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        let limit = self.end() * f16::MAX.to_f32();
        if self.scales != DType::F16 || largest <= limit {
            return Ok(());
        }
        let what = format!("{largest:e} is beyond {limit:e}, which half floats scale to");
        Err(Error::unsupported(what).code("FB-4723").hint("quantize a model of BF16 or F32"))
    }

    /// What the largest weight of a group is mapped to first.
    fn end(&self) -> f32 {
        match self.codes {
            Codes::Integers { bits } => (2f32.powi(bits as i32) - 1.0) / 2.0,
            Codes::Float8 => 448.0,
        }
    }

    fn group(&self, weights: &[f32], counts: &[f32], out: &mut Quantized) {
        let scale = self.search(weights, counts);
        for (&w, &count) in weights.iter().zip(counts) {
            let (code, value) = self.snap(w / scale);
            out.codes.push(code);
            out.loss.error += f64::from(count) * f64::from(w - value * scale).powi(2);
            out.loss.signal += f64::from(count) * f64::from(w).powi(2);
        }
        out.scales.push(scale);
    }

    /// The scale of least error, as it is stored.
    fn search(&self, weights: &[f32], counts: &[f32]) -> f32 {
        let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        let end = self.end();
        let mut best = (f64::INFINITY, self.stored(LEAST_SCALE));
        if largest == 0.0 {
            return best.1;
        }
        // Floats of 8 bits are as near at any scale, and with 8 bits clipping hardly pays.
        let tries = match self.codes {
            Codes::Float8 => return self.stored(largest / end),
            Codes::Integers { bits: 8 } => &TRIES[..6],
            Codes::Integers { .. } => &TRIES[..],
        };
        for share in tries {
            let first = self.stored(largest * share / end);
            // The best scale for the codes that the first one gives.
            for scale in [first, self.stored(self.fitted(weights, counts, first))] {
                let error = self.error(weights, counts, scale);
                if error < best.0 {
                    best = (error, scale);
                }
            }
        }
        best.1
    }

    fn fitted(&self, weights: &[f32], counts: &[f32], scale: f32) -> f32 {
        let (mut both, mut squares) = (0.0, 0.0);
        for (&w, &count) in weights.iter().zip(counts) {
            let (_, value) = self.snap(w / scale);
            both += f64::from(count) * f64::from(w) * f64::from(value);
            squares += f64::from(count) * f64::from(value).powi(2);
        }
        if squares > 0.0 && both > 0.0 { (both / squares) as f32 } else { scale }
    }

    fn error(&self, weights: &[f32], counts: &[f32], scale: f32) -> f64 {
        let each = |(&w, &count): (&f32, &f32)| {
            f64::from(count) * f64::from(w - self.snap(w / scale).1 * scale).powi(2)
        };
        weights.iter().zip(counts).map(each).sum()
    }

    /// The nearest code and the number it stands for.
    fn snap(&self, x: f32) -> (u8, f32) {
        match self.codes {
            Codes::Integers { bits } => {
                let half = 1i32 << (bits - 1);
                let code = x.round_ties_even().clamp(-half as f32, (half - 1) as f32);
                (code as i32 as u8, code)
            }
            Codes::Float8 => {
                let code = MiniFloat::E4M3FN.encode(x, true);
                (code, MiniFloat::E4M3FN.decode(code))
            }
        }
    }

    /// The number that a code stands for, before its scale.
    pub fn number(&self, code: u8) -> f32 {
        match self.codes {
            Codes::Integers { .. } => f32::from(code as i8),
            Codes::Float8 => MiniFloat::E4M3FN.decode(code),
        }
    }

    /// A scale as it comes back from its type; never 0.
    fn stored(&self, scale: f32) -> f32 {
        let scale = scale.max(LEAST_SCALE);
        match self.scales {
            DType::F16 => f16::from_f32(scale).max(f16::from_bits(1)).to_f32(),
            DType::BF16 => bf16::from_f32(scale).to_f32(),
            _ => scale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize) -> Vec<f32> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next() + next() + next()).collect()
    }

    #[test]
    fn what_lies_on_the_grid_comes_back() {
        for scales in [DType::F32, DType::F16, DType::BF16] {
            let grid = Grid { codes: Codes::Integers { bits: 4 }, group: 4, scales };
            let weights: Vec<f32> = [-8.0, 7.0, 3.0, 0.0].iter().map(|q| q * 0.25).collect();
            let found = grid.quantize(&weights, 4, None).unwrap();
            assert_eq!((found.codes, found.scales), (vec![0xf8, 7, 3, 0], vec![0.25]));
            assert_eq!(found.loss.error, 0.0);
        }
    }

    #[test]
    fn the_search_beats_the_usual_scale() {
        let weights = noise(512);
        let grid = Grid { codes: Codes::Integers { bits: 4 }, group: 32, scales: DType::F32 };
        let found = grid.quantize(&weights, 64, None).unwrap();
        let usual: f64 = weights
            .chunks(32)
            .map(|group| {
                let scale = group.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 7.5;
                grid.error(group, &[1.0; 32], scale)
            })
            .sum();
        assert!(found.loss.error < 0.95 * usual, "{} {usual}", found.loss.error);
    }

    #[test]
    fn important_columns_lose_less() {
        let weights = noise(256);
        let grid = Grid { codes: Codes::Integers { bits: 4 }, group: 32, scales: DType::F32 };
        let importance: Vec<f32> = (0..32).map(|i| if i < 4 { 100.0 } else { 1.0 }).collect();
        let lost = |importance: Option<&[f32]>| -> f32 {
            let found = grid.quantize(&weights, 32, importance).unwrap();
            let value = |i: usize| f32::from(found.codes[i] as i8) * found.scales[i / 32];
            (0..256).filter(|i| i % 32 < 4).map(|i| (weights[i] - value(i)).powi(2)).sum()
        };
        assert!(lost(Some(&importance)) < lost(None));
    }

    #[test]
    fn floats_of_8_bits_keep_small_numbers() {
        let grid = Grid { codes: Codes::Float8, group: 4, scales: DType::F32 };
        let found = grid.quantize(&[448.0, -1.0, 0.5, 0.0], 4, None).unwrap();
        assert!(found.loss.relative() < 1e-6, "{found:?}");
    }

    #[test]
    fn damage_is_refused() {
        let grid = Grid { codes: Codes::Integers { bits: 8 }, group: 3, scales: DType::F32 };
        assert_eq!(grid.quantize(&[0.0; 8], 4, None).unwrap_err().stable_code(), "FB-4714");
        let error = grid.quantize(&[0.0, 1.0, f32::NAN], 3, None).unwrap_err();
        assert_eq!((error.stable_code(), error.place().as_str()), ("FB-3713", "row 0, column 2"));
        let zeros = grid.quantize(&[0.0; 6], 3, None).unwrap();
        assert!(zeros.scales.iter().all(|s| *s > 0.0) && zeros.codes == [0; 6]);
    }
}
