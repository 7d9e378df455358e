//! f32 convolutions in groups of few channels, without a matrix: a few neighbouring pixels times
//! eight or sixteen output channels are in registers while taps pass by.
//!
//! Rows of the image are copied, with their padding, for as many groups as fill lines of the cache:
//! pixels that lie a power of two apart, as channels like to, would drive each other out of it. A
//! ring holds the rows that a line of outputs needs, so each is copied once.
//!
//! Where a group has fewer than eight channels, several share a register, and each lane picks the
//! input of its own group: products across groups, which an infinite factor would turn to NaN, do
//! not arise.

use std::ops::Range;

use super::grouped_lanes::{Lanes, OCTET, Plain};
#[cfg(target_arch = "x86_64")]
use super::grouped_x86::{Avx2, Avx2Wide, Avx512Wide};
use super::shape::ConvShape;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Level;
use crate::cpu::{Ctx, Job};
use crate::gemm::driver::Finish;
use crate::gemm::kernel::prefetch;
use crate::gemm::{Epilogue, FloatFinish, Matrix};
use crate::scratch::with_scratch;

/// Groups with more output channels than this do as well as matrices; where each output depends on
/// one pixel, those with more than the latter.
const FEW: [usize; 2] = [24, OCTET];

/// Input channels that are copied together, at least: a line of the cache.
const LINE: usize = 16;

/// Outputs and taps that lie further apart than this leave most of what is copied unread, however
/// much that is.
const FAR: usize = 64;

/// Lines for each thread from which on threads share out lines.
const MANY_LINES: usize = 4;

/// Weights by unit, tap, input channel and output channel.
pub(super) struct GroupedF32 {
    kernel: [usize; 2],
    channels: [usize; 3],
    blocks: Vec<Block>,
    units: Vec<Unit>,
    weights: Vec<f32>,
    /// Where units have several groups: which of eight inputs each lane reads, for each input
    /// channel of a group.
    picks: Vec<[i32; OCTET]>,
}

/// Units whose inputs are copied together.
struct Block {
    units: Range<usize>,
    /// Input channels.
    channels: Range<usize>,
}

/// Output channels that are computed together: up to sixteen of one group, or up to eight of
/// several.
struct Unit {
    /// The first one, and how many there are.
    col: usize,
    width: usize,
    /// The first input channel.
    channel: usize,
    /// Where its weights begin.
    weights: usize,
}

impl Unit {
    /// Lanes of a register for all outputs.
    fn lanes(&self) -> usize {
        if self.width > OCTET { 2 * OCTET } else { OCTET }
    }
}

impl GroupedF32 {
    /// Whether such a convolution does better so than as a matrix per group.
    pub(super) fn applies(shape: &ConvShape) -> bool {
        let few = FEW[usize::from(shape.kernel == [1, 1])];
        let near = shape.stride.iter().chain(&shape.dilation).all(|&step| step <= FAR);
        let is_few = (1..=few).contains(&shape.group_out_c());
        shape.groups > 1 && is_few && shape.group_in_c() > 0 && near
    }

    /// Packs weights in the order out channel, in channel of the group, row, column (OIHW).
    pub(super) fn new(shape: &ConvShape, weights: &[f32]) -> GroupedF32 {
        let (ins, outs) = (shape.group_in_c(), shape.group_out_c());
        let together = (OCTET / ins).min(OCTET / outs);
        let mut units = if together > 1 { shared(shape, together) } else { own(shape) };
        let mut all = Vec::new();
        for unit in &mut units {
            unit.weights = all.len();
            for k in 0..shape.k() {
                let weight = |lane: usize| match lane < unit.width {
                    true => weights[shape.weight_index(k, unit.col + lane)],
                    false => 0.0,
                };
                all.extend((0..unit.lanes()).map(weight));
            }
        }
        let pick = |channel: usize, lane: usize| (lane / outs * ins + channel) % OCTET;
        let picks = |channel| std::array::from_fn(|lane| pick(channel, lane) as i32);
        GroupedF32 {
            kernel: shape.kernel,
            channels: [shape.in_c, shape.out_c, shape.groups],
            blocks: blocks(shape, &units),
            units,
            weights: all,
            picks: if together > 1 { (0..ins).map(picks).collect() } else { Vec::new() },
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.weights.as_slice())
            + size_of_val(self.units.as_slice())
            + size_of_val(self.blocks.as_slice())
    }

