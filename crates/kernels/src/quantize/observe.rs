//! Statistics of tensors for calibration: all of them merge, so that nothing has to be kept.

use std::sync::Mutex;

use crate::math::clip;
use crate::{Ctx, Job};

/// Elements per task. It bounds the rounding error of [`Moments`], and is fixed so that the sums
/// do not depend on the number of threads.
const BLOCK: usize = 65_536;

const LANES: usize = 16;

/// The range of the finite numbers, and how many others there were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    /// The smallest finite number; `inf` where there is none. Zero comes out as +0.
    pub min: f32,
    /// The largest finite number; `-inf` where there is none. Zero comes out as +0.
    pub max: f32,
    /// How many numbers were NaN.
    pub nan: u64,
    /// How many numbers were infinite.
    pub infinite: u64,
}

impl Extent {
    /// The extent of nothing.
    pub const EMPTY: Extent =
        Extent { min: f32::INFINITY, max: f32::NEG_INFINITY, nan: 0, infinite: 0 };

    /// The extent of both sets together.
    #[must_use]
    pub fn merge(self, other: Extent) -> Extent {
        Extent {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            nan: self.nan + other.nan,
            infinite: self.infinite + other.infinite,
        }
    }

    /// Whether there was no finite number.
    pub fn is_empty(self) -> bool {
        self.min > self.max
    }
}

/// The extent of `x`.
pub fn extent(ctx: Ctx<'_>, x: &[f32]) -> Extent {
    let parts = blocks(ctx, x, Extent::EMPTY, |x| ctx.isa.run(ExtentJob(x)));
    parts.into_iter().fold(Extent::EMPTY, Extent::merge)
}

struct ExtentJob<'a>(&'a [f32]);

impl Job for ExtentJob<'_> {
    type Output = Extent;
    #[inline(always)]
    fn run(self) -> Extent {
        let (mut min, mut max) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (mut nan, mut infinite) = ([0_u32; LANES], [0_u32; LANES]);
        let mut add = |lane: usize, x: f32| {
            let finite = x.abs() < f32::INFINITY;
            min[lane] = if finite && x < min[lane] { x } else { min[lane] };
            max[lane] = if finite && x > max[lane] { x } else { max[lane] };
            nan[lane] += u32::from(x.is_nan());
            infinite[lane] += u32::from(x.abs() == f32::INFINITY);
        };
        let (rows, rest) = self.0.as_chunks::<LANES>();
        for row in rows {
            row.iter().enumerate().for_each(|(lane, &x)| add(lane, x));
        }
        rest.iter().enumerate().for_each(|(lane, &x)| add(lane, x));
        Extent {
            // Adding 0 makes -0 and +0 one.
            min: min.into_iter().fold(f32::INFINITY, f32::min) + 0.0,
            max: max.into_iter().fold(f32::NEG_INFINITY, f32::max) + 0.0,
            nan: nan.into_iter().map(u64::from).sum(),
            infinite: infinite.into_iter().map(u64::from).sum(),
        }
    }
}

/// Count, sum and sum of squares, in `f64`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// How many numbers.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub sum_squares: f64,
}

impl Moments {
    /// The moments of both sets together.
    #[must_use]
    pub fn merge(self, other: Moments) -> Moments {
        Moments {
            count: self.count + other.count,
            sum: self.sum + other.sum,
            sum_squares: self.sum_squares + other.sum_squares,
        }
    }
}

/// The moments of `x`: blocks of 65,536 elements, 16 lanes in each, added up in order.
pub fn moments(ctx: Ctx<'_>, x: &[f32]) -> Moments {
    let parts = blocks(ctx, x, Moments::default(), |x| ctx.isa.run(MomentsJob(x)));
    parts.into_iter().fold(Moments::default(), Moments::merge)
}

struct MomentsJob<'a>(&'a [f32]);

