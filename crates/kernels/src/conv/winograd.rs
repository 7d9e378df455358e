//! int8 convolution of 3 x 3 with steps of 1, by minimal filtering: F(2 x 2, 3 x 3) of Winograd, in
//! the form of Lavin and Gray 2016, in integers and therefore exact.
//!
//! A tile of 4 x 4 inputs gives 2 x 2 outputs with 16 products per pair of channels instead of 36.
//! The transform of the weights has halves in it; twice that matrix, `2G`, has none, and the sums
//! come out four times too large, which two shifts to the right undo. All lies within 16 bits
//! (inputs 4 * 255, weights 9 * 255) and the sums within 32, so nothing is lost.
//!
//! It pays where 16-bit products cost as much as 8-bit ones: on AVX2 without VNNI.

use std::ops::Range;

use super::int8::ConvInput;
use super::shape::ConvShape;
use super::winograd_x86::{Taps, transform_input, transform_sums};
use crate::cpu::{Ctx, Isa, Job, Level};
use crate::gemm::driver::Finish;
use crate::gemm::kernel::{BATCH, MAX_MR, Microkernel, NR, Sums, Tile};
use crate::gemm::panels::Panels;
use crate::gemm::rows::pitch;
use crate::gemm::split::Split;
use crate::gemm::{Avx2I16, Matrix, Prepared, Sink, WeightZero, unsigned_zero};
use crate::int8::Int8;
use crate::scratch::with_scratch;

/// Inputs of a tile, and so the number of matrix products.
const TAPS: usize = 16;

/// The most input channels for which four times a sum fits 32 bits, whatever the weights are.
const MOST_CHANNELS: usize = 900;

/// The most products of channels and out channels. Transformed weights take 32 bytes for each: more
/// of them than fit the last-level cache beside those of other layers cost more to read than
/// products they save.
const MOST_PAIRS: usize = 1 << 17;

/// Bytes of transformed inputs that one task aims at: they stay in the second-level cache.
const INPUT_BYTES: usize = 256 << 10;

/// Weights transformed for each of the 16 taps, in channels by out channels; the panels of all
/// taps for the same out channels lie together, as they are read.
pub(super) struct Winograd {
    in_c: usize,
    out_c: usize,
    panels: Panels<i16>,
}

/// Whether this way is open, and quicker.
pub(super) fn applies(isa: Isa, shape: &ConvShape) -> bool {
    let plain = shape.kernel == [3, 3] && shape.stride == [1, 1] && shape.dilation == [1, 1];
    let channels = shape.in_c.is_multiple_of(NR) && (NR..=MOST_CHANNELS).contains(&shape.in_c);
    let small = shape.in_c.saturating_mul(shape.out_c) <= MOST_PAIRS;
    isa.level() == Level::Avx2
        && plain
        && shape.groups == 1
        && channels
        && small
        && shape.out_c >= NR
}

/// One weight of each of 16 out channels.
type Lanes = [i16; NR];

/// The transformed weights of one in channel: by tap and out channel.
#[inline(always)]
fn transform_weights(weights: &[[Lanes; 3]; 3]) -> [Lanes; TAPS] {
    let mut columns = [[[0; NR]; 4]; 3];
    for (x, column) in columns.iter_mut().enumerate() {
        *column = line([weights[0][x], weights[1][x], weights[2][x]]);
    }
    let mut taps = [[0; NR]; TAPS];
    for (y, taps) in taps.chunks_exact_mut(4).enumerate() {
        // At most 9 * 255.
        taps.copy_from_slice(&line([columns[0][y], columns[1][y], columns[2][y]]));
    }
    taps
}

/// `2G` times three weights, where G is the matrix of the filter.
#[inline(always)]
fn line(w: [Lanes; 3]) -> [Lanes; 4] {
    let mut sums = [[0; NR]; 4];
    for i in 0..NR {
        sums[0][i] = 2 * w[0][i];
        sums[1][i] = w[0][i] + w[1][i] + w[2][i];
        sums[2][i] = w[0][i] - w[1][i] + w[2][i];
        sums[3][i] = 2 * w[2][i];
    }
    sums
}