    pub(super) fn run(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        input: &[f32],
        epilogue: Epilogue<'_>,
        output: &mut [f32],
    ) {
        let channels = [shape.in_c, shape.out_c, shape.groups];
        assert!(self.kernel == shape.kernel && self.channels == channels, "other weights");
        if output.is_empty() {
            return;
        }
        let output = Matrix { data: output, stride: shape.out_c };
        let finish = FloatFinish::new(epilogue, shape.out_pixels(), shape.out_c, 0, output);
        let (lines, threads) = (shape.batch * shape.out_h(), ctx.pool.threads());
        let by_lines = lines >= MANY_LINES * threads || self.blocks.len() < threads;
        let bands = if by_lines { threads } else { 1 };
        // Neighbouring tasks have neighbouring lines: a thread takes such, in every layer the same.
        ctx.pool.for_each_range(bands * self.blocks.len(), 1, |tasks| {
            for task in tasks {
                let (band, block) = (task / self.blocks.len(), task % self.blocks.len());
                let lines = lines * band / bands..lines * (band + 1) / bands;
                let block = &self.blocks[block];
                let task = Task { weights: self, shape, input, lines, block, finish: &finish };
                task.run_on(ctx);
            }
        });
    }
}

/// Units of `together` groups each.
fn shared(shape: &ConvShape, together: usize) -> Vec<Unit> {
    let (ins, outs) = (shape.group_in_c(), shape.group_out_c());
    let unit = |group: usize| {
        let width = together.min(shape.groups - group) * outs;
        Unit { col: group * outs, width, channel: group * ins, weights: 0 }
    };
    (0..shape.groups).step_by(together).map(unit).collect()
}

/// Units of one group or a part of it each.
fn own(shape: &ConvShape) -> Vec<Unit> {
    let (ins, outs) = (shape.group_in_c(), shape.group_out_c());
    let unit = |group: usize, col: usize| {
        let width = (2 * OCTET).min(outs - col);
        Unit { col: group * outs + col, width, channel: group * ins, weights: 0 }
    };
    let group = |group| (0..outs).step_by(2 * OCTET).map(move |col| unit(group, col));
    (0..shape.groups).flat_map(group).collect()
}

/// Whole groups, so many that their inputs fill lines.
fn blocks(shape: &ConvShape, units: &[Unit]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut first = 0;
    while first < units.len() {
        let start = units[first].channel;
        let is_next = |unit: &Unit| unit.channel >= start + LINE;
        let rest = &units[first..];
        let end = first + rest.iter().position(is_next).unwrap_or(rest.len());
        let behind = units.get(end).map_or(shape.in_c, |unit| unit.channel);
        blocks.push(Block { units: first..end, channels: start..behind });
        first = end;
    }
    blocks
}

/// Some lines of output pixels for the units of a block.
struct Task<'a> {
    weights: &'a GroupedF32,
    shape: &'a ConvShape,
    input: &'a [f32],
    lines: Range<usize>,
    block: &'a Block,
    finish: &'a FloatFinish<'a>,
}

impl Task<'_> {
    fn run_on(self, ctx: Ctx<'_>) {
        let shape = self.shape;
        let reach = |axis: usize| (shape.kernel[axis] - 1) * shape.dilation[axis] + 1;
        let columns = (shape.out_w() - 1) * shape.stride[1] + reach(1);
        let row_len = columns * self.block.channels.len();
        let slots = reach(0);
        // Lanes of several groups read eight channels, also of the last column.
        with_scratch(slots * row_len + OCTET, |ring| {
            let ring = Ring { rows: ring, row_len, slots };
            // SAFETY: the CPU has the level of `ctx.isa`.
            unsafe {
                match ctx.isa.level() {
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => {
                        // Such processors have more registers, for narrow ones too.
                        type Octet<const SHARED: bool> = Avx2<SHARED, 14>;
                        type Wide = Avx512Wide;
                        ctx.isa.run(On::<Octet<false>, Octet<true>, Wide>::new(self, ring));
                    }
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => {
                        type Octet<const SHARED: bool> = Avx2<SHARED, 8>;
                        ctx.isa.run(On::<Octet<false>, Octet<true>, Avx2Wide>::new(self, ring));
                    }
                    _ => {
                        type Octet<const SHARED: bool> = Plain<OCTET, SHARED>;
                        type Wide = Plain<{ 2 * OCTET }, false>;
                        ctx.isa.run(On::<Octet<false>, Octet<true>, Wide>::new(self, ring));
                    }
                }
            }
        });
    }
}

