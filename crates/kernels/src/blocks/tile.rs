//! The integer microkernels: a few tokens times one panel of 16 rows, unit by unit.
//!
//! The numbers: with `dot` the exact integer product of a unit (each half times its step, for
//! [`Halves`]), each accumulator runs over the units in order:
//!
//! - [`Quads`]: `acc = fma(dot * scale, s, acc)`, then `acc = fma(min, s * sum, acc)`; where the
//!   format has one offset for all, `acc = fma((dot + offset * sum) * scale, s, acc)`;
//! - [`Halves`] with joint minima: `acc = fma((dot + min) * scale, s, acc)`, all integer inside;
//! - [`Halves`] otherwise: `acc = fma(dot * scale, s, acc)`, then `fma(min * min_scale, s, acc)`;
//! - [`Signed`] and [`StoredSigned`]: `acc = fma(dot * scale, s, acc)`,
//!
//! where `s` is the scale of the activations' block and `dot` is rounded to `f32` once.

use bytemuck::Pod;
use half::f16;

use super::inputs::{Form, Tile, WORDS};
use super::unit::{CODES, Halves, Minima, Quads, ROWS, SPAN, Signed, Steps, StoredSigned, of_pair};
use super::weights::Weights;

/// The sums of a few tokens.
pub(super) type Sums<const T: usize> = [[f32; ROWS]; T];

/// A unit, and how a few tokens are multiplied with a row of them.
pub(super) trait Unit: Sized {
    /// What it is multiplied with.
    const FORM: Form;

    /// What it holds beside the codes, if kernels take packed codes apart on the way.
    type Head: Pod;

    /// The weights as numbers, the same as the format's definition has them.
    fn expand<W: Weights>(&self, out: &mut [[f32; ROWS]; SPAN]);

    /// Adds the products of `units` with the tile, whose blocks lie in the same order, to the
    /// sums of its tokens: the definition, in plain Rust.
    ///
    /// # Safety
    /// The tile has as many blocks of as many tokens, in the form of the unit.
    unsafe fn plain<W: Weights>(units: &[Self], tile: Tile, sums: &mut [[f32; ROWS]]);
}

/// Packed codes of units that lie `stride` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    pub first: *const u8,
    pub stride: usize,
}

/// A block of activations of one token, widened.
struct Block {
    codes: [i32; SPAN],
    scale: f32,
    sums: [u32; 2],
}

impl Tile {
    /// Block `block` of token `token` of `tokens`, with as many sums as `form` has.
    ///
    /// # Safety
    /// The tile has the block, and is of the form.
    unsafe fn block(&self, form: Form, block: usize, token: usize, tokens: usize) -> Block {
        let code = |i: usize| {
            // SAFETY: the caller's promise.
            let word = unsafe { *self.codes.add((block * WORDS + i / 4) * tokens + token) };
            (word << (8 * (3 - i % 4))).cast_signed() >> 24
        };
        let mut sums = [0; 2];
        for (i, sum) in sums[..form.sums()].iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *sum = unsafe { *self.sums.add((block * form.sums() + i) * tokens + token) };
        }
        // SAFETY: the caller's promise.
        let scale = unsafe { *self.scales.add(block * tokens + token) };
        Block { codes: std::array::from_fn(code), scale, sums }
    }
}

/// The integer product of row `r` with the elements `range` of a block.
fn dot_quads(codes: &[u8], block: &Block, r: usize, range: std::ops::Range<usize>) -> i32 {
    range.map(|i| i32::from(codes[(i / 4 * ROWS + r) * 4 + i % 4]) * block.codes[i]).sum()
}

/// The codes of element `i` of a unit, by row.
#[inline(always)]
fn quad_codes(codes: &[u8; CODES], i: usize) -> [i32; ROWS] {
    let words = &codes.as_chunks::<4>().0[i / 4 * ROWS..][..ROWS];
    let mut out = [0; ROWS];
    for (out, word) in out.iter_mut().zip(words) {
        *out = (u32::from_le_bytes(*word) >> (i % 4 * 8) & 255).cast_signed();
    }
    out
}

/// Signed codes times the scales.
#[inline(always)]
fn expand_signed(scale: &[f32; ROWS], codes: &[i8; CODES], out: &mut [[f32; ROWS]; SPAN]) {
    for (i, out) in out.iter_mut().enumerate() {
        for r in 0..ROWS {
            out[r] = scale[r] * f32::from(codes[(i / 4 * ROWS + r) * 4 + i % 4]);
        }
    }
}

impl Unit for Quads {
    type Head = Minima;
    const FORM: Form = Form::Quads;

    #[inline(always)]
    fn expand<W: Weights>(&self, out: &mut [[f32; ROWS]; SPAN]) {
        for (i, out) in out.iter_mut().enumerate() {
            let codes = quad_codes(&self.codes, i);
            for r in 0..ROWS {
                out[r] = self.head.scale[r] * codes[r] as f32 + self.head.min[r];
            }
        }
    }

