//! One task: output lines of an image, for some blocks of channels.

use std::cell::Cell;
use std::ops::Range;
use std::slice::from_ref;

use super::factors::Factors;
use super::image::Image;
use super::results::Results;
use super::stack::{Inputs, Outputs};
use super::tile::{self, Tile};
use super::window::{Columns, TAPS, Window};
use super::words::{Place, Quad};
use super::{BLOCK, Block, DepthwiseVnni, OUTPUTS, PARTS, QUAD};
use crate::cpu::{Job, ask_for};
use crate::gemm::{Limits, PlainBytes};
use crate::planes::Plane;
use crate::scratch::Line;

/// Bytes of the image that all blocks pass over before the next lines: they stay in the
/// second-level cache. Its weights stay in the first one while a block passes over many lines.
const INPUT_BYTES: usize = 256 << 10;

/// Columns of whole blocks that are computed line by line before the next ones, where pixels are no
/// whole number of cache lines: then a block touches so many lines that the rows in common of two
/// windows would leave the first-level cache before the second one.
const COLUMNS: usize = 32;

/// A task, to be run on AVX-512 with VNNI.
pub(super) struct Band<'a> {
    pub(super) weights: &'a DepthwiseVnni,
    pub(super) image: Image<'a>,
    /// Height and width of the output.
    pub(super) size: [usize; 2],
    pub(super) output: &'a PlainBytes<'a>,
    /// Of all blocks.
    pub(super) factors: &'a [Factors],
    pub(super) lines: Range<usize>,
    pub(super) blocks: Range<usize>,
    pub(super) rooms: Rooms<'a>,
    /// For windows.
    pub(super) rows: Box<Rows>,
}

/// Where the rows of the padded image and the lines of the output begin, from the first ones of a
/// task on.
#[derive(Default)]
pub(super) struct Rows {
    /// Those outside of the image are what surrounds it.
    inputs: Vec<*const u8>,
    /// Those behind the last line of the task go nowhere.
    outputs: Vec<*mut u8>,
    outside: Outside,
}

/// A row of what surrounds images.
#[derive(Default)]
struct Outside {
    byte: u8,
    lines: Vec<Line>,
}

impl Outside {
    /// As many bytes of this kind: mostly those of the last task.
    fn bytes(&mut self, len: usize, byte: u8) -> &[u8] {
        if byte != self.byte {
            self.lines.clear();
            self.byte = byte;
        }
        let lines = len.div_ceil(BLOCK);
        if self.lines.len() < lines {
            self.lines.resize(lines, bytemuck::cast([byte; BLOCK]));
        }
        &bytemuck::cast_slice(&self.lines)[..len]
    }
}

thread_local! {
    /// What the rows of the last task leave to those of the next one.
    static ROWS: Cell<Option<Box<Rows>>> = const { Cell::new(None) };
}

/// Memory of a task.
pub(super) struct Rooms<'a> {
    /// Interleaved rows by column, four rows and register; or half results.
    words: &'a mut [Line],
    /// Sums by output row, output and register; or room for a row of results that nobody wants.
    sums: &'a mut [Line],
}

impl<'a> Rooms<'a> {
    /// Cuts `lines` into rooms of these numbers of lines.
    pub(super) fn new(lines: &'a mut [Line], sizes: [usize; 2]) -> Rooms<'a> {
        let (words, sums) = lines[..sizes[0] + sizes[1]].split_at_mut(sizes[0]);
        Rooms { words, sums }
    }
}

impl Rows {
    /// What the last task of this thread left, to be found anew for the next one.
    pub(super) fn take() -> Box<Rows> {
        ROWS.take().unwrap_or_default()
    }
}

impl Job for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        // SAFETY: this runs where the CPU has the level.
        let limits = unsafe { self.output.limits() };
        self.ask_for_weights(self.blocks.start);
        self.ask_for_weights(self.blocks.start + 1);
        if self.weights.kinds.windows {
            self.find_lines();
            self.find_rows();
        }
        let at_once = self.lines_at_once();
        // From the last lines on: what the layer before wrote last is in the nearest cache.
        for line in self.lines.clone().step_by(at_once).rev() {
            let lines = line..self.lines.end.min(line + at_once);
            for block in self.blocks.clone() {
                self.ask_for_weights(block + 2);
                if let Some(planes) = self.image.planes {
                    self.look_at(planes.of(self.weights.blocks[block].col));
                }
                match self.weights.blocks[block] {
                    Block { window: false, .. } => self.strips(lines.clone(), block, limits),
                    Block { stack: 1, .. } => self.windows::<1>(lines.clone(), block, limits),
                    Block { stack: 2, .. } => self.windows::<2>(lines.clone(), block, limits),
                    _ => self.windows::<4>(lines.clone(), block, limits),
                }
            }
        }
        ROWS.set(Some(self.rows));
    }
}

