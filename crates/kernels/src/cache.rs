//! Keys and values as a cache keeps them: floats, half floats, or blocks of few bits. A few rows at
//! a time become `f32`, in a buffer that stays in the first caches: the whole cache never does.
//!
//! The bits are those of [`attention`](crate::attention) on the decoded numbers: each sum starts
//! at 0 and runs in order with fused multiply-add.

use crate::attention::{add_weighed_f32, scores_f32, weigh_f32};
use crate::blocks::{ACTIVATION_BLOCK, ACTIVATION_BYTES, Half, decode_halves};
use crate::gemm::Matrix;
use crate::{Ctx, Job};
use half::f16;

/// Elements of a block.
pub const BLOCK: usize = ACTIVATION_BLOCK;
/// Bytes of a `Q4_0` block: the scale in binary16, codes of elements `i` and `i + 16` in one byte.
pub const Q4_0_BYTES: usize = 18;
/// Rows that are decoded at once.
const TILE: usize = 64;

/// Numbers as they are stored.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// binary16, little-endian.
    F16(&'a [u8]),
    /// Blocks of 32 codes of 8 bits, as in GGUF.
    Q8_0(&'a [u8]),
    /// Blocks of 32 codes of 4 bits, as in GGUF.
    Q4_0(&'a [u8]),
}

/// Rows of one head. All lengths count elements; where the rows lie in blocks, they are multiples
/// of [`BLOCK`].
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Where they lie.
    pub stored: Stored<'a>,
    /// The first element of the first row.
    pub start: usize,
    /// From one row to the next.
    pub stride: usize,
    /// Elements of a row.
    pub size: usize,
}

impl<'a> Rows<'a> {
    /// `count` rows from `first` on, one after another.
    ///
    /// # Panics
    /// When there are not as many rows, or `out` holds fewer elements.
    pub fn decode(&self, ctx: Ctx<'_>, first: usize, count: usize, out: &mut [f32]) {
        let out = &mut out[..count * self.size];
        match self.stored {
            Stored::F16(bytes) => self.halves(ctx, bytes, first, out),
            _ => ctx.isa.run(Decode { rows: *self, first, out }),
        }
    }

    /// Products of `rows` queries with the first `count` rows, as [`scores_f32`] gives them.
    ///
    /// # Panics
    /// When a slice is shorter than its shape says.
    pub fn scores(
        &self,
        ctx: Ctx<'_>,
        (rows, count): (usize, usize),
        q: Matrix<&[f32]>,
        scores: &mut [f32],
    ) {
        if let Some(keys) = self.floats() {
            return scores_f32(ctx, (rows, self.size, count), q, keys, scores);
        }
        let mut tile = vec![0f32; TILE.min(count) * self.size];
        let mut found = vec![0f32; rows * TILE];
        for first in (0..count).step_by(TILE) {
            let lanes = TILE.min(count - first);
            self.decode(ctx, first, lanes, &mut tile);
            let keys = Matrix { data: &tile[..], stride: self.size };
            scores_f32(ctx, (rows, self.size, lanes), q, keys, &mut found);
            for (row, found) in found.chunks_exact(lanes).take(rows).enumerate() {
                scores[row * count + first..][..lanes].copy_from_slice(found);
            }
        }
    }

    /// Sums of the first `count` rows, weighed by `rows` rows of weights, as [`weigh_f32`] gives
    /// them.
    ///
    /// # Panics
    /// When a slice is shorter than its shape says.
    pub fn weigh(
        &self,
        ctx: Ctx<'_>,
        (rows, count): (usize, usize),
        weights: &[f32],
        out: &mut [f32],
    ) {
        if let Some(values) = self.floats() {
            return weigh_f32(ctx, (rows, count, self.size), weights, values, out);
        }
        let out = &mut out[..rows * self.size];
        out.fill(0.0);
        let mut tile = vec![0f32; TILE.min(count) * self.size];
        for first in (0..count).step_by(TILE) {
            let lanes = TILE.min(count - first);
            self.decode(ctx, first, lanes, &mut tile);
            let values = Matrix { data: &tile[..lanes * self.size], stride: self.size };
            let weights = Matrix { data: &weights[first..], stride: count };
            add_weighed_f32(ctx, (rows, lanes, self.size), weights, values, out);
        }
    }

    fn halves(&self, ctx: Ctx<'_>, bytes: &[u8], first: usize, out: &mut [f32]) {
        for (row, out) in out.chunks_exact_mut(self.size.max(1)).enumerate() {
            let at = self.start + (first + row) * self.stride;
            decode_halves(ctx.isa, Half::F16, &bytes[2 * at..][..2 * self.size], out);
        }
    }

    fn floats(&self) -> Option<Matrix<&'a [f32]>> {
        let Stored::F32(data) = self.stored else { return None };
        Some(Matrix { data: data.get(self.start..).unwrap_or(&[]), stride: self.stride })
    }
}

