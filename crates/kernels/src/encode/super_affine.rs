//! Blocks of 256 with a scale and a minimum for each sub-block, as small integers times two half
//! floats: Q2_K, Q4_K, Q5_K.
//!
//! First every sub-block gets its best scale and minimum. Then the block's two floats and the
//! integers are improved in turns: for given floats each sub-block tries the integers around its
//! best ones, measuring the true error; for given integers and codes the two floats solve a
//! least-squares problem over the block.

use super::affine::{self, Fit, Fixed, Levels, Sums};
use super::half::stored;
use super::lanes::{LANES, Lanes, Row};
use super::loss::{Loss, Tally, total};
use super::single::STARTS;
use super::tile::{Tile, scatter};
use super::{Encoder, GROUP, Group};
use std::hint::black_box;

/// Turns of floats and integers, after the first.
const TURNS: usize = 2;

/// How a type stores sub-blocks.
#[derive(Clone, Copy)]
struct Shape {
    levels: Levels,
    /// The largest integer scale and minimum.
    top: f32,
}

/// The two floats of a block, as bits and as values.
#[derive(Clone, Copy)]
struct Floats {
    bits: [u16; 2],
    scale: f32,
    minimum: f32,
}

impl Floats {
    #[inline(always)]
    fn new(scale: f32, minimum: f32) -> Floats {
        let ((a, scale), (b, minimum)) = (stored(scale), stored(minimum));
        Floats { bits: [a, b], scale, minimum }
    }
}

/// The integers of eight sub-blocks, and the error with them.
#[derive(Clone, Copy)]
struct Integers<V> {
    scale: V,
    minimum: V,
    error: V,
}

impl<V: Lanes> Integers<V> {
    /// Worse than any.
    #[inline(always)]
    fn unset() -> Integers<V> {
        Integers { scale: V::zero(), minimum: V::zero(), error: V::splat(f32::MAX) }
    }

    /// The scale and minimum they stand for.
    #[inline(always)]
    fn fit(self, floats: Floats) -> Fit<V> {
        let minimum = V::zero() - self.minimum * V::splat(floats.minimum);
        Fit { scale: self.scale * V::splat(floats.scale), minimum }
    }
}

/// A whole block, ready to be laid out.
struct Block<const T: usize> {
    floats: Floats,
    scales: [[u8; LANES]; T],
    minima: [[u8; LANES]; T],
    codes: [u8; GROUP],
    loss: Loss,
}

/// Eight sub-blocks with their best scales and minima.
#[derive(Clone, Copy)]
struct Part<V, const N: usize> {
    tile: Tile<N>,
    best: Fit<V>,
    fixed: Fixed<V>,
}

impl<V: Lanes, const N: usize> Part<V, N> {
    #[inline(always)]
    fn of(group: Group<'_>, start: usize, levels: Levels) -> Part<V, N> {
        let tile = Tile::of::<V>(group, start);
        let (best, fixed) = affine::search(&tile, levels);
        Part { tile, best, fixed }
    }
}

#[inline(always)]
fn block<V: Lanes, const N: usize, const T: usize>(group: Group<'_>, shape: Shape) -> Block<T> {
    let parts: [Part<V, N>; T] = parts(group, shape.levels);
    let mut next = first(&parts, shape.top);
    let (mut floats, mut best) = (next, [Integers::unset(); T]);
    for _ in 0..=black_box(TURNS) {
        let tried = integers(&parts, shape, next);
        if sum(&tried) < sum(&best) {
            (floats, best) = (next, tried);
        }
        next = improved(&parts, shape, floats, &best);
    }
    coded(&parts, shape, floats, &best)
}

#[inline(always)]
fn parts<V: Lanes, const N: usize, const T: usize>(
    group: Group<'_>,
    levels: Levels,
) -> [Part<V, N>; T] {
    let mut parts = [Part::of(group, 0, levels); T];
    for (t, part) in parts.iter_mut().enumerate().skip(1) {
        *part = Part::of(group, t * LANES * N, levels);
    }
    parts
}

/// Floats that give the largest scale and minimum the largest integer.
#[inline(always)]
fn first<V: Lanes, const N: usize>(parts: &[Part<V, N>], top: f32) -> Floats {
    let (mut scale, mut minimum) = (0.0_f32, 0.0_f32);
    for part in parts {
        for (s, m) in part.best.scale.row().iter().zip(part.best.minimum.row()) {
            (scale, minimum) = (scale.max(*s), minimum.max(-m));
        }
    }
    Floats::new(scale / top, minimum / top)
}

