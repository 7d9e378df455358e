//! One task: output lines of an image, for some blocks of channels.

use std::ops::Range;

use super::results::{Factors, Results};
use super::tile::{self, Tile};
use super::window::{self, Window};
use super::words::{Place, Quad};
use super::{BLOCK, DepthwiseVnni, OUTPUTS, PARTS, QUAD};
use crate::conv::depthwise_band::Source;
use crate::cpu::Job;
use crate::gemm::{Limits, PlainBytes};
use crate::scratch::Line;

/// A task, to be run on AVX-512 with VNNI.
pub(super) struct Band<'a> {
    pub(super) weights: &'a DepthwiseVnni,
    /// Of all blocks.
    pub(super) factors: &'a [Factors],
    pub(super) source: Source<'a>,
    /// Height and width of the output.
    pub(super) size: [usize; 2],
    pub(super) output: &'a PlainBytes<'a>,
    pub(super) lines: Range<usize>,
    pub(super) blocks: Range<usize>,
    /// Interleaved rows by column, four rows and register.
    pub(super) words: &'a mut [Line],
    /// Sums by output row, output and register.
    pub(super) sums: &'a mut [Line],
}

impl Job for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        // SAFETY: this runs where the CPU has the level.
        let limits = unsafe { self.output.limits() };
        for line in self.lines.clone().step_by(self.weights.rows) {
            let lines = line..self.lines.end.min(line + self.weights.rows);
            for block in self.blocks.clone() {
                match self.weights.blocks[block].pixels {
                    1 => self.block::<1>(lines.clone(), block, limits),
                    2 => self.block::<2>(lines.clone(), block, limits),
                    _ => self.block::<4>(lines.clone(), block, limits),
                }
            }
        }
    }
}

