//! IQ3_S: entries of a codebook for four magnitudes, signs beside them, odd integer scales of 32.
//!
//! A scale is first sought as if every combination of magnitudes were in the codebook, for all
//! sub-blocks at once; then with the codebook, whose every entry is tried for each four elements.

use super::grid::Grid;
use super::half::stored;
use super::iq3_codes::IQ3_CODES;
use super::lanes::{LANES, Lanes, Row};
use super::loss::Loss;
use super::symmetric;
use super::tile::Tile;
use super::{Encoder, GROUP, Group};
use std::hint::black_box;

/// Elements of an entry; eight entries make a sub-block.
const ENTRY: usize = 4;
const SUB_BLOCK: usize = ENTRY * LANES;

/// Odd integers up to 15 in magnitude.
#[derive(Clone, Copy)]
struct Odd;

impl Grid for Odd {
    #[inline(always)]
    fn snap<V: Lanes>(self, t: V) -> V {
        let half = (t - V::splat(1.0)) * V::splat(0.5);
        let code = half.clamp(V::splat(-8.0), V::splat(7.0)).round();
        code + code + V::splat(1.0)
    }

    #[inline(always)]
    fn starts(self) -> &'static [[f32; 4]] {
        &[[15.6, 14.0, 12.4, 11.0], [9.6, 13.2, 17.0, 8.4]]
    }
}

/// A sub-block: magnitudes and weights, element `j` of its eight entries in row `j`.
struct SubBlock {
    size: [Row; ENTRY],
    weight: [Row; ENTRY],
}

/// The entries chosen for a sub-block, and the error with them.
#[derive(Clone, Copy)]
struct Choice {
    entries: [u16; LANES],
    error: f64,
}

impl SubBlock {
    #[inline(always)]
    fn of(group: Group<'_>, start: usize) -> SubBlock {
        let mut block = SubBlock { size: [[0.0; LANES]; ENTRY], weight: [[1.0; LANES]; ENTRY] };
        for i in 0..SUB_BLOCK {
            block.size[i % ENTRY][i / ENTRY] = group.x[start + i].abs();
            if let Some(weight) = group.weight {
                block.weight[i % ENTRY][i / ENTRY] = weight[start + i];
            }
        }
        block
    }

    /// The nearest entries at this scale.
    #[inline(always)]
    fn nearest<V: Lanes>(&self, scale: f32) -> Choice {
        let mut cost = [[V::zero(); 8]; ENTRY];
        for (j, cost) in cost.iter_mut().enumerate() {
            for (code, cost) in cost.iter_mut().enumerate() {
                let rest = V::load(&self.size[j]) - V::splat(scale * (2 * code + 1) as f32);
                *cost = V::load(&self.weight[j]) * rest * rest;
            }
        }
        let (mut best, mut index) = (V::splat(f32::INFINITY), V::zero());
        for (i, &codes) in black_box(&IQ3_CODES).iter().enumerate() {
            let code = |j: usize| usize::from(codes >> (3 * j) & 7);
            let (a, b) = (cost[0][code(0)] + cost[1][code(1)], cost[2][code(2)] + cost[3][code(3)]);
            let error = a + b;
            let less = error.less(best);
            (best, index) = (V::pick(less, error, best), V::pick(less, V::splat(i as f32), index));
        }
        let error = best.row().iter().map(|&e| f64::from(e)).sum();
        Choice { entries: index.row().map(|i| i as u16), error }
    }

    /// Sums of weight * size * g and weight * g * g over the entries.
    fn sums(&self, entries: &[u16; LANES]) -> (f64, f64) {
        let (mut xg, mut gg) = (0.0, 0.0);
        for (lane, &entry) in entries.iter().enumerate() {
            for j in 0..ENTRY {
                let g = f64::from(magnitude(entry, j));
                let weight = f64::from(self.weight[j][lane]);
                xg += weight * f64::from(self.size[j][lane]) * g;
                gg += weight * g * g;
            }
        }
        (xg, gg)
    }

    /// The scale of least error near `scale`.
    #[inline(always)]
    fn refine<V: Lanes>(&self, scale: f32) -> f32 {
        let (mut best, mut least) = (scale, f64::INFINITY);
        for factor in black_box([0.92, 1.0, 1.09]) {
            let choice = self.nearest::<V>(scale * factor);
            let (xg, gg) = self.sums(&choice.entries);
            if choice.error < least && gg > 0.0 {
                (best, least) = ((xg / gg) as f32, choice.error);
            }
        }
        best
    }
}

