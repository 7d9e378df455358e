//! One task: output lines of an image, for some blocks of channels.

use std::ops::Range;

use super::results::{Factors, Results};
use super::stack::{Inputs, Outputs};
use super::tile::{self, Tile};
use super::window::{Columns, TAPS, Window};
use super::words::{Place, Quad};
use super::{BLOCK, DepthwiseVnni, OUTPUTS, PARTS, QUAD};
use crate::conv::depthwise_band::Source;
use crate::cpu::Job;
use crate::gemm::{Limits, PlainBytes};
use crate::scratch::Line;

/// Bytes of the image that all blocks pass over before the next lines: they stay in the
/// second-level cache. Its weights stay in the first one while a block passes over many lines.
const INPUT_BYTES: usize = 512 << 10;

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
    /// Interleaved rows by column, four rows and register; or half results.
    pub(super) words: &'a mut [Line],
    /// Sums by output row, output and register; or room for results that nobody wants.
    pub(super) sums: &'a mut [Line],
}

impl Job for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        // SAFETY: this runs where the CPU has the level.
        let limits = unsafe { self.output.limits() };
        let at_once = self.lines_at_once();
        for line in self.lines.clone().step_by(at_once) {
            let lines = line..self.lines.end.min(line + at_once);
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
    /// Output lines that one block computes before the next.
    fn lines_at_once(&self) -> usize {
        let (shape, unit) = (self.source.shape, self.weights.line_unit());
        if !self.weights.window {
            return unit;
        }
        let line_bytes = shape.stride[0] * shape.in_w * shape.in_c;
        (INPUT_BYTES / line_bytes.max(1)).max(1).next_multiple_of(unit)
    }

    /// Output lines of one block, whose pixels are `PIXELS`.
    #[inline(always)]
    fn block<const PIXELS: usize>(&mut self, lines: Range<usize>, index: usize, limits: Limits) {
        let (whole, signed) = (self.output.is_whole(), self.output.is_signed());
        let signed = signed || self.source.flip != 0;
        let stride = self.weights.window.then_some(self.weights.stride);
        // SAFETY: this runs where the CPU has the level; steps are those of the weights.
        unsafe {
            match (stride, whole, signed) {
                (None, ..) => self.strips::<PIXELS>(lines, index, limits),
                (Some([1, 1]), true, false) => {
                    self.pairs::<PIXELS, true, false>(lines, index, limits)
                }
                (Some([1, 1]), true, true) => {
                    self.pairs::<PIXELS, true, true>(lines, index, limits)
                }
                (Some([1, 1]), ..) => self.pairs::<PIXELS, false, true>(lines, index, limits),
                (_, true, false) => self.steps::<PIXELS, true, false>(lines, index, limits),
                (_, true, true) => self.steps::<PIXELS, true, true>(lines, index, limits),
                _ => self.steps::<PIXELS, false, true>(lines, index, limits),
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

    /// Two lines of each of `STACK` blocks below each other at a time.
    ///
    /// # Safety
    /// As [`Window::run_pairs`].
    #[inline(always)]
    unsafe fn pairs<const STACK: usize, const WHOLE: bool, const SIGNED: bool>(
        &mut self,
        lines: Range<usize>,
        index: usize,
        limits: Limits,
    ) {
        let padding = self.padding();
        for line in lines.clone().step_by(2 * STACK) {
            let mut window = self.window::<STACK, 2>(line..lines.end, index, &padding);
            // SAFETY: the caller's promise; rows and results are checked where they come from.
            unsafe { window.run_pairs::<WHOLE, SIGNED>(limits) }
        }
    }

    /// A line of each of `STACK` blocks below each other at a time.
    ///
    /// # Safety
    /// As [`Window::run_steps`].
    #[inline(always)]
    unsafe fn steps<const STACK: usize, const WHOLE: bool, const SIGNED: bool>(
        &mut self,
        lines: Range<usize>,
        index: usize,
        limits: Limits,
    ) {
        let padding = self.padding();
        for line in lines.clone().step_by(STACK) {
            let mut window = self.window::<STACK, 1>(line..lines.end, index, &padding);
            // SAFETY: as in `pairs`.
            unsafe { window.run_steps::<WHOLE, SIGNED>(limits) }
        }
    }

    /// The first `ROWS` of `lines` for each of `STACK` blocks below each other.
    #[expect(clippy::needless_range_loop, reason = "chains of iterators are not inlined here")]
    #[inline(always)]
    fn window<'w, const STACK: usize, const ROWS: usize>(
        &'w mut self,
        lines: Range<usize>,
        index: usize,
        padding: &[u8; BLOCK],
    ) -> Window<'w, STACK, ROWS> {
        let (shape, step) = (self.source.shape, self.weights.stride[0]);
        let mut inputs = [self.inputs(index, lines.start * step, ROWS * step, padding); QUAD];
        let mut outputs = [self.outputs(index, lines.clone(), ROWS); ROWS];
        // Each output row sees as many rows as the kernel has, `step` below those of the last one.
        let seen = (ROWS - 1) * step + TAPS;
        for i in 1..seen {
            inputs[i] = self.inputs(index, lines.start * step + i, ROWS * step, padding);
        }
        for i in 1..ROWS {
            outputs[i] = self.outputs(index, lines.start + i..lines.end, ROWS);
        }
        let (before, columns) = (shape.pads[1], self.size[1]);
        Window {
            inputs,
            outputs,
            columns: Columns { before, inside: shape.in_w, outputs: columns },
            weights: self.weights.of_block(index),
            factors: &self.factors[index],
            flip: self.source.flip,
            zero: self.source.zero,
            halves: self.words,
        }
    }

    /// Row `top` of the padded image for the first of some blocks below each other, which lie
    /// `apart` rows apart. Rows that lie outside read `padding`.
    #[inline(always)]
    fn inputs<const STACK: usize>(
        &self,
        index: usize,
        top: usize,
        apart: usize,
        padding: &[u8; BLOCK],
    ) -> Inputs<STACK> {
        let (shape, bytes) = (self.source.shape, self.source.bytes);
        let mut inputs = Inputs { first: [padding.as_ptr(); STACK], step: [0; STACK] };
        for i in 0..STACK {
            if let Some(start) = self.source.row(top + i * apart) {
                let row = &bytes[start..][..shape.in_w * shape.in_c];
                inputs.first[i] = row.as_ptr().wrapping_add(self.weights.blocks[index].col);
                inputs.step[i] = shape.in_c;
            }
        }
        inputs
    }

    /// Where the first of `lines` goes for the first of some blocks below each other, which lie
    /// `apart` lines apart. Those behind the last line go nowhere.
    #[inline(always)]
    fn outputs<const STACK: usize>(
        &mut self,
        index: usize,
        lines: Range<usize>,
        apart: usize,
    ) -> Outputs<STACK> {
        let nowhere = self.sums[..1].as_mut_ptr().cast::<u8>();
        let mut outputs = Outputs { next: [nowhere; STACK], step: [0; STACK] };
        for i in 0..STACK {
            let line = lines.start + i * apart;
            if line < lines.end {
                let results = self.results(line, index, 0);
                (outputs.next[i], outputs.step[i]) = (results.out, results.stride);
            }
        }
        outputs
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