#[inline(always)]
fn integers<V: Lanes, const N: usize, const T: usize>(
    parts: &[Part<V, N>; T],
    shape: Shape,
    floats: Floats,
) -> [Integers<V>; T] {
    let mut chosen = [Integers::unset(); T];
    for (chosen, part) in chosen.iter_mut().zip(parts) {
        *chosen = choose(part, shape, floats, *chosen);
    }
    chosen
}

/// The integers of least error among those around the best scale and minimum.
#[inline(always)]
fn choose<V: Lanes, const N: usize>(
    part: &Part<V, N>,
    shape: Shape,
    floats: Floats,
    mut chosen: Integers<V>,
) -> Integers<V> {
    let (zero, top) = (V::zero(), V::splat(shape.top));
    let mean = part.fixed.x.ratio(part.fixed.one);
    // A line of least squares goes through the mean: other slopes turn around it.
    let code = (mean - part.best.minimum).ratio(part.best.scale);
    let nearest = part.best.scale.ratio(V::splat(floats.scale)).round();
    for step in black_box([-1.0, 0.0, 1.0]) {
        let scale = (nearest + V::splat(step)).clamp(zero, top);
        let minimum = scale * V::splat(floats.scale) * code - mean;
        let exact = minimum.ratio(V::splat(floats.minimum));
        for side in black_box([-0.25, 0.25]) {
            let minimum = (exact + V::splat(side)).clamp(zero, top).round();
            let tried = Integers { scale, minimum, error: zero };
            let error = affine::error(&part.tile, shape.levels.top, tried.fit(floats));
            let less = error.less(chosen.error);
            chosen.scale = V::pick(less, scale, chosen.scale);
            chosen.minimum = V::pick(less, minimum, chosen.minimum);
            chosen.error = V::pick(less, error, chosen.error);
        }
    }
    chosen
}

#[inline(always)]
fn sum<V: Lanes>(integers: &[Integers<V>]) -> f64 {
    let mut sum = 0.0;
    for part in integers {
        sum += total(part.error.row());
    }
    sum
}

/// The floats of least error for these integers and the codes that follow from them.
#[inline(always)]
fn improved<V: Lanes, const N: usize, const T: usize>(
    parts: &[Part<V, N>; T],
    shape: Shape,
    floats: Floats,
    integers: &[Integers<V>; T],
) -> Floats {
    let mut terms = [0.0; 5];
    for (part, i) in parts.iter().zip(integers) {
        let [s] = affine::scan(&part.tile, shape.levels.top, [i.fit(floats)]);
        let rows = normal(part.fixed, s, *i);
        for (term, row) in terms.iter_mut().zip(rows) {
            *term += total(row);
        }
    }
    let [aa, ab, bb, xa, xb] = terms;
    let determinant = aa * bb - ab * ab;
    if determinant > 1e-9 * aa * bb {
        let scale = (xa * bb - ab * xb) / determinant;
        let minimum = (ab * xa - aa * xb) / determinant;
        Floats::new(scale.max(0.0) as f32, minimum.max(0.0) as f32)
    } else if aa > 0.0 {
        Floats::new((xa / aa).max(0.0) as f32, floats.minimum)
    } else {
        floats
    }
}

/// The terms of the equations for the floats: x is about `scale * a - minimum * b`.
#[inline(always)]
fn normal<V: Lanes>(fixed: Fixed<V>, s: Sums<V>, i: Integers<V>) -> [Row; 5] {
    let (a, b) = (i.scale, i.minimum);
    let (aa, ab, bb) = (a * a * s.qq, a * b * s.q, b * b * fixed.one);
    [aa.row(), ab.row(), bb.row(), (a * s.xq).row(), (b * fixed.x).row()]
}