/// Element `j` of an entry.
fn magnitude(entry: u16, j: usize) -> f32 {
    f32::from(2 * (IQ3_CODES[usize::from(entry)] >> (3 * j) & 7) + 1)
}

/// The scale codes of the sub-blocks, their entries, and the whole error.
struct Coded {
    scales: [u8; LANES],
    choices: [Choice; LANES],
}

impl Coded {
    /// Worse than any.
    fn unset() -> Coded {
        let unset = Choice { entries: [0; LANES], error: f64::INFINITY };
        Coded { scales: [0; LANES], choices: [unset; LANES] }
    }

    fn error(&self) -> f64 {
        self.choices.iter().map(|c| c.error).sum()
    }

    /// The float of least error for these codes.
    fn float(&self, blocks: &[SubBlock; LANES]) -> f32 {
        let (mut xa, mut aa) = (0.0, 0.0);
        for ((block, choice), &code) in blocks.iter().zip(&self.choices).zip(&self.scales) {
            let (xg, gg) = block.sums(&choice.entries);
            let scale = f64::from(2 * code + 1);
            (xa, aa) = (xa + scale * xg, aa + scale * scale * gg);
        }
        if aa > 0.0 { (xa / aa) as f32 } else { 0.0 }
    }
}

/// For this float, the scale codes and entries of least error around the best scales.
#[inline(always)]
fn coded<V: Lanes>(blocks: &[SubBlock; LANES], best: &Row, float: f32) -> Coded {
    let mut coded = Coded::unset();
    for (lane, block) in blocks.iter().enumerate() {
        let exact = if float > 0.0 { (best[lane] / float - 1.0) * 0.5 } else { 0.0 };
        let nearest = exact.clamp(0.0, 15.0);
        for code in black_box([nearest.floor(), nearest.ceil()]) {
            let choice = block.nearest::<V>(float * (2.0 * code + 1.0));
            if choice.error < coded.choices[lane].error {
                (coded.scales[lane], coded.choices[lane]) = (code as u8, choice);
            }
        }
    }
    coded
}

/// IQ3_S.
pub(super) struct Iq3S;

impl Encoder for Iq3S {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let tile = Tile::<SUB_BLOCK>::of::<V>(group, 0);
        let mut best = symmetric::search::<V, _, SUB_BLOCK>(&tile, Odd).abs().row();
        let blocks: [SubBlock; LANES] =
            std::array::from_fn(|lane| SubBlock::of(group, lane * SUB_BLOCK));
        for (best, block) in best.iter_mut().zip(&blocks) {
            *best = block.refine::<V>(*best);
        }
        let largest = best.iter().fold(0.0_f32, |largest, &s| largest.max(s));
        let (mut next, mut float) = stored(largest / 31.0);
        let (mut bits, mut chosen) = (0, Coded::unset());
        for _ in 0..black_box(2) {
            let tried = coded::<V>(&blocks, &best, float);
            if tried.error() < chosen.error() {
                (bits, chosen) = (next, tried);
            }
            (next, float) = stored(chosen.float(&blocks));
        }
        put(bits, &chosen, group.x, out);
        Loss { error: chosen.error(), signal: signal(group) }
    }
}

fn signal(group: Group<'_>) -> f64 {
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    match group.weight {
        None => group.x.iter().map(square).sum(),
        Some(weight) => group.x.iter().zip(weight).map(|(x, &w)| square(x) * f64::from(w)).sum(),
    }
}

fn put(bits: u16, coded: &Coded, x: &[f32; GROUP], out: &mut [u8]) {
    out.fill(0);
    out[..2].copy_from_slice(&bits.to_le_bytes());
    let entries = coded.choices.iter().flat_map(|c| c.entries);
    for (q, entry) in entries.enumerate() {
        out[2 + q] = entry as u8;
        out[66 + q / 8] |= ((entry >> 8) as u8) << (q % 8);
    }
    for (i, &x) in x.iter().enumerate() {
        out[74 + i / 8] |= u8::from(x < 0.0) << (i % 8);
    }
    for (j, &scale) in coded.scales.iter().enumerate() {
        out[106 + j / 2] |= scale << (j % 2 * 4);
    }
}