struct Decode<'a> {
    rows: Rows<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl Job for Decode<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Rows { stored, start, stride, size } = self.rows;
        if size == 0 {
            return;
        }
        for (row, out) in self.out.chunks_exact_mut(size).enumerate() {
            let at = start + (self.first + row) * stride;
            match stored {
                Stored::F32(data) => out.copy_from_slice(&data[at..at + size]),
                // They have instructions of their own.
                Stored::F16(_) => {}
                Stored::Q8_0(bytes) => {
                    blocks(&bytes[at / BLOCK * ACTIVATION_BYTES..], out, bytes_of_block);
                }
                Stored::Q4_0(bytes) => {
                    blocks(&bytes[at / BLOCK * Q4_0_BYTES..], out, nibbles_of_block);
                }
            }
        }
    }
}

/// binary16 to `f32`, exact, in steps that vectors have: the exponent is moved by a product.
#[inline(always)]
fn widened(half: u16) -> f32 {
    const INFINITE: u32 = 0x7c00 << 13;
    let magnitude = u32::from(half & 0x7fff) << 13;
    let finite = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let bits = if magnitude >= INFINITE { magnitude | 0x7f80_0000 } else { finite.to_bits() };
    f32::from_bits(bits | u32::from(half & 0x8000) << 16)
}

/// Blocks of `BYTES` bytes, one after another.
#[inline(always)]
fn blocks<const BYTES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; BLOCK]),
) {
    let (out, _) = out.as_chunks_mut::<BLOCK>();
    let blocks = &bytes.as_chunks::<BYTES>().0[..out.len()];
    for (out, block) in out.iter_mut().zip(blocks) {
        decode(block, out);
    }
}

#[inline(always)]
fn bytes_of_block(block: &[u8; ACTIVATION_BYTES], out: &mut [f32; BLOCK]) {
    let scale = widened(u16::from_le_bytes([block[0], block[1]]));
    for (out, &code) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(code as i8) * scale;
    }
}

#[inline(always)]
fn nibbles_of_block(block: &[u8; Q4_0_BYTES], out: &mut [f32; BLOCK]) {
    let scale = widened(u16::from_le_bytes([block[0], block[1]]));
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for ((low, high), &codes) in low.iter_mut().zip(high).zip(&block[2..]) {
        *low = f32::from((codes & 15) as i8 - 8) * scale;
        *high = f32::from((codes >> 4) as i8 - 8) * scale;
    }
}

/// Blocks of `Q4_0`: the scale is the value of the largest magnitude (the first of them) divided
/// by -8 and rounded to binary16 (saturating); a code is `round_half_to_even(x / scale) + 8`,
/// clamped to 0..=15. NaN is passed over for the scale and becomes the code of 0.
///
/// # Panics
/// When the values are no whole blocks, or `out` is of another number of blocks.
pub fn quantize_q4_0(ctx: Ctx<'_>, values: &[f32], out: &mut [u8]) {
    assert!(values.len().is_multiple_of(BLOCK), "whole blocks");
    assert_eq!(values.len() / BLOCK * Q4_0_BYTES, out.len(), "the output fits");
    let grain = ctx.pool.grain(values.len() / BLOCK, 512);
    ctx.pool.for_each_chunk(out, grain * Q4_0_BYTES, |chunk, out| {
        let (values, _) = values[chunk * grain * BLOCK..].as_chunks::<BLOCK>();
        let (blocks, _) = out.as_chunks_mut::<Q4_0_BYTES>();
        blocks.iter_mut().zip(values).for_each(|(block, values)| *block = block_of(values));
    });
}

