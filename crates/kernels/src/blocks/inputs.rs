//! Quantized activations, laid out for the microkernels.

use std::ops::Range;

use half::f16;

use super::activations::{ACTIVATION_BLOCK as SPAN, ACTIVATION_BYTES};
use super::unit::pair;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Level;
use crate::cpu::{Ctx, Isa};
use crate::threads::SharedMut;

/// The most tokens that a microkernel computes at once, on any instruction set.
pub(super) const MAX_TOKENS: usize = 8;

/// 32-bit words of codes per block and token: fours of i8.
pub(super) const WORDS: usize = SPAN / 4;

/// Which sums of the codes a unit of weights is multiplied with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// `scale * sum of 32 codes`, exact.
    Quads,
    /// `times` the sums of the codes of `chain` fours, the first two of each and the last two, as
    /// a pair of i16: what the products of as many fours start from in 16 bits.
    Offset { times: i16, chain: usize },
    /// The sums of 16 codes, as a pair of i16.
    Halves,
    /// `times` the sum of 32 codes, or, where `halves`, of each 16: what sums in 32 bits start
    /// from.
    Starts { times: i32, halves: bool },
    /// No sums.
    Signed,
}

impl Form {
    /// 32-bit words of sums per block and token.
    pub(super) const fn sums(self) -> usize {
        match self {
            Form::Quads | Form::Halves => 1,
            Form::Offset { chain, .. } => WORDS / chain,
            Form::Starts { halves, .. } => 1 + halves as usize,
            Form::Signed => 0,
        }
    }
}

/// How inputs lie for the microkernels of an instruction set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub form: Form,
    /// The most tokens of a tile: a power of two, at most [`MAX_TOKENS`].
    pub most: usize,
}

/// The tiles of `tokens` tokens: of `most`, then of as large a power of two as is left.
pub(super) fn tiles(tokens: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let Range { start, end } = tokens;
    let tile = move |start: usize| {
        let power = (end - start).min(most).checked_ilog2()?;
        Some(start..start + (1 << power))
    };
    std::iter::successors(tile(start), move |last| tile(last.end))
}

/// Activations of several tokens.
///
/// Tokens come in [`tiles`]. In a tile, everything is interleaved: block, then group of k where
/// there are several, then token.
pub(super) struct Inputs<'a> {
    tokens: usize,
    blocks: usize,
    layout: Layout,
    codes: &'a [u32],
    scales: &'a [f32],
    sums: &'a [u32],
}

/// One tile from a block on: what a microkernel reads.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub codes: *const u32,
    pub scales: *const f32,
    pub sums: *const u32,
}

impl<'a> Inputs<'a> {
    /// Words that the inputs of `tokens` tokens take.
    pub(super) fn words(form: Form, tokens: usize, blocks: usize) -> usize {
        tokens * blocks * (WORDS + 1 + form.sums())
    }

    /// Takes rows of `Q8_0` blocks apart, `blocks` of them per token, into as many words as
    /// [`Inputs::words`] says.
    pub(super) fn new(
        ctx: Ctx<'_>,
        layout: Layout,
        blocks: usize,
        bytes: &[u8],
        words: &'a mut [u32],
    ) -> Inputs<'a> {
        let Layout { form, most } = layout;
        let row = blocks * ACTIVATION_BYTES;
        let tokens = bytes.len().checked_div(row).unwrap_or(0);
        let (codes, words) = words.split_at_mut(tokens * blocks * WORDS);
        let (scales, sums) = words.split_at_mut(tokens * blocks);
        let scales = bytemuck::cast_slice_mut(scales);
        let (to_codes, to_scales, to_sums) =
            (SharedMut::new(codes), SharedMut::new(scales), SharedMut::new(sums));
        let grain = ctx.pool.grain(tokens.div_ceil(most), 16 / most);
        ctx.pool.for_each_range(tokens.div_ceil(most), grain, |tiles| {
            let first = tiles.start * most;
            let last = tokens.min(tiles.end * most);
            let part = |words: usize| first * blocks * words..last * blocks * words;
            // SAFETY: ranges of tiles are disjoint, and so are their parts.
            let (codes, scales, sums) = unsafe {
                let (codes, sums) = (to_codes.range(part(WORDS)), to_sums.range(part(form.sums())));
                (codes, to_scales.range(part(1)), sums)
            };
            let bytes = &bytes[first * row..last * row];
            Fill { layout, blocks, bytes, codes, scales, sums }.dispatch(ctx.isa);
        });
        Inputs { tokens, blocks, layout, codes, scales, sums }
    }

    /// Number of tokens.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Blocks of each token.
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The tiles of some tokens.
    pub(super) fn tiles(&self, tokens: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        tiles(tokens, self.layout.most)
    }

    /// The tile of `tokens` tokens from `token` on, at `block`.
    #[inline(always)]
    pub(super) fn at(&self, token: usize, tokens: usize, block: usize) -> Tile {
        let index = token * self.blocks + block * tokens;
        Tile {
            codes: self.codes[index * WORDS..].as_ptr(),
            scales: self.scales[index..].as_ptr(),
            sums: self.sums[index * self.layout.form.sums()..].as_ptr(),
        }
    }
}