#[inline(always)]
fn coded<V: Lanes, const N: usize, const T: usize>(
    parts: &[Part<V, N>; T],
    shape: Shape,
    floats: Floats,
    integers: &[Integers<V>; T],
) -> Block<T> {
    let (scales, minima) = ([[0; LANES]; T], [[0; LANES]; T]);
    let mut block = Block { floats, scales, minima, codes: [0; GROUP], loss: Loss::default() };
    for t in 0..T {
        let (tile, fit) = (&parts[t].tile, integers[t].fit(floats));
        let (inverse, shift) = affine::reciprocal(fit);
        let mut tally = Tally::new();
        let mut rows = [[0.0; LANES]; N];
        for (row, (x, weight)) in rows.iter_mut().zip(tile.rows()) {
            let (x, weight) = (V::load(x), V::load(weight));
            let q = affine::code(x, inverse, shift, V::splat(shape.levels.top));
            tally.add(weight, x, x - fit.minimum - fit.scale * q);
            q.store(row);
        }
        scatter::<V, N>(&rows, &mut block.codes[t * LANES * N..]);
        block.scales[t] = integers[t].scale.bytes();
        block.minima[t] = integers[t].minimum.bytes();
        block.loss = block.loss.merge(tally.loss());
    }
    block
}

/// Two numbers of six bits for each of eight sub-blocks, in 12 bytes.
#[inline(always)]
fn pack_sixes(scales: [u8; LANES], minima: [u8; LANES], out: &mut [u8]) {
    for j in 0..4 {
        let (scale, minimum) = (scales[j + 4], minima[j + 4]);
        out[j] = scales[j] | scale >> 4 << 6;
        out[j + 4] = minima[j] | minimum >> 4 << 6;
        out[j + 8] = scale & 15 | (minimum & 15) << 4;
    }
}

#[inline(always)]
fn put_floats(floats: Floats, out: &mut [u8]) {
    out[..2].copy_from_slice(&floats.bits[0].to_le_bytes());
    out[2..4].copy_from_slice(&floats.bits[1].to_le_bytes());
}

/// Lower four bits of each 32 codes below those of the next 32.
#[inline(always)]
fn put_nibbles(codes: &[u8; GROUP], out: &mut [u8]) {
    for (codes, out) in codes.chunks_exact(64).zip(out.chunks_exact_mut(32)) {
        for (l, out) in out.iter_mut().enumerate() {
            *out = codes[l] & 15 | (codes[l + 32] & 15) << 4;
        }
    }
}

/// Two bits of each of four times 32 codes in each 32 bytes.
#[inline(always)]
pub(super) fn put_crumbs(codes: &[u8; GROUP], out: &mut [u8]) {
    for (codes, out) in codes.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
        for (l, out) in out.iter_mut().enumerate() {
            let crumb = |plane: usize| (codes[l + 32 * plane] & 3) << (2 * plane);
            *out = crumb(0) | crumb(1) | crumb(2) | crumb(3);
        }
    }
}

/// One bit of each of eight times 32 codes in 32 bytes.
#[inline(always)]
pub(super) fn put_bits(codes: &[u8; GROUP], bit: u8, out: &mut [u8]) {
    for (l, out) in out.iter_mut().enumerate() {
        *out = 0;
        for plane in 0..8 {
            *out |= (codes[l + 32 * plane] >> bit & 1) << plane;
        }
    }
}

/// Q4_K: codes 0..=15, sub-blocks of 32.
pub(super) struct Q4K;

impl Encoder for Q4K {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let levels = Levels { top: 15.0, free: false, starts: STARTS };
        let block = block::<V, 32, 1>(group, Shape { levels, top: 63.0 });
        put_floats(block.floats, out);
        pack_sixes(block.scales[0], block.minima[0], &mut out[4..16]);
        put_nibbles(&block.codes, &mut out[16..]);
        block.loss
    }
}

/// Q5_K: codes 0..=31, sub-blocks of 32.
pub(super) struct Q5K;

impl Encoder for Q5K {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let levels = Levels { top: 31.0, free: false, starts: STARTS };
        let block = block::<V, 32, 1>(group, Shape { levels, top: 63.0 });
        put_floats(block.floats, out);
        pack_sixes(block.scales[0], block.minima[0], &mut out[4..16]);
        put_bits(&block.codes, 4, &mut out[16..48]);
        put_nibbles(&block.codes, &mut out[48..]);
        block.loss
    }
}

/// Q2_K: codes 0..=3, sub-blocks of 16.
pub(super) struct Q2K;

impl Encoder for Q2K {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let levels = Levels { top: 3.0, free: false, starts: STARTS };
        let block = block::<V, 16, 2>(group, Shape { levels, top: 15.0 });
        for (j, out) in out[..16].iter_mut().enumerate() {
            *out = block.scales[j / LANES][j % LANES] | block.minima[j / LANES][j % LANES] << 4;
        }
        put_crumbs(&block.codes, &mut out[16..80]);
        put_floats(block.floats, &mut out[80..]);
        block.loss
    }
}
