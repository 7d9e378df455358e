//! Blocks of 32 with scales of their own: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL.

use super::affine::{self, Fit, Levels};
use super::grid::{Grid, IQ4, Integers, NonLinear};
use super::half::stored_row;
use super::lanes::{LANES, Lanes, Row};
use super::loss::{Loss, Tally};
use super::symmetric;
use super::tile::{Tile, scatter};
use super::{Encoder, GROUP, Group};

const N: usize = 32;

/// Codes of eight blocks in their order, each with its stored numbers.
struct Coded<const S: usize> {
    scales: [[u16; LANES]; S],
    codes: [u8; GROUP],
    loss: Loss,
}

impl<const S: usize> Coded<S> {
    /// Calls `put` for each block with its stored numbers, its codes and its bytes of `out`.
    #[inline(always)]
    fn write(&self, out: &mut [u8], put: impl Fn(&[u8], &mut [u8])) -> Loss {
        let blocks = out.chunks_exact_mut(out.len() / LANES).zip(self.codes.chunks_exact(N));
        for (b, (out, codes)) in blocks.enumerate() {
            for (s, slot) in out.chunks_exact_mut(2).take(S).enumerate() {
                slot.copy_from_slice(&self.scales[s][b].to_le_bytes());
            }
            put(codes, &mut out[2 * S..]);
        }
        self.loss
    }
}

/// One scale for each block, that of least error.
#[inline(always)]
fn one_scale<V: Lanes, G: Grid>(group: Group<'_>, grid: G, offset: f32) -> Coded<1> {
    let tile = Tile::<N>::of::<V>(group, 0);
    let scale = symmetric::search::<V, G, N>(&tile, grid);
    scaled(&tile, scale, grid, offset)
}

/// The nearest members of the grid, with this scale.
#[inline(always)]
fn scaled<V: Lanes, G: Grid>(tile: &Tile<N>, scale: V, grid: G, offset: f32) -> Coded<1> {
    let (bits, scale) = stored_row(scale);
    let inverse = V::splat(1.0).ratio(scale);
    let mut tally = Tally::new();
    let mut rows = [[0.0; LANES]; N];
    for (row, (x, weight)) in rows.iter_mut().zip(tile.rows()) {
        let (x, weight) = (V::load(x), V::load(weight));
        let g = grid.snap(x * inverse);
        tally.add(weight, x, x - scale * g);
        (g + V::splat(offset)).store(row);
    }
    coded::<V, 1>([bits], &rows, tally)
}

/// A scale and a minimum for each block.
#[inline(always)]
fn scale_and_minimum<V: Lanes>(group: Group<'_>, levels: Levels) -> Coded<2> {
    let tile = Tile::<N>::of::<V>(group, 0);
    let (fit, _): (Fit<V>, _) = affine::search(&tile, levels);
    let ((bits, scale), (low, minimum)) = (stored_row(fit.scale), stored_row(fit.minimum));
    let (inverse, shift) = affine::reciprocal(Fit { scale, minimum });
    let mut tally = Tally::new();
    let mut rows = [[0.0; LANES]; N];
    for (row, (x, weight)) in rows.iter_mut().zip(tile.rows()) {
        let (x, weight) = (V::load(x), V::load(weight));
        let q = affine::code(x, inverse, shift, V::splat(levels.top));
        tally.add(weight, x, x - minimum - scale * q);
        q.store(row);
    }
    coded::<V, 2>([bits, low], &rows, tally)
}

#[inline(always)]
fn coded<V: Lanes, const S: usize>(
    scales: [[u16; LANES]; S],
    rows: &[Row; N],
    tally: Tally<V>,
) -> Coded<S> {
    let mut codes = [0; GROUP];
    scatter::<V, N>(rows, &mut codes);
    Coded { scales, codes, loss: tally.loss() }
}