/// Transforms the weights of the out channels from `first` on.
struct Transform<'a> {
    bytes: &'a [u8],
    flip: u8,
    in_c: usize,
    first: usize,
    /// Zero points of the unsigned form of the weights, for as many out channels as there are.
    zeros: &'a [i16],
    /// Pairs of in channels by tap, pair and out channel.
    pairs: &'a mut [[i16; Avx2I16::GROUP]],
}

impl Job for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let groups = self.in_c / Avx2I16::GROUP;
        for group in 0..groups {
            let even = transform_weights(&self.square(group * Avx2I16::GROUP));
            let odd = transform_weights(&self.square(group * Avx2I16::GROUP + 1));
            for (tap, (even, odd)) in even.iter().zip(&odd).enumerate() {
                let pairs = &mut self.pairs[(tap * groups + group) * NR..][..NR];
                for (col, pair) in pairs.iter_mut().enumerate() {
                    *pair = [even[col], odd[col]];
                }
            }
        }
    }
}

impl Transform<'_> {
    /// The weights of an in channel, less their zero points.
    #[inline(always)]
    fn square(&self, channel: usize) -> [[Lanes; 3]; 3] {
        let mut square = [[[0; NR]; 3]; 3];
        for (col, zero) in self.zeros.iter().enumerate() {
            let at = ((self.first + col) * self.in_c + channel) * 9;
            let weights = square.as_flattened_mut().iter_mut();
            for (weight, byte) in weights.zip(&self.bytes[at..at + 9]) {
                weight[col] = i16::from(byte ^ self.flip) - zero;
            }
        }
        square
    }
}

impl Winograd {
    pub(super) fn new(
        isa: Isa,
        shape: &ConvShape,
        weights: Int8<'_>,
        zero: WeightZero<'_>,
    ) -> Winograd {
        let (in_c, out_c) = (shape.in_c, shape.out_c);
        let groups = in_c / Avx2I16::GROUP;
        let mut panels = Panels::empty(out_c.div_ceil(NR) * TAPS * NR, groups);
        panels.reserve(out_c.div_ceil(NR) * TAPS * in_c * NR * size_of::<i16>());
        // The panels of all taps for 16 out channels, filled side by side.
        let mut all = vec![[0i16; Avx2I16::GROUP]; TAPS * groups * NR];
        for first in (0..out_c).step_by(NR) {
            let flip = weights.flip();
            let zeros = (first..out_c.min(first + NR)).map(|out| {
                let unsigned = u8::try_from(zero.get(out) + i32::from(flip));
                i16::from(unsigned.expect("zero points are of the weights' type"))
            });
            let zeros: Vec<i16> = zeros.collect();
            let (bytes, zeros, pairs) = (weights.bytes(), &zeros, &mut all);
            isa.run(Transform { bytes, flip, in_c, first, zeros, pairs });
            for pairs in all.chunks_exact((groups * NR).max(1)) {
                let panel = panels.push(size_of_val(pairs));
                panel.copy_from_slice(pairs.as_flattened());
            }
        }
        Winograd { in_c, out_c, panels }
    }

    pub(super) fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// # Panics
    /// When the weights were packed for another shape or instruction set.
    pub(super) fn run(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        input: ConvInput<'_>,
        output: Sink<'_>,
    ) {
        let same = self.in_c == shape.in_c && self.out_c == shape.out_c;
        assert!(same && applies(ctx.isa, shape), "weights packed for another shape");
        let output = Matrix { data: output, stride: shape.out_c };
        match Prepared::new(output, shape.out_pixels(), shape.out_c, 0) {
            Prepared::Int8(finish) => self.finish(ctx, shape, input, &finish),
            Prepared::I32(finish) => self.finish(ctx, shape, input, &finish),
            Prepared::F32(finish) => self.finish(ctx, shape, input, &finish),
        }
    }

