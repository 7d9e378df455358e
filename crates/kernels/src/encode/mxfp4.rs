//! MXFP4: blocks of 32 numbers of four bits (E2M1) with a power of two as scale.

use super::grid::Grid;
use super::lanes::{LANES, Lanes};
use super::loss::{Loss, Tally};
use super::single::nibbles;
use super::symmetric;
use super::tile::{Tile, scatter};
use super::{Encoder, GROUP, Group};
use std::hint::black_box;

const N: usize = 32;

/// The values of FP4 E2M1, doubled, without sign.
const VALUES: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

/// [`VALUES`] with both signs.
#[derive(Clone, Copy)]
struct Fp4;

impl Grid for Fp4 {
    #[inline(always)]
    fn snap<V: Lanes>(self, t: V) -> V {
        let mut size = V::zero();
        for pair in VALUES.windows(2) {
            let middle = V::splat((pair[0] + pair[1]) * 0.5);
            size = size + V::pick(middle.less(t.abs()), V::splat(pair[1] - pair[0]), V::zero());
        }
        V::pick(t.less(V::zero()), V::zero() - size, size)
    }

    #[inline(always)]
    fn starts(self) -> &'static [[f32; 4]] {
        &[]
    }
}

/// The code of the power of two that lets the largest element be worth 4 to 8 (of at most 6).
fn exponent(peak: f32) -> u8 {
    let exponent = (peak.to_bits() >> 23 & 255) as u8;
    exponent.saturating_sub(2).clamp(2, 253)
}

/// `2^(code - 128)` for codes from 1 to 254.
fn power(code: u8) -> f32 {
    f32::from_bits(match code {
        0 | 1 => 0x0040_0000,
        _ => u32::from(code - 1) << 23,
    })
}

/// The code of each lane of least error: the usual one, one less, one more.
#[inline(always)]
fn search<V: Lanes>(tile: &Tile<N>) -> ([u8; LANES], V) {
    let peak: V = symmetric::peak(tile);
    let usual = peak.abs().row().map(exponent);
    let (mut codes, mut best) = (usual, [f32::INFINITY; LANES]);
    for step in black_box([0, 1, 2]) {
        let tried = usual.map(|code| code + step - 1);
        let error = symmetric::error(tile, Fp4, V::load(&tried.map(power))).row();
        for lane in 0..LANES {
            if error[lane] < best[lane] {
                (codes[lane], best[lane]) = (tried[lane], error[lane]);
            }
        }
    }
    (codes, V::load(&codes.map(power)))
}

/// The code of each value, by the value and 12.
const CODES: [u8; 25] = {
    let mut codes = [0; 25];
    let mut code = 0;
    while code < 8 {
        let value = VALUES[code] as usize;
        codes[12 - value] = code as u8 | 8;
        codes[12 + value] = code as u8;
        code += 1;
    }
    codes
};

/// MXFP4.
pub(super) struct Mxfp4;

impl Encoder for Mxfp4 {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let tile = Tile::<N>::of::<V>(group, 0);
        let (exponents, scale) = search::<V>(&tile);
        let inverse = V::splat(1.0).ratio(scale);
        let mut tally = Tally::new();
        let mut rows = [[0.0; LANES]; N];
        for (row, (x, weight)) in rows.iter_mut().zip(tile.rows()) {
            let (x, weight) = (V::load(x), V::load(weight));
            let value = Fp4.snap(x * inverse);
            tally.add(weight, x, x - scale * value);
            (value + V::splat(12.0)).store(row);
        }
        let mut codes = [0; GROUP];
        scatter::<V, N>(&rows, &mut codes);
        let blocks = out.chunks_exact_mut(17).zip(codes.as_chunks::<N>().0);
        for ((out, codes), exponent) in blocks.zip(exponents) {
            out[0] = exponent;
            nibbles(&codes.map(|value| CODES[usize::from(value)]), &mut out[1..]);
        }
        tally.loss()
    }
}