/// Rows of the padded image, for the channels of a block.
struct Ring<'a> {
    rows: &'a mut [f32],
    row_len: usize,
    slots: usize,
}

impl Ring<'_> {
    /// Copies row `row` of the padded image.
    #[inline(always)]
    fn copy(&mut self, task: &Task<'_>, image: usize, row: usize) {
        let (shape, channels) = (task.shape, &task.block.channels);
        let out = &mut self.rows[row % self.slots * self.row_len..][..self.row_len];
        let Some(row) = row.checked_sub(shape.pads[0]).filter(|&row| row < shape.in_h) else {
            return out.fill(0.0);
        };
        let left = shape.pads[1] * channels.len();
        let (left, out) = out.split_at_mut(left.min(self.row_len));
        let (inside, right) = out.split_at_mut(out.len().min(shape.in_w * channels.len()));
        left.fill(0.0);
        right.fill(0.0);
        let first = (image * shape.in_h + row) * shape.in_w * shape.in_c + channels.start;
        let columns = task.input.get(first..).unwrap_or_default().chunks(shape.in_c);
        for (out, column) in inside.chunks_exact_mut(channels.len()).zip(columns) {
            let (out, rest) = out.as_chunks_mut::<OCTET>();
            // The next row, which nothing else asks for: its channels lie too far apart.
            prefetch(column.as_ptr().wrapping_add(shape.in_w * shape.in_c));
            let (column, last) = column[..channels.len()].as_chunks::<OCTET>();
            out.copy_from_slice(column);
            rest.iter_mut().zip(last).for_each(|(out, value)| *out = *value);
        }
    }
}

/// A task to be computed in registers: of eight channels of one group, of eight of several, and of
/// sixteen.
struct On<'a, O, S, W> {
    task: Task<'a>,
    ring: Ring<'a>,
    lanes: std::marker::PhantomData<(O, S, W)>,
}

impl<'a, O: Lanes, S: Lanes, W: Lanes> On<'a, O, S, W> {
    /// # Safety
    /// The CPU has the instructions of all three.
    unsafe fn new(task: Task<'a>, ring: Ring<'a>) -> Self {
        On { task, ring, lanes: std::marker::PhantomData }
    }
}

impl<O: Lanes, S: Lanes, W: Lanes> Job for On<'_, O, S, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let On { task, mut ring, .. } = self;
        let shape = task.shape;
        let mut copied = 0;
        let mut rows = Vec::with_capacity(shape.kernel[0]);
        for line in task.lines.clone() {
            let (image, y) = (line / shape.out_h(), line % shape.out_h());
            let top = y * shape.stride[0];
            if y == 0 {
                copied = 0;
            }
            for row in top.max(copied)..top + ring.slots {
                ring.copy(&task, image, row);
            }
            copied = top + ring.slots;
            let slot = |ky: usize| (top + ky * shape.dilation[0]) % ring.slots;
            rows.clear();
            rows.extend((0..shape.kernel[0]).map(|ky| slot(ky) * ring.row_len));
            let line = Line { task: &task, ring: ring.rows, rows: &rows, line };
            // SAFETY: `new` demands the instructions.
            unsafe {
                match (task.weights.picks.is_empty(), shape.group_out_c() > OCTET) {
                    (false, _) => line.pixels::<S, S>(),
                    (true, false) => line.pixels::<O, O>(),
                    (true, true) => line.pixels::<O, W>(),
                }
            }
        }
    }
}

/// A line of output pixels.
struct Line<'a> {
    task: &'a Task<'a>,
    ring: &'a [f32],
    /// Where the row of the image begins that each row of the kernel meets.
    rows: &'a [usize],
    line: usize,
}