/// Fills a few tiles.
pub(super) struct Fill<'a> {
    pub(super) layout: Layout,
    pub(super) blocks: usize,
    pub(super) bytes: &'a [u8],
    pub(super) codes: &'a mut [u32],
    pub(super) scales: &'a mut [f32],
    pub(super) sums: &'a mut [u32],
}

impl Fill<'_> {
    fn dispatch(self, isa: Isa) {
        match isa.level() {
            // SAFETY: the CPU has the level, and every wider one includes AVX2.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Avx512 => unsafe { super::x86_inputs::fill(self) },
            _ => self.plain(),
        }
    }

    fn plain(self) {
        let Layout { form, most } = self.layout;
        let (blocks, row, n) = (self.blocks, self.blocks * ACTIVATION_BYTES, form.sums());
        for tile in tiles(0..self.bytes.len() / row, most) {
            let (first, tokens) = (tile.start * blocks, tile.len());
            let codes = &mut self.codes[first * WORDS..tile.end * blocks * WORDS];
            let scales = &mut self.scales[first..tile.end * blocks];
            let sums = &mut self.sums[first * n..tile.end * blocks * n];
            let bytes = &self.bytes[tile.start * row..tile.end * row];
            for (t, bytes) in bytes.chunks_exact(row).enumerate() {
                for (b, block) in bytes.as_chunks::<ACTIVATION_BYTES>().0.iter().enumerate() {
                    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                    let block: [i8; SPAN] = std::array::from_fn(|i| block[2 + i].cast_signed());
                    scales[b * tokens + t] = scale;
                    let word = |at: usize, n: usize| (b * n + at) * tokens + t;
                    words(&block)
                        .into_iter()
                        .enumerate()
                        .for_each(|(i, x)| codes[word(i, WORDS)] = x);
                    sums_of(form, &block, scale, |i, sum| sums[word(i, n)] = sum);
                }
            }
        }
    }
}

/// The codes in fours.
fn words(codes: &[i8; SPAN]) -> [u32; WORDS] {
    let (words, _) = bytemuck::cast_slice::<i8, u8>(codes).as_chunks::<4>();
    std::array::from_fn(|i| u32::from_le_bytes(words[i]))
}

/// Gives each word of the sums of a block to `put`.
fn sums_of(form: Form, codes: &[i8; SPAN], scale: f32, mut put: impl FnMut(usize, u32)) {
    match form {
        Form::Quads => {
            let sum: i32 = codes.iter().map(|&c| i32::from(c)).sum();
            put(0, (scale * sum as f32).to_bits());
        }
        Form::Offset { times, chain } => {
            for (i, codes) in codes.chunks_exact(4 * chain).enumerate() {
                let at =
                    |j: usize| -> i16 { codes[j..].iter().step_by(4).map(|&c| i16::from(c)).sum() };
                put(i, pair(times * (at(0) + at(1)), times * (at(2) + at(3))));
            }
        }
        Form::Halves => {
            let half = |at: usize| codes[at..at + 16].iter().map(|&c| i16::from(c)).sum();
            put(0, pair(half(0), half(16)));
        }
        Form::Starts { times, halves } => {
            let parts = if halves { SPAN / 2 } else { SPAN };
            for (i, codes) in codes.chunks_exact(parts).enumerate() {
                let sum: i32 = codes.iter().map(|&c| i32::from(c)).sum();
                put(i, (times * sum).cast_unsigned());
            }
        }
        Form::Signed => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::quantize_activations;
    use crate::threads::Pool;

    #[test]
    fn every_instruction_set_lays_out_the_same() {
        let blocks = 5;
        for tokens in [1, 2, 3, 4, 7, 15] {
            let x: Vec<f32> = (0..tokens * blocks * SPAN)
                .map(|i| (i as u32).wrapping_mul(2_654_435_761) as f32 - 2e9)
                .collect();
            let offset = |times, chain| Form::Offset { times, chain };
            let starts = |times, halves| Form::Starts { times, halves };
            let forms = [Form::Quads, offset(-8, 8), offset(-16, 4), Form::Halves, Form::Signed];
            let forms = forms.into_iter().chain([starts(-128, false), starts(-32, true)]);
            for (form, most) in forms.flat_map(|form| [(form, 4), (form, 8)]) {
                let laid = |isa| {
                    let pool = Pool::single();
                    let ctx = Ctx { isa, pool: &pool };
                    let mut bytes = vec![0; tokens * blocks * ACTIVATION_BYTES];
                    quantize_activations(ctx, &x, &mut bytes);
                    let mut words = vec![0; Inputs::words(form, tokens, blocks)];
                    Inputs::new(ctx, Layout { form, most }, blocks, &bytes, &mut words);
                    words
                };
                let plain = laid(Isa::scalar());
                for isa in Isa::available() {
                    assert_eq!(laid(isa), plain, "{isa} {form:?} {most} of {tokens} tokens");
                }
            }
        }
    }
}
