//! The search for a scale and a minimum: `x` is about `scale * q + minimum`, `q` in `0..=top`.
//!
//! As for one scale, but the best pair for given codes solves two linear equations.

use super::lanes::{Lanes, TINY};
use super::tile::Tile;
use std::hint::black_box;

/// Steps from the best start.
const STEPS: usize = 2;

/// How the codes of a type are bounded, and where the search begins.
#[derive(Clone, Copy)]
pub(super) struct Levels {
    /// The largest code.
    pub(super) top: f32,
    /// Whether the minimum may be above 0.
    pub(super) free: bool,
    /// How far the lowest code begins above the smallest element and the highest code ends
    /// below the largest, in steps.
    pub(super) starts: &'static [[(f32, f32); 2]],
}

/// A scale and a minimum for each of eight blocks.
#[derive(Clone, Copy)]
pub(super) struct Fit<V> {
    pub(super) scale: V,
    pub(super) minimum: V,
}

/// Sums over a block: the weights, and with x.
#[derive(Clone, Copy)]
pub(super) struct Fixed<V> {
    pub(super) one: V,
    pub(super) x: V,
}

/// Sums over a block that depend on the codes.
#[derive(Clone, Copy)]
pub(super) struct Sums<V> {
    pub(super) q: V,
    pub(super) qq: V,
    pub(super) xq: V,
}

/// The pair of least weighted squared error that the search finds, and the sums it needed.
#[inline(always)]
pub(super) fn search<V: Lanes, const N: usize>(
    tile: &Tile<N>,
    levels: Levels,
) -> (Fit<V>, Fixed<V>) {
    let (fixed, low, high) = survey(tile, levels.free);
    let step = (high - low) * V::splat(1.0 / levels.top);
    let mut best = level(fixed, levels.free);
    for starts in black_box(levels.starts) {
        let mut fits = [best.0; 2];
        for (fit, (above, below)) in fits.iter_mut().zip(starts) {
            fit.minimum = low + step * V::splat(*above);
            let span = high - step * V::splat(*below) - fit.minimum;
            fit.scale = span * V::splat(1.0 / levels.top);
        }
        let sums = scan(tile, levels.top, fits);
        for (fit, sums) in fits.iter_mut().zip(&sums) {
            *fit = solve(fixed, *sums, levels.free).0;
        }
        let sums = scan(tile, levels.top, fits);
        for sums in &sums {
            best = better(best, solve(fixed, *sums, levels.free));
        }
    }
    for _ in 0..black_box(STEPS) {
        let [sums] = scan(tile, levels.top, [best.0]);
        best = better(best, solve(fixed, sums, levels.free));
    }
    (best.0, fixed)
}

/// The sums of weights, and the extent of the elements (with 0 unless `free`).
#[inline(always)]
fn survey<V: Lanes, const N: usize>(tile: &Tile<N>, free: bool) -> (Fixed<V>, V, V) {
    let first = V::load(&tile.x[0]);
    let (mut low, mut high) = (if free { first } else { V::zero() }, first);
    let mut fixed = Fixed { one: V::zero(), x: V::zero() };
    for (x, weight) in tile.rows() {
        let (x, weight) = (V::load(x), V::load(weight));
        (low, high) = (low.min(x), high.max(x));
        fixed.one = fixed.one + weight;
        fixed.x = weight.fma(x, fixed.x);
    }
    (fixed, low, high)
}

/// The fit that takes more of the signal.
#[inline(always)]
fn better<V: Lanes>((fit, gain): (Fit<V>, V), (other, taken): (Fit<V>, V)) -> (Fit<V>, V) {
    let more = gain.less(taken);
    let scale = V::pick(more, other.scale, fit.scale);
    let minimum = V::pick(more, other.minimum, fit.minimum);
    (Fit { scale, minimum }, V::pick(more, taken, gain))
}

/// The best fit for given codes, and how much of the signal it takes.
#[inline(always)]
fn solve<V: Lanes>(fixed: Fixed<V>, s: Sums<V>, free: bool) -> (Fit<V>, V) {
    let determinant = fixed.one * s.qq - s.q * s.q;
    let mut scale = (fixed.one * s.xq - fixed.x * s.q).ratio(determinant);
    let mut minimum = (s.qq * fixed.x - s.q * s.xq).ratio(determinant);
    // Equal codes leave the equations open: then the scale takes it all.
    let open = determinant.less(V::splat(TINY));
    let alone = if free { open } else { V::pick(open, open, V::zero().less(minimum)) };
    scale = V::pick(alone, s.xq.ratio(s.qq), scale);
    minimum = V::pick(alone, V::zero(), minimum);
    (Fit { scale, minimum }, scale * s.xq + minimum * fixed.x)
}

/// The best fit without codes, and how much of the signal it takes.
#[inline(always)]
fn level<V: Lanes>(fixed: Fixed<V>, free: bool) -> (Fit<V>, V) {
    let mean = fixed.x.ratio(fixed.one);
    let minimum = if free { mean } else { mean.min(V::zero()) };
    (Fit { scale: V::zero(), minimum }, minimum * fixed.x)
}

/// `1 / scale` and `-minimum / scale`.
#[inline(always)]
pub(super) fn reciprocal<V: Lanes>(fit: Fit<V>) -> (V, V) {
    (V::splat(1.0).ratio(fit.scale), V::zero() - fit.minimum.ratio(fit.scale))
}

/// The code of `x`, given `1 / scale` and `-minimum / scale`.
#[inline(always)]
pub(super) fn code<V: Lanes>(x: V, inverse: V, shift: V, top: V) -> V {
    x.fma(inverse, shift).clamp(V::zero(), top).round()
}

/// The sums of the codes that each of `K` fits gives.
#[inline(always)]
pub(super) fn scan<V: Lanes, const N: usize, const K: usize>(
    tile: &Tile<N>,
    top: f32,
    fits: [Fit<V>; K],
) -> [Sums<V>; K] {
    let mut line = [(V::zero(), V::zero()); K];
    for (line, fit) in line.iter_mut().zip(&fits) {
        *line = reciprocal(*fit);
    }
    let mut sums = [Sums { q: V::zero(), qq: V::zero(), xq: V::zero() }; K];
    for (x, weight) in tile.rows() {
        let (x, weight) = (V::load(x), V::load(weight));
        for k in 0..K {
            let q = code(x, line[k].0, line[k].1, V::splat(top));
            let wq = weight * q;
            sums[k].q = sums[k].q + wq;
            sums[k].xq = wq.fma(x, sums[k].xq);
            sums[k].qq = wq.fma(q, sums[k].qq);
        }
    }
    sums
}

/// The weighted squared error of a fit.
#[inline(always)]
pub(super) fn error<V: Lanes, const N: usize>(tile: &Tile<N>, top: f32, fit: Fit<V>) -> V {
    let (inverse, shift) = reciprocal(fit);
    let mut sum = V::zero();
    for (x, weight) in tile.rows() {
        let (x, weight) = (V::load(x), V::load(weight));
        let q = code(x, inverse, shift, V::splat(top));
        let rest = x - fit.minimum - fit.scale * q;
        sum = (weight * rest).fma(rest, sum);
    }
    sum
}