impl Job for MomentsJob<'_> {
    type Output = Moments;
    #[inline(always)]
    fn run(self) -> Moments {
        let (mut sums, mut squares) = ([0.0_f64; LANES], [0.0_f64; LANES]);
        let mut add = |lane: usize, x: f32| {
            let x = f64::from(x);
            sums[lane] += x;
            squares[lane] += x * x;
        };
        let (rows, rest) = self.0.as_chunks::<LANES>();
        for row in rows {
            row.iter().enumerate().for_each(|(lane, &x)| add(lane, x));
        }
        rest.iter().enumerate().for_each(|(lane, &x)| add(lane, x));
        Moments {
            count: self.0.len() as u64,
            sum: sums.iter().sum(),
            sum_squares: squares.iter().sum(),
        }
    }
}

/// Adds rows of `sums.len()` numbers to `sums`, in `f64`, each column from the first row to the last.
///
/// What is left behind the last whole row does not count.
pub fn column_sums(ctx: Ctx<'_>, x: &[f32], sums: &mut [f64]) {
    let columns = sums.len();
    // Threads take columns rather than rows: the order of each sum stays what it is.
    let share = columns.div_ceil(ctx.pool.threads()).max(LANES);
    let share = if x.len() < BLOCK { columns } else { share };
    ctx.pool.for_each_chunk(sums, share, |i, sums| {
        ctx.isa.run(ColumnJob { x, columns, first: i * share, sums });
    });
}

struct ColumnJob<'a> {
    x: &'a [f32],
    columns: usize,
    first: usize,
    sums: &'a mut [f64],
}

impl Job for ColumnJob<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        for row in self.x.chunks_exact(self.columns) {
            let row = &row[self.first..][..self.sums.len()];
            self.sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
    }
}

/// One result per block of `x`, in order.
fn blocks<T: Copy + Send>(
    ctx: Ctx<'_>,
    x: &[f32],
    empty: T,
    job: impl Fn(&[f32]) -> T + Sync,
) -> Vec<T> {
    let mut parts = vec![empty; x.len().div_ceil(BLOCK)];
    ctx.pool.for_each_chunk(&mut parts, 1, |i, part| {
        let end = x.len().min((i + 1) * BLOCK);
        part[0] = job(&x[i * BLOCK..end]);
    });
    parts
}

/// Adds the numbers of `x` to a histogram: `counts` are bins of equal width from `low` to `high`.
///
/// Number `v` falls into bin `floor((v - low) (bins / (high - low)))`, computed in `f32`; numbers
/// outside fall into the first or the last bin, NaN into none. With `magnitude`, `|v|` is
/// counted. Nothing is counted where there is no bin.
pub fn histogram(
    ctx: Ctx<'_>,
    x: &[f32],
    (low, high): (f32, f32),
    magnitude: bool,
    counts: &mut [u64],
) {
    if counts.is_empty() {
        return;
    }
    let bins = counts.len();
    let total = Mutex::new(counts);
    // Counts merge in any order, so there need not be more tables than threads.
    let grain = x.len().div_ceil(ctx.pool.threads()).clamp(BLOCK, 1 << 30);
    ctx.pool.for_each_range(x.len(), grain, |range| {
        let part = ctx.isa.run(HistogramJob { x: &x[range], low, high, magnitude, bins });
        let mut total = total.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for (bin, total) in total.iter_mut().enumerate() {
            *total += part.iter().map(|table| u64::from(table[bin])).sum::<u64>();
        }
    });
}

struct HistogramJob<'a> {
    x: &'a [f32],
    low: f32,
    high: f32,
    magnitude: bool,
    bins: usize,
}

impl Job for HistogramJob<'_> {
    /// Two tables with a bin more than asked for, which takes the NaN.
    type Output = [Vec<u32>; 2];
    #[inline(always)]
    fn run(self) -> [Vec<u32>; 2] {
        // Two, because equal numbers often follow each other, and the processor must not wait
        // for one increment to begin the next.
        let mut tables = [0, 1].map(|_| vec![0_u32; self.bins + 1]);
        let mut indices = [0_u32; 256];
        for block in self.x.chunks(indices.len()) {
            for (index, &x) in indices.iter_mut().zip(block) {
                *index = self.bin(x);
            }
            for pair in indices[..block.len()].chunks(2) {
                for (table, &index) in tables.iter_mut().zip(pair) {
                    table[index as usize] += 1;
                }
            }
        }
        tables
    }
}