/// Byte `j` holds the lower four bits of codes `j` and `j + 16`.
#[inline(always)]
pub(super) fn nibbles(codes: &[u8], out: &mut [u8]) {
    let (first, second) = codes.split_at(16);
    for (out, (a, b)) in out.iter_mut().zip(first.iter().zip(second)) {
        *out = a & 15 | b << 4;
    }
}

/// Four bytes with the fifth bits, then the nibbles.
#[inline(always)]
fn fives(codes: &[u8], out: &mut [u8]) {
    let high = codes.iter().enumerate().fold(0_u32, |bits, (j, &c)| bits | u32::from(c >> 4) << j);
    out[..4].copy_from_slice(&high.to_le_bytes());
    nibbles(codes, &mut out[4..]);
}

/// Q8_0: codes -127..=127.
pub(super) struct Q8_0;

impl Encoder for Q8_0 {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let starts = &[[127.0, 126.0, 125.0, 123.5]];
        let grid = Integers { low: -127.0, high: 127.0, starts };
        one_scale::<V, _>(group, grid, 0.0).write(out, |codes, out| out.copy_from_slice(codes))
    }
}

/// Q4_0: codes -8..=7.
pub(super) struct Q4_0;

impl Encoder for Q4_0 {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let starts = &[[-8.2, -7.2, -8.7, -7.8], [-6.5, -9.1, -8.4, 7.7]];
        let grid = Integers { low: -8.0, high: 7.0, starts };
        let tile = Tile::<N>::of::<V>(group, 0);
        // With so few codes, what the search gains on small weights it takes from large ones,
        // which change the outputs of a language model more than their squared error says.
        let unit = V::splat(1.0).ratio(symmetric::peak(&tile));
        let searched = if group.weight.is_none() { tile.by_size(unit) } else { tile };
        let scale: V = symmetric::search(&searched, grid);
        scaled(&tile, scale, grid, 8.0).write(out, nibbles)
    }
}

/// Q5_0: codes -16..=15.
pub(super) struct Q5_0;

impl Encoder for Q5_0 {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let starts = &[[-16.12, -15.0, -16.6, -14.12], [-15.75, -13.0, -15.25, -16.4]];
        let grid = Integers { low: -16.0, high: 15.0, starts };
        one_scale::<V, _>(group, grid, 16.0).write(out, fives)
    }
}

/// IQ4_NL: codes for [`IQ4`].
pub(super) struct Iq4Nl;

impl Encoder for Iq4Nl {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let mut coded = one_scale::<V, _>(group, NonLinear, 128.0);
        coded.codes = coded.codes.map(|value| IQ4_CODES[usize::from(value)]);
        coded.write(out, nibbles)
    }
}

/// The code of each value of [`IQ4`], by the value and 128.
pub(super) const IQ4_CODES: [u8; 256] = {
    let mut codes = [0; 256];
    let mut code = 0;
    while code < 16 {
        codes[(IQ4[code] as i16 + 128) as usize] = code as u8;
        code += 1;
    }
    codes
};

/// Starts of the searches with a minimum: steps above the smallest, below the largest element.
pub(super) const STARTS: &[[(f32, f32); 2]] = &[
    [(0.0, 0.0), (0.25, 0.25)],
    [(0.5, -0.25), (0.0, 0.5)],
    [(-0.5, 0.5), (0.25, 0.0)],
    [(0.0, -0.5), (0.5, 0.5)],
];

/// Q4_1: codes 0..=15 and a minimum.
pub(super) struct Q4_1;

impl Encoder for Q4_1 {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let levels = Levels { top: 15.0, free: true, starts: STARTS };
        scale_and_minimum::<V>(group, levels).write(out, nibbles)
    }
}

/// Q5_1: codes 0..=31 and a minimum.
pub(super) struct Q5_1;

impl Encoder for Q5_1 {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let levels = Levels { top: 31.0, free: true, starts: STARTS };
        scale_and_minimum::<V>(group, levels).write(out, fives)
    }
}