    fn finish<F: Finish<Acc = i32>>(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        input: ConvInput<'_>,
        finish: &F,
    ) {
        let zero = unsigned_zero(input.values, input.zero_point);
        let flip = input.values.flip();
        let padding = vec![zero ^ flip; shape.in_c];
        let bytes = input.values.bytes();
        let image = Image { shape, bytes, padding: &padding, taps: Taps { flip, zero } };
        let split = split(ctx.pool.threads(), shape, self.out_c.div_ceil(NR));
        ctx.pool.for_each_range(split.tasks(), 1, |tasks| {
            for task in tasks {
                let (tiles, panels) = (split.row_range(task), split.panel_range(task));
                let rows = tiles.len() + MAX_MR;
                let inputs = TAPS * tiles.len() * pitch::<i16>(shape.in_c) / 2;
                with_scratch::<i32, _>(TAPS * rows * NR + inputs, |scratch| {
                    let (sums, inputs) = scratch.split_at_mut(TAPS * rows * NR);
                    let (sums, _) = sums.as_chunks_mut::<NR>();
                    let inputs = bytemuck::cast_slice_mut(inputs);
                    let weights = &self.panels;
                    let block = Block { weights, image, tiles, panels, inputs, sums, finish };
                    // SAFETY: `applies` demands AVX2.
                    unsafe { Avx2I16::featured(block) }
                });
            }
        });
    }
}

/// Tiles of 2 x 2 outputs per line, and lines of them per image.
fn grid(shape: &ConvShape) -> [usize; 2] {
    [shape.out_h().div_ceil(2), shape.out_w().div_ceil(2)]
}

/// How the output is cut into tasks: the rows of these products are tiles.
fn split(threads: usize, shape: &ConvShape, panels: usize) -> Split {
    let tiles = shape.batch * grid(shape).iter().product::<usize>();
    let fitting = (INPUT_BYTES / (TAPS * 2 * shape.in_c)).clamp(Avx2I16::MR, 96);
    Split::even(threads, [tiles, Avx2I16::MR], panels, fitting / Avx2I16::MR)
}

/// The input, and how its bytes become numbers.
#[derive(Clone, Copy)]
struct Image<'a> {
    shape: &'a ConvShape,
    bytes: &'a [u8],
    /// A pixel of padding.
    padding: &'a [u8],
    taps: Taps,
}

impl Image<'_> {
    /// The first output pixel of a tile: image, row, column.
    #[inline(always)]
    fn corner(&self, tile: usize) -> [usize; 3] {
        let [high, wide] = grid(self.shape);
        [tile / wide / high, tile / wide % high * 2, tile % wide * 2]
    }

    /// The 16 input pixels that a tile reads.
    #[inline(always)]
    fn pixels(&self, tile: usize) -> [&[u8]; TAPS] {
        let shape = self.shape;
        let [image, y, x] = self.corner(tile);
        let mut pixels = [self.padding; TAPS];
        for (tap, pixel) in pixels.iter_mut().enumerate() {
            let row = (y + tap / 4).wrapping_sub(shape.pads[0]);
            let col = (x + tap % 4).wrapping_sub(shape.pads[1]);
            if row < shape.in_h && col < shape.in_w {
                let first = ((image * shape.in_h + row) * shape.in_w + col) * shape.in_c;
                *pixel = &self.bytes[first..][..shape.in_c];
            }
        }
        pixels
    }
}

/// One task: tiles times panels.
struct Block<'a, F> {
    weights: &'a Panels<i16>,
    image: Image<'a>,
    tiles: Range<usize>,
    panels: Range<usize>,
    /// Transformed inputs, tap by tap, tile by tile.
    inputs: &'a mut [i16],
    /// Sums of one panel, tap by tap, tile by tile.
    sums: &'a mut [[i32; NR]],
    finish: &'a F,
}

impl<F: Finish<Acc = i32>> Job for Block<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        self.transform();
        for panel in self.panels.clone() {
            self.multiply(panel);
            self.store(panel);
        }
    }
}

