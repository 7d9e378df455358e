//! int8 depthwise convolution with VNNI: products of four input rows at a time, 64 channels side by
//! side, straight to 8-bit results.
//!
//! Four rows of the image are interleaved byte by byte, so that a 32-bit lane holds what lies below
//! each other in one channel. The same lanes serve several output rows, whose weights are moved by
//! as many rows: of a kernel of 3 rows two, of one of 5 rows (two times four input rows) four.
//! Where fewer than 64 channels are left, 32 of two pixels or 16 of four lie in a register: pixels
//! below each other for kernels of three by three, unless 32 channels are all there are, and side by
//! side for others.
//!
//! Interleaving and the packing of results both go by 128-bit parts of a register, and undo each
//! other: between them, lane `d` of register `z` belongs to byte `16 * (d / 4) + 4 * z + d % 4` of a
//! block.

mod band;
mod beside;
mod image;
mod pairs;
mod results;
mod stack;
mod steps;
mod tile;
mod window;
mod words;

use std::ops::Range;

use bytemuck::Zeroable;

use self::band::{Band, Rooms, Rows};
use self::image::Image;
use self::results::Factors;
use super::int8::ConvInput;
use super::shape::ConvShape;
use crate::cpu::{self, Ctx, Isa, Level};
use crate::gemm::{PlainBytes, WeightZero, unsigned_zero};
use crate::int8::Int8;
use crate::scratch::{Line, with_scratch};

/// Registers of lanes for the 64 bytes of a block.
const PARTS: usize = 4;

/// Rows that are interleaved.
const QUAD: usize = 4;

/// Bytes of a block.
const BLOCK: usize = 64;

/// Outputs side by side that are computed at once: what divides the widths of most networks.
const OUTPUTS: usize = 7;

/// Columns of interleaved rows that are made at once: with their results, they stay in the
/// first-level cache.
const STRIP: usize = 36;

/// Some channels of a few pixels: 64 bytes.
#[derive(Clone, Copy)]
struct Block {
    col: usize,
    /// Output pixels: 1, 2 or 4, of 64, 32 or 16 channels.
    pixels: usize,
}

impl Block {
    /// Channels of a pixel.
    fn width(&self) -> usize {
        BLOCK / self.pixels
    }

    /// The channel of byte `byte`, counted from `col` on.
    fn channel(&self, byte: usize) -> usize {
        byte % self.width()
    }

    /// Covers `channels` channels, a multiple of 16.
    fn cover(channels: usize) -> Vec<Block> {
        let (mut blocks, mut col) = (Vec::new(), 0);
        while col < channels {
            let pixels = match channels - col {
                64.. => 1,
                32.. => 2,
                _ => 4,
            };
            let block = Block { col, pixels };
            col += block.width();
            blocks.push(block);
        }
        blocks
    }
}

/// What a line of weights is for.
struct Place {
    /// The register of the block.
    part: usize,
    /// The kernel column.
    x: usize,
    /// The four input rows.
    quad: usize,
    /// The output row.
    row: usize,
}

/// The byte of a block that lane `lane` of register `part` belongs to.
fn byte_of(part: usize, lane: usize) -> usize {
    16 * (lane / 4) + 4 * part + lane % 4
}

/// Weights that are symmetric and signed, by block, register, pair of output rows, kernel column,
/// four input rows, output row and lane.
pub(super) struct DepthwiseVnni {
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Whether the kernel is three by three, and steps are 1 or 2 both ways.
    window: bool,
    /// Fours of input rows.
    quads: usize,
    /// Output rows that they serve: 1, or an even number.
    rows: usize,
    blocks: Vec<Block>,
    weights: Vec<Line>,
    /// The sum of the weights of each channel.
    sums: Vec<i32>,
}

