//! Blocks of 256 with an integer scale for each sub-block, times one half float: Q3_K, Q6_K,
//! IQ4_XS. The search is that of the blocks with minima, without them.

use super::grid::{Grid, Integers, NonLinear};
use super::half::stored;
use super::lanes::{LANES, Lanes};
use super::loss::{Loss, Tally, total};
use super::single::{IQ4_CODES, nibbles};
use super::super_affine::{put_bits, put_crumbs};
use super::symmetric;
use super::tile::{Tile, scatter};
use super::{Encoder, GROUP, Group};
use std::hint::black_box;

/// Turns of float and integers, after the first.
const TURNS: usize = 2;

/// How a type stores scales and codes.
#[derive(Clone, Copy)]
struct Shape<G> {
    grid: G,
    /// What is added to a member of the grid so that it is not negative.
    offset: f32,
    /// The smallest integer scale; the largest is one less in magnitude.
    low: f32,
}

/// A whole block, ready to be laid out.
struct Block<const T: usize> {
    bits: u16,
    scales: [[u8; LANES]; T],
    codes: [u8; GROUP],
    loss: Loss,
}

/// Eight sub-blocks with their best scales.
#[derive(Clone, Copy)]
struct Part<V, const N: usize> {
    tile: Tile<N>,
    best: V,
}

impl<V: Lanes, const N: usize> Part<V, N> {
    #[inline(always)]
    fn of<G: Grid>(group: Group<'_>, start: usize, grid: G) -> Part<V, N> {
        let tile = Tile::of::<V>(group, start);
        let best = symmetric::search::<V, G, N>(&tile, grid);
        Part { tile, best }
    }
}

/// Integer scales of eight sub-blocks, and the error with them.
#[derive(Clone, Copy)]
struct Scales<V> {
    scale: V,
    error: V,
}

impl<V: Lanes> Scales<V> {
    /// Worse than any.
    #[inline(always)]
    fn unset() -> Scales<V> {
        Scales { scale: V::zero(), error: V::splat(f32::MAX) }
    }
}

#[inline(always)]
fn block<V: Lanes, G: Grid, const N: usize, const T: usize>(
    group: Group<'_>,
    shape: Shape<G>,
) -> Block<T> {
    let mut parts = [Part::<V, N>::of(group, 0, shape.grid); T];
    for (t, part) in parts.iter_mut().enumerate().skip(1) {
        *part = Part::of(group, t * LANES * N, shape.grid);
    }
    let mut next = first(&parts, shape.low);
    let (mut float, mut best) = (next, [Scales::unset(); T]);
    for _ in 0..=black_box(TURNS) {
        let tried = scales(&parts, shape, next.1);
        if sum(&tried) < sum(&best) {
            (float, best) = (next, tried);
        }
        next = improved(&parts, shape, float.1, &best);
    }
    coded(&parts, shape, float, &best)
}

/// The float that gives the scale of largest magnitude the smallest integer.
#[inline(always)]
fn first<V: Lanes, const N: usize>(parts: &[Part<V, N>], low: f32) -> (u16, f32) {
    let mut peak = 0.0_f32;
    for part in parts {
        for scale in part.best.row() {
            peak = if scale.abs() > peak.abs() { scale } else { peak };
        }
    }
    stored(peak / low)
}

#[inline(always)]
fn scales<V: Lanes, G: Grid, const N: usize, const T: usize>(
    parts: &[Part<V, N>; T],
    shape: Shape<G>,
    float: f32,
) -> [Scales<V>; T] {
    let mut chosen = [Scales::unset(); T];
    for (chosen, part) in chosen.iter_mut().zip(parts) {
        let nearest = part.best.ratio(V::splat(float)).round();
        for step in black_box([-1.0, 0.0, 1.0]) {
            let (low, high) = (V::splat(shape.low), V::splat(-1.0 - shape.low));
            let scale = (nearest + V::splat(step)).clamp(low, high);
            let error = symmetric::error(&part.tile, shape.grid, scale * V::splat(float));
            let less = error.less(chosen.error);
            chosen.scale = V::pick(less, scale, chosen.scale);
            chosen.error = V::pick(less, error, chosen.error);
        }
    }
    chosen
}

#[inline(always)]
fn sum<V: Lanes>(scales: &[Scales<V>]) -> f64 {
    let mut sum = 0.0;
    for part in scales {
        sum += total(part.error.row());
    }
    sum
}

/// The float of least error for these integers and the codes that follow from them.
#[inline(always)]
fn improved<V: Lanes, G: Grid, const N: usize, const T: usize>(
    parts: &[Part<V, N>; T],
    shape: Shape<G>,
    float: f32,
    scales: &[Scales<V>; T],
) -> (u16, f32) {
    let (mut xa, mut aa) = (0.0, 0.0);
    for (part, s) in parts.iter().zip(scales) {
        let inverse = V::splat(1.0).ratio(s.scale * V::splat(float));
        let [sums] = symmetric::scan(&part.tile, shape.grid, [inverse]);
        xa += total((s.scale * sums.xg).row());
        aa += total((s.scale * s.scale * sums.gg).row());
    }
    stored(if aa > 0.0 { (xa / aa) as f32 } else { float })
}