fn block_of(values: &[f32; BLOCK]) -> [u8; Q4_0_BYTES] {
    let larger = |a: f32, &x: &f32| if x.abs() > a.abs() { x } else { a };
    let most = f16::MAX.to_f32();
    let scale = f16::from_f32((values.iter().fold(0f32, larger) / -8.0).clamp(-most, most));
    let divisor = scale.to_f32();
    let code = |x: f32| {
        let quotient = (x / divisor).round_ties_even();
        let quotient = if quotient.is_nan() { 0.0 } else { quotient };
        (quotient.clamp(-8.0, 7.0) as i32 + 8) as u8
    };
    let mut block = [0; Q4_0_BYTES];
    block[..2].copy_from_slice(&scale.to_le_bytes());
    for (i, byte) in block[2..].iter_mut().enumerate() {
        *byte = code(values[i]) | code(values[i + BLOCK / 2]) << 4;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::quantize_activations;
    use crate::elementwise::sweep::{bits, everywhere, numbers};
    use crate::threads::Pool;
    use crate::{Isa, Level};

    #[test]
    fn every_half_float_is_widened_exactly() {
        for code in 0..=u16::MAX {
            let (found, expected) = (widened(code), f16::from_bits(code).to_f32());
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan());
        }
    }

    /// The same numbers in every form, and as each form decodes them.
    fn forms(values: &[f32]) -> Vec<(&'static str, Vec<u8>)> {
        let pool = Pool::single();
        let ctx = Ctx { isa: Isa::best(), pool: &pool };
        let halves = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let mut bytes = vec![0; values.len() / BLOCK * ACTIVATION_BYTES];
        quantize_activations(ctx, values, &mut bytes);
        let mut nibbles = vec![0; values.len() / BLOCK * Q4_0_BYTES];
        quantize_q4_0(ctx, values, &mut nibbles);
        vec![("f16", halves), ("q8_0", bytes), ("q4_0", nibbles)]
    }

    fn stored<'a>(form: &str, bytes: &'a [u8]) -> Stored<'a> {
        match form {
            "f16" => Stored::F16(bytes),
            "q8_0" => Stored::Q8_0(bytes),
            _ => Stored::Q4_0(bytes),
        }
    }

    #[test]
    fn products_have_the_bits_of_decoded_rows() {
        let (count, stride, start, size) = (150, 192, 64, 64);
        let values = numbers(count * stride, 5, 2.0);
        for (form, bytes) in forms(&values) {
            let rows = Rows { stored: stored(form, &bytes), start, stride, size };
            for queries in [1, 3, 9] {
                let (q, weights) =
                    (numbers(queries * size, 1, 1.0), numbers(queries * count, 2, 1.0));
                everywhere(|ctx| {
                    let mut plain = vec![0.0; count * size];
                    rows.decode(ctx, 0, count, &mut plain);
                    let plain = Matrix { data: &plain[..], stride: size };
                    let q = Matrix { data: &q[..], stride: size };
                    let mut scores = [vec![0.0; queries * count], vec![0.0; queries * count]];
                    rows.scores(ctx, (queries, count), q, &mut scores[0]);
                    scores_f32(ctx, (queries, size, count), q, plain, &mut scores[1]);
                    assert_eq!(bits(&scores[0]), bits(&scores[1]), "{form}");
                    let mut sums = [vec![7.0; queries * size], vec![0.0; queries * size]];
                    rows.weigh(ctx, (queries, count), &weights, &mut sums[0]);
                    weigh_f32(ctx, (queries, count, size), &weights, plain, &mut sums[1]);
                    assert_eq!(bits(&sums[0]), bits(&sums[1]), "{form}");
                    [bits(&scores[0]), bits(&sums[0])].concat()
                });
            }
        }
    }

    #[test]
    fn sizes_that_fill_no_registers() {
        let (count, size) = (70, 20);
        let values = numbers(count * size, 5, 2.0);
        let halves: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let rows = Rows { stored: Stored::F16(&halves), start: 0, stride: size, size };
        let weights = numbers(5 * count, 2, 1.0);
        everywhere(|ctx| {
            let mut plain = vec![0.0; count * size];
            rows.decode(ctx, 0, count, &mut plain);
            let mut sums = [vec![0.0; 5 * size], vec![0.0; 5 * size]];
            rows.weigh(ctx, (5, count), &weights, &mut sums[0]);
            let plain = Matrix { data: &plain[..], stride: size };
            weigh_f32(ctx, (5, count, size), &weights, plain, &mut sums[1]);
            assert_eq!(bits(&sums[0]), bits(&sums[1]));
            bits(&sums[0])
        });
    }

    fn quantized(values: &[f32]) -> Vec<f32> {
        let pool = Pool::single();
        let ctx = Ctx { isa: Isa::new(Level::Scalar).unwrap_or(Isa::best()), pool: &pool };
        let mut bytes = vec![0; values.len() / BLOCK * Q4_0_BYTES];
        quantize_q4_0(ctx, values, &mut bytes);
        let rows = Rows { stored: Stored::Q4_0(&bytes), start: 0, stride: 32, size: 32 };
        let mut out = vec![0.0; values.len()];
        rows.decode(ctx, 0, values.len() / BLOCK, &mut out);
        out
    }

    #[test]
    fn four_bits_are_within_half_a_step_and_hold_odd_numbers() {
        let values = numbers(32 * 50, 9, 3.0);
        for (block, found) in values.chunks(32).zip(quantized(&values).chunks(32)) {
            let step = block.iter().fold(0f32, |a, x| a.max(x.abs())) / 8.0;
            for (x, y) in block.iter().zip(found) {
                // The largest value of the other sign may be a whole step beyond the last code.
                assert!((x - y).abs() <= 1.01 * step, "{x} became {y}");
            }
        }
        let mut odd = [0f32; 32];
        assert_eq!(quantized(&odd), odd);
        odd[..4].copy_from_slice(&[f32::NAN, 8.0, f32::INFINITY, f32::NEG_INFINITY]);
        let found = quantized(&odd);
        assert!(found.iter().all(|v| v.is_finite()) && found[0] == 0.0, "{found:?}");
    }
}