impl Band<'_> {
    /// Output lines that one block computes before the next.
    fn lines_at_once(&self) -> usize {
        let (shape, unit) = (self.image.shape, self.weights.line_unit());
        if !self.weights.kinds.windows {
            return unit;
        }
        let line_bytes = shape.stride[0] * shape.in_w * shape.in_c;
        (INPUT_BYTES / line_bytes.max(1)).max(1).next_multiple_of(unit)
    }

    /// Output lines of one block, `STACK` of which lie below each other.
    #[inline(always)]
    fn windows<const STACK: usize>(&mut self, lines: Range<usize>, index: usize, limits: Limits) {
        let (whole, signed) = (self.output.is_whole(), self.output.is_signed());
        let signed = signed || self.image.flip != 0;
        // SAFETY: this runs where the CPU has the level; steps are those of the weights.
        unsafe {
            match (self.weights.stride, whole, signed) {
                ([1, 1], true, false) => self.pairs::<STACK, true, false>(lines, index, limits),
                ([1, 1], true, true) => self.pairs::<STACK, true, true>(lines, index, limits),
                ([1, 1], ..) => self.pairs::<STACK, false, true>(lines, index, limits),
                (_, true, false) => self.steps::<STACK, true, false>(lines, index, limits),
                (_, true, true) => self.steps::<STACK, true, true>(lines, index, limits),
                _ => self.steps::<STACK, false, true>(lines, index, limits),
            }
        }
    }

    /// What stands around the image.
    fn padding(&self) -> [u8; BLOCK] {
        [self.image.zero ^ self.image.flip; BLOCK]
    }

    /// Where the results of a block go, in line `line`, from output `first` on.
    #[inline(always)]
    fn results(&self, line: usize, index: usize, first: usize) -> Results<'_> {
        let (shape, block) = (self.image.shape, self.weights.blocks[index]);
        let [out_h, out_w] = self.size;
        let row = (self.image.number * out_h + line) * out_w;
        let out = self.output.pixels(row + first..row + out_w, block.col, block.width);
        Results { factors: &self.factors[index], out, width: block.width, stride: shape.out_c }
    }

    /// Asks for the weights and factors of a block, if there is one: nothing foresees that they
    /// come next.
    #[inline(always)]
    fn ask_for_weights(&self, index: usize) {
        if self.blocks.contains(&index) {
            ask_for(self.weights.of_block(index));
            ask_for(from_ref(&self.factors[index]));
        }
    }

    /// Looks at the channels of a plane.
    fn look_at(&mut self, plane: Plane) {
        if plane != self.image.plane {
            self.image.plane = plane;
            if self.weights.kinds.windows {
                self.find_rows();
            }
        }
    }

    /// The rows that the windows of the task see.
    fn find_rows(&mut self) {
        let (shape, step) = (self.image.shape, self.weights.stride[0]);
        let (image, row_bytes) = (self.image.rows().as_ptr(), self.image.row_bytes());
        let outside = self.rows.outside.bytes(row_bytes, self.padding()[0]).as_ptr();
        let row = |row: usize| match row.wrapping_sub(shape.pads[0]) {
            row if row < shape.in_h => image.wrapping_add(row * row_bytes),
            _ => outside,
        };
        let (first, count) = (self.lines.start * step, self.rows.outputs.len() * step + TAPS);
        self.rows.inputs.clear();
        self.rows.inputs.extend((first..first + count).map(row));
    }

    /// The lines that the windows of the task fill.
    fn find_lines(&mut self) {
        let (shape, lines) = (self.image.shape, self.lines.clone());
        let [out_h, out_w] = self.size;
        let out_bytes = out_w * shape.out_c;
        let nowhere: &mut [u8] = bytemuck::cast_slice_mut(self.rooms.sums);
        let nowhere = nowhere[..out_bytes].as_mut_ptr();
        let pixels =
            [lines.start, lines.end].map(|line| (self.image.number * out_h + line) * out_w);
        let output = self.output.pixels(pixels[0]..pixels[1], 0, shape.out_c);
        let line = |line: usize| match line < lines.len() {
            true => output.wrapping_add(line * out_bytes),
            false => nowhere,
        };
        self.rows.outputs.clear();
        let count = lines.len().next_multiple_of(self.weights.line_unit());
        self.rows.outputs.extend((0..count).map(line));
    }

    /// Two lines of each of `STACK` blocks below each other at a time; the last one may be alone.
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
        if STACK == 2 && self.is_beside() {
            // SAFETY: the caller's promise.
            return unsafe { self.beside::<WHOLE, SIGNED>(lines, index, limits) };
        }
        let out_w = self.size[1];
        let narrow = STACK == 1 && !self.image.step().is_multiple_of(BLOCK);
        let parts = if narrow { out_w.div_ceil(COLUMNS).max(1) } else { 1 };
        let width = out_w.div_ceil(parts).max(1);
        for first in (0..out_w).step_by(width) {
            let columns = first..out_w.min(first + width);
            for line in lines.clone().step_by(2 * STACK) {
                // SAFETY: the caller's promise; rows and lines were checked when they were found.
                unsafe {
                    if STACK == 1 && line + 1 == lines.end {
                        let mut window = self.window::<STACK, 1>(line, columns.clone(), index);
                        window.run_pairs::<WHOLE, SIGNED>(limits);
                    } else {
                        let mut window = self.window::<STACK, 2>(line, columns.clone(), index);
                        window.run_pairs::<WHOLE, SIGNED>(limits);
                    }
                }
            }
        }
    }

    /// Whether two pixels are a block as they lie, and the kernel goes one column beyond them.
    #[inline(always)]
    fn is_beside(&self) -> bool {
        let shape = self.image.shape;
        let plain = shape.in_c == BLOCK / 2 && shape.in_w.is_multiple_of(2);
        plain && shape.pads[1] == 1 && self.size[1] == shape.in_w
    }

    /// Two lines of two pixels side by side at a time.
    ///
    /// # Safety
    /// As [`Window::run_beside`].
    #[inline(always)]
    unsafe fn beside<const WHOLE: bool, const SIGNED: bool>(
        &mut self,
        lines: Range<usize>,
        index: usize,
        limits: Limits,
    ) {
        let pairs = self.size[1] / 2;
        for line in lines.step_by(2) {
            let mut window = self.window::<1, 2>(line, 0..2 * pairs, index);
            window.steps = [BLOCK; 2];
            window.columns = Columns { before: 0, inside: pairs, outputs: pairs };
            // SAFETY: the caller's promise; rows and lines were checked when they were found.
            unsafe { window.run_beside::<WHOLE, SIGNED>(limits) }
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
        for line in lines.step_by(STACK) {
            let mut window = self.window::<STACK, 1>(line, 0..self.size[1], index);
            // SAFETY: as in `pairs`.
            unsafe { window.run_steps::<WHOLE, SIGNED>(limits) }
        }
    }

    /// Some columns of `ROWS` lines from `line` on for each of `STACK` blocks below each other.
    #[inline(always)]
    fn window<const STACK: usize, const ROWS: usize>(
        &mut self,
        line: usize,
        columns: Range<usize>,
        index: usize,
    ) -> Window<'_, STACK, ROWS> {
        let (shape, col) = (self.image.shape, self.weights.blocks[index].col);
        let from = self.image.place(col);
        let (step, line) = (self.weights.stride[0], line - self.lines.start);
        let rows = &self.rows.inputs[line * step..][..(STACK * ROWS - 1) * step + TAPS];
        let lines = &self.rows.outputs[line..][..STACK * ROWS];
        let mut inputs = [Inputs { first: [rows[0]; STACK] }; QUAD];
        let mut outputs = [Outputs { first: [lines[0]; STACK] }; ROWS];
        for stack in 0..STACK {
            // Each output row sees as many rows as the kernel has, `step` below those of the last.
            for i in 0..(ROWS - 1) * step + TAPS {
                inputs[i].first[stack] = rows[stack * ROWS * step + i].wrapping_add(from);
            }
            for i in 0..ROWS {
                let first = col + columns.start * shape.out_c;
                outputs[i].first[stack] = lines[stack * ROWS + i].wrapping_add(first);
            }
        }
        let before = shape.pads[1].wrapping_sub(columns.start * shape.stride[1]);
        Window {
            inputs,
            outputs,
            steps: [self.image.step(), shape.out_c],
            columns: Columns { before, inside: shape.in_w, outputs: columns.len() },
            weights: self.weights.of_block(index),
            factors: &self.factors[index],
            flip: self.image.flip,
            zero: self.image.zero,
            halves: self.rooms.words,
        }
    }

    /// Strip by strip, by way of words in memory.
    #[inline(always)]
    fn strips(&mut self, lines: Range<usize>, index: usize, limits: Limits) {
        let rows = self.weights.rows;
        for line in lines.clone().step_by(rows) {
            let lines = line..lines.end.min(line + rows);
            // SAFETY: this runs where the CPU has the level; steps are those of the weights.
            unsafe {
                match self.weights.blocks[index].width {
                    BLOCK => self.strips_of::<true>(lines, index, limits),
                    _ => self.strips_of::<false>(lines, index, limits),
                }
            }
        }
    }

    /// The same for a block that is `FULL`, or has fewer than 64 channels.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW and VNNI.
    #[inline(always)]
    unsafe fn strips_of<const FULL: bool>(
        &mut self,
        lines: Range<usize>,
        index: usize,
        limits: Limits,
    ) {
        let (step, outputs) = (self.weights.stride[0], self.size[1]);
        let strip = self.weights.strip_outputs();
        for first in (0..outputs).step_by(strip) {
            let count = strip.min(outputs - first);
            // SAFETY: the caller's promise.
            unsafe {
                self.interleave::<FULL>(lines.start * step, index, first, count);
                for tile in (0..count).step_by(OUTPUTS) {
                    self.multiply(index, tile, lines.len());
                    for (row, line) in lines.clone().enumerate() {
                        let (sums, _) =
                            self.rooms.sums[row * OUTPUTS * PARTS..].as_chunks::<PARTS>();
                        let results = self.results(line, index, first + tile);
                        let sums = &sums[..OUTPUTS.min(count - tile)];
                        tile::store::<FULL>(sums, results, limits);
                    }
                }
            }
        }
    }

    /// Interleaves what `count` outputs from `first` on see of the padded rows from `top` on.
    ///
    /// # Safety
    /// As [`Band::strips_of`].
    #[inline(always)]
    unsafe fn interleave<const FULL: bool>(
        &mut self,
        top: usize,
        index: usize,
        first: usize,
        count: usize,
    ) {
        let (kernel_w, step, quads) =
            (self.weights.kernel[1], self.weights.stride[1], self.weights.quads);
        let columns = first * step..(first + count - 1) * step + kernel_w;
        assert!(self.rooms.words.len() >= columns.len() * quads * PARTS, "words are too short");
        let padding = self.padding();
        for i in 0..quads {
            let block = self.weights.blocks[index];
            let quad = Quad::new(&self.image, block, top + i * QUAD, &padding);
            let words = self.rooms.words[i * PARTS..].as_mut_ptr();
            let place = Place { first: words, step: quads * PARTS };
            // SAFETY: the caller's promise, and the check.
            unsafe { place.fill::<FULL>(&quad, columns.clone(), [kernel_w, step]) }
        }
    }

    /// The sums of the outputs from `first` of the strip on, in as many lines.
    ///
    /// # Safety
    /// As [`Band::strips_of`].
    #[inline(always)]
    unsafe fn multiply(&mut self, index: usize, first: usize, lines: usize) {
        let weights = self.weights;
        let step = weights.stride[1] * weights.quads;
        let taps = weights.kernel[1] * weights.quads;
        let words = &self.rooms.words[first * step * PARTS..];
        assert!(words.len() >= ((OUTPUTS - 1) * step + taps) * PARTS, "words are missing");
        assert!(self.rooms.sums.len() >= weights.rows * OUTPUTS * PARTS, "room for the sums");
        let tile = Tile {
            words: words.as_ptr(),
            weights: weights.of_block(index).as_ptr(),
            taps,
            step,
            rows: weights.rows,
            lines,
            factors: &self.factors[index],
        };
        // SAFETY: the caller's promise, the checks, and packing.
        unsafe { tile.sums(self.rooms.sums.as_mut_ptr()) }
    }
}
