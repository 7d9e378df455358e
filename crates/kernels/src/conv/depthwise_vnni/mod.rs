//! int8 depthwise convolution with VNNI: products of four input rows at a time, 64 channels side by
//! side, straight to 8-bit results.
//!
//! Four rows of the image are interleaved byte by byte, so that a 32-bit lane holds what lies below
//! each other in one channel. The same lanes serve several output rows, whose weights are moved by
//! as many rows: of a kernel of 3 rows two, of one of 5 rows (two times four input rows) four.
//! Where fewer than 64 channels are left, some lanes stay empty; but where their number is a
//! multiple of 16, kernels of three by three take 32 of two pixels or 16 of four, which lie below
//! each other, or side by side where 32 channels are all there are.
//!
//! Interleaving and the packing of results both go by 128-bit parts of a register, and undo each
//! other: between them, lane `d` of register `z` belongs to byte `16 * (d / 4) + 4 * z + d % 4` of a
//! block.

mod band;
mod beside;
mod factors;
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
pub(super) use self::factors::Factors;
use self::image::Image;
use super::int8::ConvInput;
use super::shape::ConvShape;
use crate::cpu::{self, Ctx, Isa, Level};
use crate::gemm::{PlainBytes, Requantize, WeightZero, unsigned_zero};
use crate::int8::Int8;
use crate::scratch::{Line, with_scratch};
use crate::threads::share_of;

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

/// Some channels of a pixel, or of a few: at most 64 bytes.
#[derive(Clone, Copy)]
struct Block {
    col: usize,
    /// Channels of a pixel.
    width: usize,
    /// Output pixels below each other: 1, 2 or 4, of 64, 32 or 16 channels.
    stack: usize,
    /// Whether words stay in registers.
    window: bool,
}

impl Block {
    /// The channel of byte `byte`, where there is one.
    fn channel(&self, byte: usize) -> Option<usize> {
        let channel = byte % (BLOCK / self.stack);
        (channel < self.width).then_some(self.col + channel)
    }

    /// Covers `channels` channels; the kernel may be one for windows.
    fn cover(channels: usize, window: bool) -> Vec<Block> {
        let (mut blocks, mut col) = (Vec::new(), 0);
        while col < channels {
            let (stack, width, window) = match channels - col {
                BLOCK.. => (1, BLOCK, window),
                left if !window || !left.is_multiple_of(16) => (1, left, false),
                32.. => (2, 32, true),
                _ => (4, 16, true),
            };
            blocks.push(Block { col, width, stack, window });
            col += width;
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

/// What kinds of blocks there are.
#[derive(Clone, Copy)]
struct Kinds {
    /// Some are computed by windows.
    windows: bool,
    /// Some are computed by strips.
    strips: bool,
    /// The most pixels below each other.
    stack: usize,
}

impl Kinds {
    fn of(blocks: &[Block]) -> Kinds {
        Kinds {
            windows: blocks.iter().any(|block| block.window),
            strips: blocks.iter().any(|block| !block.window),
            stack: blocks.iter().map(|block| block.stack).max().unwrap_or(1),
        }
    }
}

/// The mask of the first `width` bytes of a block.
#[inline(always)]
fn mask(width: usize) -> u64 {
    u64::MAX >> (BLOCK - width)
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
    /// Fours of input rows.
    quads: usize,
    /// Output rows that they serve: 1, or an even number.
    rows: usize,
    blocks: Vec<Block>,
    kinds: Kinds,
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
        let plain = same && shape.dilation == [1, 1];
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
        let window = shape.kernel == [window::TAPS; 2] && matches!(shape.stride, [1, 1] | [2, 2]);
        let blocks = Block::cover(shape.out_c, window);
        let taps = kernel_h * kernel_w;
        let sum = |weights: &[i8]| weights.iter().map(|&w| i32::from(w)).sum();
        let mut packed = DepthwiseVnni {
            kernel: shape.kernel,
            stride: shape.stride,
            quads,
            rows,
            kinds: Kinds::of(&blocks),
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
                if let Some(channel) = block.channel(byte_of(place.part, lane)) {
                    self.fill(quad, channel, place, weights);
                }
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

    /// The factors of all blocks, for sums of inputs with the zero point `zero`, in unsigned form,
    /// that become `to`; `None` where this is no way to such results.
    pub(super) fn factors(&self, zero: u8, to: &Requantize<'_>) -> Option<Vec<Factors>> {
        let factors = |block: &Block| Factors::new(*block, zero, &self.sums, to);
        to.is_plain(self.most()).then(|| self.blocks.iter().map(factors).collect())
    }

    /// The greatest magnitude of a sum of products, whatever weights and inputs are.
    fn most(&self) -> f32 {
        let taps = self.kernel[0] * self.kernel[1];
        (taps * usize::from(u8::MAX) * usize::from(i8::MIN.unsigned_abs())) as f32
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.weights.as_slice()) + size_of_val(self.sums.as_slice())
    }

    /// Convolves with [`DepthwiseVnni::factors`] of this input and output.
    pub(super) fn run(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        factors: &[Factors],
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
                let image = Image { number: split.image(task), ..images };
                for (lines, blocks) in split.parts(task) {
                    let sizes = self.scratch(shape);
                    with_scratch(sizes.iter().sum(), |scratch| {
                        let rooms = Rooms::new(scratch, sizes);
                        let (output, size) = (&output, [split.out_h, split.out_w]);
                        let (weights, rows) = (self, Rows::take());
                        let band = Band {
                            weights,
                            image,
                            size,
                            output,
                            factors,
                            lines,
                            blocks,
                            rooms,
                            rows,
                        };
                        // SAFETY: packing took an `Isa` of this level, so the CPU has it.
                        unsafe { cpu::run_avx512(band) }
                    });
                }
            }
        });
    }