impl<F: Finish<Acc = i32>> Block<'_, F> {
    /// From the transformed inputs of one tap to those of the next.
    fn step(&self) -> usize {
        self.tiles.len() * pitch::<i16>(self.image.shape.in_c)
    }

    /// From the sums of one tap to those of the next.
    fn rows(&self) -> usize {
        self.tiles.len() + MAX_MR
    }

    #[inline(always)]
    fn transform(&mut self) {
        let (step, pitch) = (self.step(), pitch::<i16>(self.image.shape.in_c));
        for (i, tile) in self.tiles.clone().enumerate() {
            let pixels = self.image.pixels(tile);
            let out = &mut self.inputs[i * pitch..];
            // SAFETY: `applies` demands AVX2.
            unsafe { transform_input(self.image.taps, &pixels, step, out) }
        }
    }

    /// The sums of all tiles and taps for one panel.
    #[inline(always)]
    fn multiply(&mut self, panel: usize) {
        let (count, rows) = (self.tiles.len(), self.rows());
        let (step, pitch) = (self.step(), pitch::<i16>(self.image.shape.in_c));
        for tap in 0..TAPS {
            let weights = self.weights.panel(panel * TAPS + tap);
            let inputs = &self.inputs[tap * step..][..step];
            let sums = &mut self.sums[tap * rows..][..rows];
            for first in (0..count).step_by(Avx2I16::MR) {
                let left = Avx2I16::MR.min(count - first);
                let Some(tile) = sums[first..].first_chunk_mut::<MAX_MR>() else { continue };
                let tile: &mut Tile<i32> = tile;
                let (a, b) = (inputs[first * pitch..].as_ptr(), weights.as_ptr());
                // SAFETY: `applies` demands AVX2; a row has `in_c` elements, which is an even
                // number and what the panels were packed for.
                unsafe { Avx2I16::tile(left, self.weights.groups(), a, pitch, b, tile) }
            }
        }
    }

    /// From sums to results.
    #[inline(always)]
    fn store(&self, panel: usize) {
        let shape = self.image.shape;
        let (out_h, out_w) = (shape.out_h(), shape.out_w());
        // A copy of its own, which stores through raw pointers cannot change.
        let finish = *self.finish;
        let (col, width) = (panel * NR, NR.min(shape.out_c - panel * NR));
        let columns = finish.columns(col, width);
        let mut lines = [Sums::new(); 2];
        let [_, wide] = grid(shape);
        let mut tile = self.tiles.start;
        while tile < self.tiles.end {
            // Tiles side by side make two lines of outputs.
            let count = (wide - tile % wide).min(self.tiles.end - tile).min(BATCH / 2);
            let [image, y, x] = self.image.corner(tile);
            for i in 0..count {
                let sums = &self.sums[tile - self.tiles.start + i..];
                let [top, bottom] = &mut lines;
                let (top, bottom) = (&mut top.0[2 * i..], &mut bottom.0[2 * i..]);
                // SAFETY: `applies` demands AVX2.
                unsafe { transform_sums(sums, self.rows(), [top, bottom]) }
            }
            let across = (2 * count).min(out_w - x);
            for (down, line) in lines.iter().enumerate().take(2.min(out_h - y)) {
                let row = (image * out_h + y + down) * out_w + x;
                // SAFETY: `applies` demands AVX2; each tile and panel belongs to one task.
                unsafe { finish.rows_avx2(&columns, row, col, width, &line.0[..across]) }
            }
            tile += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `2G`: from the three weights of a line to four.
    const WEIGHTS: [[i16; 3]; 4] = [[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]];

    #[test]
    fn weights_follow_the_definition() {
        let square = [[1, -2, 3], [-4, 5, -6], [7, -8, 9]];
        let taps = transform_weights(&square.map(|line| line.map(|w| [w; NR])));
        let at = |i: usize, j: usize| {
            let each = |y: usize, x: usize| WEIGHTS[i][y] * square[y][x] * WEIGHTS[j][x];
            (0..9).map(|k| each(k / 3, k % 3)).sum::<i16>()
        };
        for (tap, &got) in taps.iter().enumerate() {
            assert_eq!(got, [at(tap / 4, tap % 4); NR], "{tap}");
        }
    }
}
