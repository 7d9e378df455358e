//! The search for one scale: `x` is about `scale * g`, with `g` from a grid around 0.
//!
//! For codes that are given, the best scale is a quotient of sums (weighted least squares), and
//! the error it leaves follows from the same sums; so one pass over a block judges a candidate.
//! From the best of a few starts the search goes on as Lloyd's: codes from the scale, scale from
//! the codes, each of which can only lower the error. (S. Lloyd, Least squares quantization in
//! PCM, 1982.)

use super::grid::Grid;
use super::lanes::Lanes;
use super::tile::Tile;
use std::hint::black_box;

/// Steps from the best start.
const STEPS: usize = 2;

/// Sums over a block: weight * x * g and weight * g * g.
#[derive(Clone, Copy)]
pub(super) struct Sums<V> {
    pub(super) xg: V,
    pub(super) gg: V,
}

impl<V: Lanes> Sums<V> {
    /// The best scale for these codes.
    #[inline(always)]
    pub(super) fn scale(self) -> V {
        self.xg.ratio(self.gg)
    }
}

/// The scale of least weighted squared error that the search finds, for each of eight blocks.
#[inline(always)]
pub(super) fn search<V: Lanes, G: Grid, const N: usize>(tile: &Tile<N>, grid: G) -> V {
    let unit = V::splat(1.0).ratio(peak::<V, N>(tile));
    let (mut scale, mut gain) = (V::zero(), V::zero());
    for starts in black_box(grid.starts()) {
        let mut inverse = [unit; 4];
        for (inverse, start) in inverse.iter_mut().zip(starts) {
            *inverse = V::splat(*start) * unit;
        }
        let candidates = scan(tile, grid, inverse);
        for sums in &candidates {
            (scale, gain) = better((scale, gain), *sums);
        }
    }
    for _ in 0..black_box(STEPS) {
        let [sums] = scan(tile, grid, [V::splat(1.0).ratio(scale)]);
        (scale, gain) = better((scale, gain), sums);
    }
    scale
}

/// The scale that takes more of the signal.
#[inline(always)]
fn better<V: Lanes>((scale, gain): (V, V), sums: Sums<V>) -> (V, V) {
    let candidate = sums.scale();
    let taken = candidate * sums.xg;
    let more = gain.less(taken);
    (V::pick(more, candidate, scale), V::pick(more, taken, gain))
}

/// The element of largest magnitude.
#[inline(always)]
pub(super) fn peak<V: Lanes, const N: usize>(tile: &Tile<N>) -> V {
    let (mut peak, mut size) = (V::zero(), V::zero());
    for (x, _) in tile.rows() {
        let x = V::load(x);
        let more = size.less(x.abs());
        (peak, size) = (V::pick(more, x, peak), V::pick(more, x.abs(), size));
    }
    peak
}

/// The sums of the codes that each of `K` inverse scales gives.
#[inline(always)]
pub(super) fn scan<V: Lanes, G: Grid, const N: usize, const K: usize>(
    tile: &Tile<N>,
    grid: G,
    inverse: [V; K],
) -> [Sums<V>; K] {
    let mut sums = [Sums { xg: V::zero(), gg: V::zero() }; K];
    for (x, weight) in tile.rows() {
        let (x, weight) = (V::load(x), V::load(weight));
        for k in 0..K {
            let g = grid.snap(x * inverse[k]);
            let wg = weight * g;
            sums[k].xg = wg.fma(x, sums[k].xg);
            sums[k].gg = wg.fma(g, sums[k].gg);
        }
    }
    sums
}

/// The weighted squared error with this scale.
#[inline(always)]
pub(super) fn error<V: Lanes, G: Grid, const N: usize>(tile: &Tile<N>, grid: G, scale: V) -> V {
    let inverse = V::splat(1.0).ratio(scale);
    let mut sum = V::zero();
    for (x, weight) in tile.rows() {
        let (x, weight) = (V::load(x), V::load(weight));
        let rest = x - scale * grid.snap(x * inverse);
        sum = (weight * rest).fma(rest, sum);
    }
    sum
}