    /// Whether each of `shares` threads writes its part of the output's lines, whole.
    pub(super) fn writes_lines(&self, shape: &ConvShape, shares: usize) -> bool {
        let split = Split::new(shares, shape, self);
        let part = |share| share_of(split.out_h, share, shares);
        let is_own = |share| split.parts(share).eq([(part(share), 0..split.blocks)]);
        shape.batch == 1 && split.tasks == shares && (0..shares).all(is_own)
    }

    /// Output lines that are computed together.
    fn line_unit(&self) -> usize {
        self.rows * self.kinds.stack
    }

    /// Whether a line alone costs little more than half of two.
    fn has_single_lines(&self) -> bool {
        self.kinds.windows && self.kinds.stack == 1
    }

    /// Lines of scratch for each of [`Rooms`].
    fn scratch(&self, shape: &ConvShape) -> [usize; 2] {
        let row = (shape.out_w() * shape.out_c).div_ceil(BLOCK);
        let of_windows = [self.rows * shape.out_w(), row];
        let words = self.strip_columns() * self.quads * PARTS;
        let of_strips = [words, self.rows * OUTPUTS * PARTS];
        let Kinds { windows, strips, .. } = self.kinds;
        let room = |wanted: bool, lines: usize| if wanted { lines } else { 0 };
        [0, 1].map(|i| room(windows, of_windows[i]).max(room(strips, of_strips[i])))
    }

    /// Outputs of the widest strip.
    fn strip_outputs(&self) -> usize {
        (STRIP / (OUTPUTS * self.stride[1])).max(1) * OUTPUTS
    }

    /// Columns of the widest strip.
    fn strip_columns(&self) -> usize {
        (self.strip_outputs() - 1) * self.stride[1] + self.kernel[1]
    }
}

/// How the output is cut into tasks: each image into as many of the same size. The units that are
/// shared out are steps of lines, in one group of blocks after another.
struct Split {
    out_h: usize,
    out_w: usize,
    /// Lines of a step: those that are computed together.
    step: usize,
    steps: usize,
    blocks: usize,
    /// Blocks that are cut together: all of them are one group, or each is.
    groups: usize,
    /// Tasks of an image.
    tasks: usize,
}

impl Split {
    fn new(threads: usize, shape: &ConvShape, weights: &DepthwiseVnni) -> Split {
        let (out_h, blocks) = (shape.out_h(), weights.blocks.len());
        // Lines of all blocks where there are so many that tasks are nearly equal: products before
        // and after are cut alike, so that a thread reads what it has written, and writes where
        // nobody else has read. Else some blocks.
        let step = if weights.has_single_lines() { 1 } else { weights.rows };
        let by_lines = out_h.div_ceil(step) >= 7 * threads || blocks < 2 * threads;
        let step = if by_lines { step } else { weights.line_unit() };
        let groups = if by_lines { 1 } else { blocks };
        let steps = out_h.div_ceil(step);
        let tasks = threads.min(steps * groups);
        Split { out_h, out_w: shape.out_w(), step, steps, blocks, groups, tasks }
    }

    fn tasks(&self, shape: &ConvShape) -> usize {
        shape.batch * self.tasks
    }

    /// The image of a task.
    fn image(&self, task: usize) -> usize {
        task / self.tasks
    }

    /// Output lines and blocks of a task, in up to three parts.
    fn parts(&self, task: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let (steps, units) = (self.steps, self.steps * self.groups);
        let task = task % self.tasks;
        let (mut next, end) = (units * task / self.tasks, units * (task + 1) / self.tasks);
        let line = |step: usize| self.out_h.min(step * self.step);
        let block = |group: usize| self.blocks * group / self.groups;
        std::iter::from_fn(move || {
            if next >= end {
                return None;
            }
            let (group, first) = (next / steps, next % steps);
            // Whole groups in one, or what there is of one group.
            let (len, groups) = match (first, (end - next) / steps) {
                (0, whole @ 1..) => (steps, whole),
                _ => (steps.min(first + end - next) - first, 1),
            };
            next += len * groups;
            Some((line(first)..line(first + len), block(group)..block(group + groups)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_tasks_cover_lines_and_blocks_once() {
        for (out_h, step, blocks, groups, tasks) in [
            (1usize, 2usize, 1, 1, 1),
            (7, 2, 15, 15, 4),
            (14, 2, 9, 9, 4),
            (14, 4, 3, 3, 8),
            (5, 8, 4, 4, 3),
            (28, 2, 3, 1, 4),
            (9, 2, 2, 1, 5),
            (14, 2, 6, 6, 1),
        ] {
            let steps = out_h.div_ceil(step);
            let split = Split { out_h, out_w: 1, step, steps, blocks, groups, tasks };
            let mut seen = vec![0; out_h * blocks];
            for (lines, blocks) in (0..tasks).flat_map(|task| split.parts(task)) {
                for line in lines {
                    blocks.clone().for_each(|block| seen[block * out_h + line] += 1);
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{out_h} {step} {blocks} {tasks}: {seen:?}");
        }
    }

    #[test]
    fn tasks_are_nearly_equal() {
        let split = |out_h: usize, blocks| Split {
            out_h,
            out_w: 1,
            step: 2,
            steps: out_h.div_ceil(2),
            blocks,
            groups: blocks,
            tasks: 2,
        };
        for (split, most) in [(split(7, 15), 30), (split(14, 9), 32)] {
            let steps = |(lines, blocks): (Range<usize>, Range<usize>)| {
                lines.len().div_ceil(2) * blocks.len()
            };
            for task in 0..2 {
                assert!(split.parts(task).map(steps).sum::<usize>() <= most);
            }
        }
    }
}