impl HistogramJob<'_> {
    #[inline(always)]
    fn bin(&self, x: f32) -> u32 {
        let x = if self.magnitude { x.abs() } else { x };
        let position = (x - self.low) * (self.bins as f32 / (self.high - self.low));
        let index = clip(position, 0.0, (self.bins - 1) as f32) as i32 as u32;
        if x.is_nan() { self.bins as u32 } else { index.min(self.bins as u32 - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{LENGTHS, everywhere, numbers, wild};

    #[test]
    fn extent_is_that_of_the_finite_numbers() {
        for len in LENGTHS.into_iter().chain([200_003]) {
            let x = wild(len, 9);
            let got = everywhere(|ctx| extent(ctx, &x));
            let finite = || x.iter().copied().filter(|x| x.is_finite());
            assert_eq!(got.min, finite().fold(f32::INFINITY, f32::min));
            assert_eq!(got.max, finite().fold(f32::NEG_INFINITY, f32::max));
            assert_eq!(got.nan, x.iter().filter(|x| x.is_nan()).count() as u64);
            assert_eq!(got.infinite, x.iter().filter(|x| x.is_infinite()).count() as u64);
        }
        assert!(everywhere(|ctx| extent(ctx, &[f32::NAN])).is_empty());
    }

    #[test]
    fn zero_has_one_sign() {
        let got = everywhere(|ctx| extent(ctx, &[-0.0, 0.0, -0.0]));
        assert_eq!(got.min.to_bits(), 0);
        assert_eq!(got.max.to_bits(), 0);
    }

    #[test]
    fn moments_are_exact_enough() {
        for len in LENGTHS.into_iter().chain([200_003]) {
            let x = numbers(len, 10, 3.0);
            let got = everywhere(|ctx| moments(ctx, &x));
            let sum: f64 = x.iter().map(|&x| f64::from(x)).sum();
            let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            assert_eq!(got.count, len as u64);
            assert!((got.sum - sum).abs() <= 1e-9 * squares.max(1.0));
            assert!((got.sum_squares - squares).abs() <= 1e-9 * squares);
        }
    }

    #[test]
    fn column_sums_are_those_of_one_column_after_the_other() {
        for columns in [1, 3, 16, 40, 1000] {
            let x = numbers(70_000, 12, 3.0);
            let got = everywhere(|ctx| {
                let mut sums = vec![0.5; columns];
                column_sums(ctx, &x, &mut sums);
                sums
            });
            for (column, got) in got.iter().enumerate() {
                let rows = x.chunks_exact(columns).map(|row| f64::from(row[column]));
                assert_eq!(*got, rows.fold(0.5, |sum, x| sum + x));
            }
        }
        everywhere(|ctx| column_sums(ctx, &[1.0], &mut []));
    }

    #[test]
    fn histogram_counts_each_number_once() {
        for magnitude in [false, true] {
            for len in LENGTHS.into_iter().chain([600_003]) {
                let x = wild(len, 11);
                let counts = everywhere(|ctx| {
                    let mut counts = vec![0; 37];
                    histogram(ctx, &x, (-2.0, 6.0), magnitude, &mut counts);
                    counts
                });
                let mut expected = vec![0; 37];
                for x in x.iter().filter(|x| !x.is_nan()) {
                    let x = if magnitude { x.abs() } else { *x };
                    let bin = ((x + 2.0) * (37.0 / 8.0)).clamp(0.0, 36.0) as usize;
                    expected[bin] += 1;
                }
                assert_eq!(counts, expected);
            }
        }
    }

    #[test]
    fn a_histogram_without_width_or_bins_is_harmless() {
        let counts = everywhere(|ctx| {
            histogram(ctx, &[1.0, 2.0], (0.0, 1.0), false, &mut []);
            let mut counts = vec![0; 3];
            histogram(ctx, &[1.0, 2.0, 0.5], (1.0, 1.0), false, &mut counts);
            counts
        });
        assert_eq!(counts.iter().sum::<u64>(), 3);
    }
}