impl DepthwiseVnni {
    /// Packs the weights, in the order channel, row, column; `None` where another way is open only.
    pub(super) fn new(
        isa: Isa,
        shape: &ConvShape,
        weights: Int8<'_>,
        zero: WeightZero<'_>,
    ) -> Option<DepthwiseVnni> {
        let Int8::I8(weights) = weights else { return None };
        let [kernel_h, kernel_w] = shape.kernel;
        let same = shape.groups == shape.out_c && shape.in_c == shape.out_c;
        let plain = same && shape.dilation == [1, 1] && shape.out_c.is_multiple_of(16);
        // Steps are bounded as well: words are made for all columns between two outputs.
        let few = |size: usize| size <= 2 * QUAD;
        let small = kernel_h >= 2 && shape.kernel.into_iter().chain(shape.stride).all(few);
        if isa.level() != Level::Avx512 || !plain || !small || !zero.is_zero() {
            return None;
        }
        let quads = kernel_h.div_ceil(QUAD);
        let stride = shape.stride[0];
        // Rows go by pairs, where there are two.
        let rows = ((QUAD * quads - kernel_h) / stride + 1).max(2) / 2 * 2;
        let rows = if (rows - 1) * stride + kernel_h > QUAD * quads { 1 } else { rows };
        let blocks = Block::cover(shape.out_c);
        let taps = kernel_h * kernel_w;
        let sum = |weights: &[i8]| weights.iter().map(|&w| i32::from(w)).sum();
        let mut packed = DepthwiseVnni {
            kernel: shape.kernel,
            stride: shape.stride,
            window: shape.kernel == [window::TAPS; 2] && matches!(shape.stride, [1, 1] | [2, 2]),
            quads,
            rows,
            blocks,
            weights: Vec::new(),
            sums: weights.chunks_exact(taps).map(sum).collect(),
        };
        packed.weights =
            packed.blocks.iter().flat_map(|block| packed.pack(block, weights)).collect();
        Some(packed)
    }

    /// The weights of a block.
    fn pack(&self, block: &Block, weights: &[i8]) -> Vec<Line> {
        let mut lines = vec![Line::zeroed(); PARTS * self.part_lines()];
        let lanes = bytemuck::cast_slice_mut::<Line, i8>(&mut lines).chunks_exact_mut(BLOCK);
        for (place, lanes) in self.places().iter().zip(lanes) {
            for (lane, quad) in lanes.chunks_exact_mut(QUAD).enumerate() {
                let channel = block.col + block.channel(byte_of(place.part, lane));
                self.fill(quad, channel, place, weights);
            }
        }
        lines
    }

    /// What the lines of weights of a block are for, in their order.
    fn places(&self) -> Vec<Place> {
        let mut places = Vec::with_capacity(PARTS * self.part_lines());
        let pairs = self.rows.div_ceil(2);
        for (part, pair) in (0..PARTS * pairs).map(|i| (i / pairs, i % pairs * 2)) {
            let pair = pair..self.rows.min(pair + 2);
            for x in 0..self.kernel[1] {
                for quad in 0..self.quads {
                    places.extend(pair.clone().map(|row| Place { part, x, quad, row }));
                }
            }
        }
        places
    }

    /// The weights of a channel that belong to a place: those of rows outside of the kernel are 0.
    fn fill(&self, quad: &mut [i8], channel: usize, place: &Place, weights: &[i8]) {
        let [kernel_h, kernel_w] = self.kernel;
        let first = channel * kernel_h * kernel_w + place.x;
        for (i, out) in quad.iter_mut().enumerate() {
            let y = (QUAD * place.quad + i).wrapping_sub(place.row * self.stride[0]);
            if y < kernel_h {
                *out = weights[first + y * kernel_w];
            }
        }
    }

    /// Lines of weights of a block and register.
    fn part_lines(&self) -> usize {
        self.rows * self.kernel[1] * self.quads
    }

    /// The weights of block `index`.
    #[inline(always)]
    fn of_block(&self, index: usize) -> &[Line] {
        let len = PARTS * self.part_lines();
        &self.weights[index * len..][..len]
    }