    unsafe fn plain<W: Weights>(units: &[Quads], tile: Tile, sums: &mut [[f32; ROWS]]) {
        let tokens = sums.len();
        for (b, unit) in units.iter().enumerate() {
            for (t, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let block = unsafe { tile.block(W::FORM, b, t, tokens) };
                for (r, acc) in sums.iter_mut().enumerate() {
                    let dot = dot_quads(&unit.codes, &block, r, 0..SPAN);
                    if let Form::Offset { .. } = W::FORM {
                        let offset: i32 = block.sums.map(of_pair).as_flattened().iter().sum();
                        let dot = (dot + offset) as f32;
                        *acc = (dot * unit.head.scale[r]).mul_add(block.scale, *acc);
                    } else {
                        *acc = (dot as f32 * unit.head.scale[r]).mul_add(block.scale, *acc);
                        *acc = unit.head.min[r].mul_add(f32::from_bits(block.sums[0]), *acc);
                    }
                }
            }
        }
    }
}

impl Unit for Halves {
    type Head = Steps;
    const FORM: Form = Form::Halves;

    #[inline(always)]
    fn expand<W: Weights>(&self, out: &mut [[f32; ROWS]; SPAN]) {
        for (i, out) in out.iter_mut().enumerate() {
            let codes = quad_codes(&self.codes, i);
            for r in 0..ROWS {
                let product = codes[r] * of_pair(self.head.steps[i / 16][r])[0];
                let min = of_pair(self.head.min_steps[r])[i / 16];
                // Where the scales are one, the sum is exact in integers.
                out[r] = if W::JOINT {
                    (product + min) as f32 * self.head.scale[r]
                } else {
                    product as f32 * self.head.scale[r] + min as f32 * self.head.min_scale[r]
                };
            }
        }
    }

    unsafe fn plain<W: Weights>(units: &[Halves], tile: Tile, sums: &mut [[f32; ROWS]]) {
        let tokens = sums.len();
        for (b, unit) in units.iter().enumerate() {
            for (t, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let block = unsafe { tile.block(W::FORM, b, t, tokens) };
                let halves = of_pair(block.sums[0]);
                for (r, acc) in sums.iter_mut().enumerate() {
                    let dot = |h: usize| {
                        let dot = dot_quads(&unit.codes, &block, r, 16 * h..16 * h + 16);
                        dot * of_pair(unit.head.steps[h][r])[0]
                    };
                    let min = of_pair(unit.head.min_steps[r]);
                    let min = min[0] * halves[0] + min[1] * halves[1];
                    let dot = dot(0) + dot(1);
                    if W::JOINT {
                        *acc = ((dot + min) as f32 * unit.head.scale[r]).mul_add(block.scale, *acc);
                    } else {
                        *acc = (dot as f32 * unit.head.scale[r]).mul_add(block.scale, *acc);
                        *acc = (min as f32 * unit.head.min_scale[r]).mul_add(block.scale, *acc);
                    }
                }
            }
        }
    }
}

/// The definition for signed codes, one unit.
///
/// # Safety
/// As [`Unit::plain`].
unsafe fn plain_signed(
    (scale, codes): ([f32; ROWS], &[i8; CODES]),
    b: usize,
    tile: Tile,
    sums: &mut [[f32; ROWS]],
) {
    let tokens = sums.len();
    for (t, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let block = unsafe { tile.block(Form::Signed, b, t, tokens) };
        for (r, acc) in sums.iter_mut().enumerate() {
            let code = |i: usize| i32::from(codes[(i / 4 * ROWS + r) * 4 + i % 4]);
            let dot: i32 = (0..SPAN).map(|i| code(i) * block.codes[i]).sum();
            *acc = (dot as f32 * scale[r]).mul_add(block.scale, *acc);
        }
    }
}

impl Unit for Signed {
    type Head = [f32; ROWS];
    const FORM: Form = Form::Signed;

    #[inline(always)]
    fn expand<W: Weights>(&self, out: &mut [[f32; ROWS]; SPAN]) {
        expand_signed(&self.scale, &self.codes, out);
    }

    unsafe fn plain<W: Weights>(units: &[Signed], tile: Tile, sums: &mut [[f32; ROWS]]) {
        for (b, unit) in units.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { plain_signed((unit.scale, &unit.codes), b, tile, sums) };
        }
    }
}

impl StoredSigned {
    /// The scales as numbers.
    #[inline(always)]
    fn scales(&self) -> [f32; ROWS] {
        let mut scale = [0.0; ROWS];
        for (scale, bits) in scale.iter_mut().zip(self.scale) {
            *scale = f16::from_bits(bits).to_f32();
        }
        scale
    }
}

impl Unit for StoredSigned {
    type Head = ();
    const FORM: Form = Form::Signed;

    #[inline(always)]
    fn expand<W: Weights>(&self, out: &mut [[f32; ROWS]; SPAN]) {
        expand_signed(&self.scales(), &self.codes, out);
    }

    unsafe fn plain<W: Weights>(units: &[StoredSigned], tile: Tile, sums: &mut [[f32; ROWS]]) {
        for (b, unit) in units.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { plain_signed((unit.scales(), &unit.codes), b, tile, sums) };
        }
    }
}