impl Line<'_> {
    /// All pixels, in registers `O` for units of up to eight channels and `W` for others.
    ///
    /// # Safety
    /// The CPU has the instructions of both.
    #[inline(always)]
    unsafe fn pixels<O: Lanes, W: Lanes>(&self) {
        let (mut x, out_w) = (0, self.task.shape.out_w());
        while x < out_w {
            let left = out_w - x;
            // Tiles of equal width: a last one of few pixels would wait for each of its sums.
            let pixels = left.div_ceil(left.div_ceil(W::MOST));
            for unit in &self.task.weights.units[self.task.block.units.clone()] {
                // SAFETY: the caller's promise.
                unsafe {
                    match unit.width > OCTET {
                        true => self.unit::<W>(x, pixels, unit),
                        false => self.unit::<O>(x, pixels, unit),
                    }
                }
            }
            x += pixels;
        }
    }

    /// `pixels` pixels of a unit, from `x` on.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`.
    #[inline(always)]
    unsafe fn unit<L: Lanes>(&self, x: usize, pixels: usize, unit: &Unit) {
        let (mut x, end) = (x, x + pixels);
        while x < end {
            let pixels = L::MOST.min(end - x);
            // SAFETY: the caller's promise.
            unsafe {
                match pixels {
                    2 => self.tile::<L, 2>(x, unit),
                    3 => self.tile::<L, 3>(x, unit),
                    4 => self.tile::<L, 4>(x, unit),
                    5 if L::MOST >= 5 => self.tile::<L, 5>(x, unit),
                    6 if L::MOST >= 6 => self.tile::<L, 6>(x, unit),
                    7 if L::MOST >= 7 => self.tile::<L, 7>(x, unit),
                    8 if L::MOST >= 8 => self.tile::<L, 8>(x, unit),
                    9 if L::MOST >= 9 => self.tile::<L, 9>(x, unit),
                    10 if L::MOST >= 10 => self.tile::<L, 10>(x, unit),
                    11 if L::MOST >= 11 => self.tile::<L, 11>(x, unit),
                    12 if L::MOST >= 12 => self.tile::<L, 12>(x, unit),
                    13 if L::MOST >= 13 => self.tile::<L, 13>(x, unit),
                    14 if L::MOST >= 14 => self.tile::<L, 14>(x, unit),
                    _ => self.tile::<L, 1>(x, unit),
                }
            }
            x += pixels;
        }
    }

    /// `P` pixels of a unit, from `x` on.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`, whose lanes are those of the unit; there are so many
    /// pixels.
    #[inline(always)]
    unsafe fn tile<L: Lanes, const P: usize>(&self, x: usize, unit: &Unit) {
        let Task { weights, shape, block, finish, .. } = self.task;
        let (taps, channels) = (shape.kernel[1], shape.group_in_c());
        let column = block.channels.len();
        let (step, gap) = (shape.stride[1] * column, shape.dilation[1] * column);
        let first = x * step + unit.channel - block.channels.start;
        let row = self.line * shape.out_w() + x;
        finish.ahead(row, unit.col, P);
        let mut factors = weights.weights[unit.weights..].as_ptr();
        // SAFETY: the caller's promise.
        let mut sums = [unsafe { L::zero() }; P];
        for start in self.rows {
            let start = self.ring[start + first..].as_ptr();
            for kx in 0..taps {
                for channel in 0..channels {
                    // SAFETY: the caller's promise; the ring holds a row for each row of the kernel,
                    // and there are weights for each tap and channel.
                    unsafe {
                        let factor = L::load(factors);
                        factors = factors.add(L::LANES);
                        let pick = weights.picks.as_ptr().wrapping_add(channel);
                        let column = start.add(kx * gap);
                        for (p, sum) in sums.iter_mut().enumerate() {
                            let value = L::value(column.add(p * step), channel, pick);
                            *sum = L::add_product(*sum, value, factor);
                        }
                    }
                }
            }
        }
        // SAFETY: the caller's promise; each output belongs to one task, which stores it once.
        unsafe { L::finish(finish, row, unit.col, unit.width, sums) }
    }
}