    /// The greatest magnitude of a sum of products, whatever weights and inputs are.
    pub(super) fn most(&self) -> f32 {
        let taps = self.kernel[0] * self.kernel[1];
        (taps * usize::from(u8::MAX) * usize::from(i8::MIN.unsigned_abs())) as f32
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.weights.as_slice()) + size_of_val(self.sums.as_slice())
    }

    pub(super) fn run(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        input: ConvInput<'_>,
        in_planes: bool,
        output: PlainBytes<'_>,
    ) {
        let same = shape.stride == self.stride && shape.in_c == shape.out_c;
        assert!(same && shape.kernel == self.kernel, "weights packed for another shape");
        let zero = unsigned_zero(input.values, input.zero_point);
        let split = Split::new(ctx.pool.threads(), shape, self);
        let (bytes, flip) = (input.values.bytes(), input.values.flip());
        let images = Image::new(shape, bytes, [flip, zero], in_planes);
        ctx.pool.for_each_range(split.tasks(shape), 1, |tasks| {
            for task in tasks {
                let (number, lines, blocks) = split.task(task);
                let image = Image { number, ..images };
                let sizes = self.scratch(shape, blocks.len());
                with_scratch(sizes.iter().sum(), |scratch| {
                    let rooms = Rooms::new(scratch, sizes, zero ^ flip);
                    let (output, size) = (&output, [split.out_h, split.out_w]);
                    let (lines, blocks) = (lines.clone(), blocks.clone());
                    let (weights, rows) = (self, Rows::default());
                    let band = Band { weights, image, size, output, lines, blocks, rooms, rows };
                    // SAFETY: packing took an `Isa` of this level, so the CPU has it.
                    unsafe { cpu::run_avx512(band) }
                });
            }
        });
    }

    /// Output lines that are computed together.
    fn line_unit(&self) -> usize {
        let below = |block: &Block| if self.window { block.pixels } else { 1 };
        self.rows * self.blocks.iter().map(below).max().unwrap_or(1)
    }

    /// Lines of scratch for each of [`Rooms`], for some blocks.
    fn scratch(&self, shape: &ConvShape, blocks: usize) -> [usize; 4] {
        let factors = blocks * (size_of::<Factors>() / BLOCK);
        match self.window {
            true => {
                let lines = |bytes: usize| bytes.div_ceil(BLOCK);
                let rows = [shape.out_w() * shape.out_c, shape.in_w * shape.in_c].map(lines);
                [factors, self.rows * shape.out_w(), rows[0], rows[1]]
            }
            false => {
                let columns = self.strip_columns(shape);
                let sums = self.rows * OUTPUTS * PARTS;
                [factors, columns * self.quads * PARTS, sums, 0]
            }
        }
    }

    /// Tiles of outputs in a strip of a block of `pixels` pixels.
    fn strip_tiles(&self, shape: &ConvShape, pixels: usize) -> usize {
        let step = OUTPUTS * pixels * shape.stride[1];
        (STRIP / step).max(1)
    }

    /// Columns of the widest strip.
    fn strip_columns(&self, shape: &ConvShape) -> usize {
        let columns = |pixels: usize| {
            let outputs = self.strip_tiles(shape, pixels) * OUTPUTS;
            (outputs - 1) * pixels * shape.stride[1] + self.kernel[1]
        };
        self.blocks.iter().map(|block| columns(block.pixels)).max().unwrap_or(0)
    }
}

/// How the output is cut into tasks: images by bands of lines by parts of the blocks.
struct Split {
    out_h: usize,
    out_w: usize,
    /// Output rows that are computed together.
    rows: usize,
    bands: usize,
    blocks: usize,
    parts: usize,
}

impl Split {
    fn new(threads: usize, shape: &ConvShape, weights: &DepthwiseVnni) -> Split {
        let (out_h, blocks) = (shape.out_h(), weights.blocks.len());
        let steps = out_h.div_ceil(weights.rows).max(1);
        // Bands where there are so many lines that these are nearly equal: products before and after
        // are cut alike, so that a thread reads what it has written. Else parts of the channels.
        let lines = steps >= 7 * threads || blocks < 2 * threads;
        let wanted = if threads == 1 { 1 } else { 2 * threads };
        let (bands, parts) = if lines { (wanted.min(steps), 1) } else { (1, wanted.min(blocks)) };
        Split { out_h, out_w: shape.out_w(), rows: weights.rows, bands, blocks, parts }
    }

    fn tasks(&self, shape: &ConvShape) -> usize {
        shape.batch * self.bands * self.parts
    }

    /// Image, output lines and blocks of a task.
    fn task(&self, task: usize) -> (usize, Range<usize>, Range<usize>) {
        let rest = task / self.parts;
        let (image, band) = (rest / self.bands, rest % self.bands);
        let steps = self.out_h.div_ceil(self.rows);
        let line = |band: usize| self.out_h.min(steps * band / self.bands * self.rows);
        let lines = line(band)..line(band + 1);
        let part = |index: usize| self.blocks * index / self.parts;
        (image, lines, part(task % self.parts)..part(task % self.parts + 1))
    }
}