#[inline(always)]
fn coded<V: Lanes, G: Grid, const N: usize, const T: usize>(
    parts: &[Part<V, N>; T],
    shape: Shape<G>,
    (bits, float): (u16, f32),
    scales: &[Scales<V>; T],
) -> Block<T> {
    let (scale_codes, codes) = ([[0; LANES]; T], [0; GROUP]);
    let mut block = Block { bits, scales: scale_codes, codes, loss: Loss::default() };
    for t in 0..T {
        let (tile, scale) = (&parts[t].tile, scales[t].scale * V::splat(float));
        let inverse = V::splat(1.0).ratio(scale);
        let mut tally = Tally::new();
        let mut rows = [[0.0; LANES]; N];
        for (row, (x, weight)) in rows.iter_mut().zip(tile.rows()) {
            let (x, weight) = (V::load(x), V::load(weight));
            let g = shape.grid.snap(x * inverse);
            tally.add(weight, x, x - scale * g);
            (g + V::splat(shape.offset)).store(row);
        }
        scatter::<V, N>(&rows, &mut block.codes[t * LANES * N..]);
        block.scales[t] = scales[t].scale.bytes();
        block.loss = block.loss.merge(tally.loss());
    }
    block
}

/// Q6_K: codes -32..=31, sub-blocks of 16, scales of eight bits.
pub(super) struct Q6K;

impl Encoder for Q6K {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let starts = &[[-32.2, -31.3, -30.2, -32.5], [-28.9, -31.7, 31.4, -29.6]];
        let grid = Integers { low: -32.0, high: 31.0, starts };
        let block = block::<V, _, 16, 2>(group, Shape { grid, offset: 32.0, low: -128.0 });
        for half in 0..2 {
            let codes = &block.codes[half * 128..][..128];
            let (low, high) = out[..192].split_at_mut(128);
            for (l, low) in low[half * 64..][..64].iter_mut().enumerate() {
                *low = codes[l] & 15 | (codes[l + 64] & 15) << 4;
            }
            for (l, high) in high[half * 32..][..32].iter_mut().enumerate() {
                let crumb = |plane: usize| codes[l + 32 * plane] >> 4 << (2 * plane);
                *high = crumb(0) | crumb(1) | crumb(2) | crumb(3);
            }
        }
        out[192..200].copy_from_slice(&block.scales[0]);
        out[200..208].copy_from_slice(&block.scales[1]);
        out[208..].copy_from_slice(&block.bits.to_le_bytes());
        block.loss
    }
}

/// Q3_K: codes -4..=3, sub-blocks of 16, scales of six bits.
pub(super) struct Q3K;

impl Encoder for Q3K {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let starts = &[[-4.1, -3.4, -4.5, -3.7], [-2.9, -4.9, 3.4, 2.8]];
        let grid = Integers { low: -4.0, high: 3.0, starts };
        let block = block::<V, _, 16, 2>(group, Shape { grid, offset: 4.0, low: -32.0 });
        put_bits(&block.codes, 2, &mut out[..32]);
        put_crumbs(&block.codes, &mut out[32..96]);
        out[96..108].fill(0);
        for (j, scale) in block.scales.as_flattened().iter().enumerate() {
            let scale = scale.wrapping_add(32);
            out[96 + j % 8] |= (scale & 15) << (j / 8 * 4);
            out[104 + j % 4] |= scale >> 4 << (j / 4 * 2);
        }
        out[108..].copy_from_slice(&block.bits.to_le_bytes());
        block.loss
    }
}

/// IQ4_XS: codes as IQ4_NL, sub-blocks of 32, scales of six bits.
pub(super) struct Iq4Xs;

impl Encoder for Iq4Xs {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let shape = Shape { grid: NonLinear, offset: 128.0, low: -32.0 };
        let block = block::<V, _, 32, 1>(group, shape);
        let codes = block.codes.map(|value| IQ4_CODES[usize::from(value)]);
        out[..2].copy_from_slice(&block.bits.to_le_bytes());
        out[4..8].fill(0);
        let mut high = 0_u16;
        for (j, scale) in block.scales[0].iter().enumerate() {
            let scale = scale.wrapping_add(32);
            high |= u16::from(scale >> 4) << (2 * j);
            out[4 + j / 2] |= (scale & 15) << (j % 2 * 4);
        }
        out[2..4].copy_from_slice(&high.to_le_bytes());
        for (codes, out) in codes.chunks_exact(32).zip(out[8..].chunks_exact_mut(16)) {
            nibbles(codes, out);
        }
        block.loss
    }
}