impl Band<'_> {
    /// Output lines of one block, whose pixels are `PIXELS`.
    #[inline(always)]
    fn block<const PIXELS: usize>(&mut self, lines: Range<usize>, index: usize, limits: Limits) {
        let (shape, weights) = (self.source.shape, self.weights);
        let step = PIXELS * shape.stride[1];
        let narrow = weights.kernel[1] == window::TAPS && weights.quads == 1;
        // SAFETY: this runs where the CPU has the level; steps and rows are those of the weights.
        unsafe {
            match (narrow, weights.rows, step) {
                (true, 1, 1) => self.window::<1, PIXELS, 1>(lines, index, limits),
                (true, 1, 2) => self.window::<1, PIXELS, 2>(lines, index, limits),
                (true, 1, 4) => self.window::<1, PIXELS, 4>(lines, index, limits),
                (true, 1, 8) => self.window::<1, PIXELS, 8>(lines, index, limits),
                (true, 2, 1) => self.window::<2, PIXELS, 1>(lines, index, limits),
                (true, 2, 2) => self.window::<2, PIXELS, 2>(lines, index, limits),
                (true, 2, 4) => self.window::<2, PIXELS, 4>(lines, index, limits),
                _ => self.strips::<PIXELS>(lines, index, limits),
            }
        }
    }

    /// What stands around the image.
    fn padding(&self) -> [u8; BLOCK] {
        [self.source.zero ^ self.source.flip; BLOCK]
    }

    /// Where the results of a block go, in line `line`, from output `first` on.
    #[inline(always)]
    fn results(&self, line: usize, index: usize, first: usize) -> Results<'_> {
        let (shape, block) = (self.source.shape, self.weights.blocks[index]);
        let [out_h, out_w] = self.size;
        let row = (self.source.image * out_h + line) * out_w;
        let first = first * block.pixels;
        let out = self.output.pixels(row + first..row + out_w, block.col, block.width());
        let (factors, pixels) = (&self.factors[index], out_w - first);
        Results { factors, out, stride: shape.out_c, pixels }
    }

    /// # Safety
    /// As [`Window::run`].
    #[inline(always)]
    unsafe fn window<const ROWS: usize, const PIXELS: usize, const STEP: usize>(
        &self,
        lines: Range<usize>,
        index: usize,
        limits: Limits,
    ) {
        let (shape, weights) = (self.source.shape, self.weights);
        let padding = self.padding();
        let top = lines.start * shape.stride[0];
        let quad = Quad::new(&self.source, weights.blocks[index], top, &padding);
        let outputs = self.size[1].div_ceil(PIXELS);
        let window = Window { quad, weights: weights.of_block(index), outputs };
        let first = self.results(lines.start, index, 0);
        // SAFETY: the caller's promise.
        unsafe {
            match lines.len() {
                1 => window.run::<ROWS, PIXELS, STEP>(&mut [first], limits),
                _ => {
                    let second = self.results(lines.start + 1, index, 0);
                    window.run::<ROWS, PIXELS, STEP>(&mut [first, second], limits);
                }
            }
        }
    }

    /// Strip by strip, by way of words in memory.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW and VNNI.
    #[inline(always)]
    unsafe fn strips<const PIXELS: usize>(
        &mut self,
        lines: Range<usize>,
        index: usize,
        limits: Limits,
    ) {
        let shape = self.source.shape;
        let outputs = self.size[1].div_ceil(PIXELS);
        let strip = self.weights.strip_tiles(shape, PIXELS) * OUTPUTS;
        for first in (0..outputs).step_by(strip) {
            let count = strip.min(outputs - first);
            // SAFETY: the caller's promise.
            unsafe {
                self.interleave::<PIXELS>(lines.start * shape.stride[0], index, first, count);
                for tile in (0..count).step_by(OUTPUTS) {
                    self.multiply::<PIXELS>(index, tile);
                    for (row, line) in lines.clone().enumerate() {
                        let (sums, _) = self.sums[row * OUTPUTS * PARTS..].as_chunks::<PARTS>();
                        let results = self.results(line, index, first + tile);
                        let sums = &sums[..OUTPUTS.min(count - tile)];
                        tile::store::<PIXELS>(sums, results, limits);
                    }
                }
            }
        }
    }

    /// Interleaves what `count` outputs from `first` on see of the padded rows from `top` on.
    ///
    /// # Safety
    /// As [`Band::strips`].
    #[inline(always)]
    unsafe fn interleave<const PIXELS: usize>(
        &mut self,
        top: usize,
        index: usize,
        first: usize,
        count: usize,
    ) {
        let (shape, quads) = (self.source.shape, self.weights.quads);
        let (taps, step) = (shape.kernel[1], PIXELS * shape.stride[1]);
        let columns = first * step..(first + count - 1) * step + taps;
        assert!(self.words.len() >= columns.len() * quads * PARTS, "words are too short");
        let padding = self.padding();
        for i in 0..quads {
            let block = self.weights.blocks[index];
            let quad = Quad::new(&self.source, block, top + i * QUAD, &padding);
            let words = self.words[i * PARTS..].as_mut_ptr();
            let place = Place { first: words, step: quads * PARTS };
            // SAFETY: the caller's promise, and the check.
            unsafe { place.fill::<PIXELS>(&quad, columns.clone(), [taps, step]) }
        }
    }

    /// The sums of the outputs from `first` of the strip on.
    ///
    /// # Safety
    /// As [`Band::strips`].
    #[inline(always)]
    unsafe fn multiply<const PIXELS: usize>(&mut self, index: usize, first: usize) {
        let weights = self.weights;
        let step = PIXELS * self.source.shape.stride[1] * weights.quads;
        let taps = weights.kernel[1] * weights.quads;
        let words = &self.words[first * step * PARTS..];
        assert!(words.len() >= ((OUTPUTS - 1) * step + taps) * PARTS, "words are missing");
        assert!(self.sums.len() >= weights.rows * OUTPUTS * PARTS, "room for the sums");
        let tile = Tile {
            words: words.as_ptr(),
            weights: weights.of_block(index).as_ptr(),
            taps,
            step,
            rows: weights.rows,
            factors: &self.factors[index],
        };
        // SAFETY: the caller's promise, the checks, and packing.
        unsafe { tile.sums(self.sums.as_mut_ptr()) }
    }
}
