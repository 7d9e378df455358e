//! int8 depthwise convolution: exact i32 sums, 16 channels at a time.
//!
//! Input rows are widened to i16, less the zero point, and interleaved two by two: rows 0 and 1,
//! rows 2 and 3 and so on of the padded image. One multiplication then adds the taps of two rows.
//! An output row that starts at an odd input row uses the same pairs with its weights moved by one
//! row, so each input row is prepared once. A ring holds the pairs that a few output rows need, for
//! as many channels as fit the second-level cache.

#[cfg(target_arch = "x86_64")]
use std::borrow::Cow;
use std::ops::Range;

use super::depthwise_band::{Band, Source};
#[cfg(target_arch = "x86_64")]
use super::depthwise_vnni::{DepthwiseVnni, Factors};
use super::int8::ConvInput;
use super::shape::ConvShape;
use crate::cpu::{Ctx, Isa};
use crate::gemm::driver::Finish;
use crate::gemm::kernel::{BATCH, NR};
use crate::gemm::{Matrix, Prepared, Requantize, Sink, WeightZero, unsigned_zero};
use crate::int8::Int8;
use crate::scratch::with_scratch;

/// Bytes of the ring that one task aims at.
const RING_BYTES: usize = 160 << 10;

/// The fewest chunks of channels per task, so that cache lines of the input are used whole.
const LEAST_CHUNKS: usize = 2;

/// Weights less their zero points, for output rows that start at an even or at an odd input row.
pub(super) struct DepthwiseI8 {
    kernel: [usize; 2],
    dilation: usize,
    out_c: usize,
    pub(super) starts: [PairWeights; 2],
    /// For outputs of 8 bits on processors with VNNI, where that way is open.
    #[cfg(target_arch = "x86_64")]
    vnni: Option<DepthwiseVnni>,
    /// Made by [`DepthwiseI8::prepare`].
    #[cfg(target_arch = "x86_64")]
    factors: Option<Vec<Factors>>,
}

/// Weights by chunk of [`NR`] channels, pair of rows, kernel column, channel and row of the pair.
pub(super) struct PairWeights {
    /// Pairs of rows that an output row needs.
    pub(super) pairs: usize,
    weights: Vec<i16>,
}

impl PairWeights {
    fn new(shape: &ConvShape, start: usize, weight: impl Fn(usize, usize) -> i16) -> PairWeights {
        let [kernel_h, kernel_w] = shape.kernel;
        let pairs = (start + (kernel_h - 1) * shape.dilation[0]) / 2 + 1;
        let chunks = shape.out_c.div_ceil(NR);
        let mut weights = vec![0; chunks * pairs * kernel_w * NR * 2];
        for channel in 0..shape.out_c {
            for tap in 0..kernel_h * kernel_w {
                let row = start + tap / kernel_w * shape.dilation[0];
                let group = (channel / NR * pairs + row / 2) * kernel_w + tap % kernel_w;
                weights[(group * NR + channel % NR) * 2 + row % 2] = weight(tap, channel);
            }
        }
        PairWeights { pairs, weights }
    }

    /// The weights of a chunk, for a kernel of `kernel_w` columns.
    #[inline(always)]
    pub(super) fn chunk(&self, chunk: usize, kernel_w: usize) -> &[i16] {
        let group = self.pairs * kernel_w * 2 * NR;
        &self.weights[chunk * group..][..group]
    }
}

impl DepthwiseI8 {
    pub(super) fn new(
        isa: Isa,
        shape: &ConvShape,
        weights: Int8<'_>,
        zero: WeightZero<'_>,
    ) -> DepthwiseI8 {
        #[cfg(not(target_arch = "x86_64"))]
        let _ = isa;
        let weight = |tap: usize, channel: usize| {
            let weight = weights.get(shape.weight_index(tap, channel)) - zero.get(channel);
            i16::try_from(weight).expect("zero points are of the weights' type")
        };
        DepthwiseI8 {
            kernel: shape.kernel,
            dilation: shape.dilation[0],
            out_c: shape.out_c,
            starts: [0, 1].map(|start| PairWeights::new(shape, start, weight)),
            #[cfg(target_arch = "x86_64")]
            vnni: DepthwiseVnni::new(isa, shape, weights, zero),
            #[cfg(target_arch = "x86_64")]
            factors: None,
        }
    }

    /// Makes once what depends on the zero point of inputs and on what becomes of sums.
    pub(super) fn prepare(&mut self, input: ConvInput<'_>, to: &Requantize<'_>) {
        let zero = unsigned_zero(input.values, input.zero_point);
        #[cfg(target_arch = "x86_64")]
        if let Some(vnni) = &self.vnni {
            self.factors = vnni.factors(zero, to);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (zero, to);
    }

    /// Whether it is certain that each of `shares` threads writes its part of the lines of 8-bit
    /// results, whole.
    pub(super) fn writes_lines(&self, shape: &ConvShape, shares: usize) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let (Some(vnni), Some(_)) = (&self.vnni, &self.factors) {
            return vnni.writes_lines(shape, shares);
        }
        let _ = (shape, shares);
        false
    }

    pub(super) fn bytes(&self) -> usize {
        let pairs: usize =
            self.starts.iter().map(|start| size_of_val(start.weights.as_slice())).sum();
        #[cfg(target_arch = "x86_64")]
        let pairs = pairs
            + self.vnni.as_ref().map_or(0, DepthwiseVnni::bytes)
            + self.factors.as_deref().map_or(0, size_of_val);
        pairs
    }

    pub(super) fn run(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        input: ConvInput<'_>,
        in_planes: bool,
        output: Sink<'_>,
    ) {
        let same = self.kernel == shape.kernel && self.dilation == shape.dilation[0];
        assert!(same && self.out_c == shape.out_c, "weights packed for another shape");
        let output = Matrix { data: output, stride: shape.out_c };
        let prepared = Prepared::new(output, shape.out_pixels(), shape.out_c, 0);
        #[cfg(target_arch = "x86_64")]
        if let (Some(vnni), Prepared::Int8(finish)) = (&self.vnni, prepared)
            && let Some(factors) = self.factors(vnni, input, finish.requantize())
        {
            return vnni.run(ctx, shape, &factors, input, in_planes, finish.plain());
        }
        assert!(!in_planes, "planes are read on the way to plain 8-bit values only");
        match prepared {
            Prepared::Int8(finish) => self.finish(ctx, shape, input, &finish),
            Prepared::I32(finish) => self.finish(ctx, shape, input, &finish),
            Prepared::F32(finish) => self.finish(ctx, shape, input, &finish),
        }
    }

    /// Those that are prepared, or made for this run.
    #[cfg(target_arch = "x86_64")]
    fn factors(
        &self,
        vnni: &DepthwiseVnni,
        input: ConvInput<'_>,
        to: &Requantize<'_>,
    ) -> Option<Cow<'_, [Factors]>> {
        let made = || vnni.factors(unsigned_zero(input.values, input.zero_point), to);
        let Some(factors) = &self.factors else { return made().map(Cow::Owned) };
        debug_assert!(made().as_ref() == Some(factors), "prepared for other inputs or results");
        Some(Cow::Borrowed(factors))
    }

    /// Whether images may lie in planes: where this was prepared for a way that reads them.
    pub(super) fn reads_planes(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.factors.is_some();
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    fn finish<F: Finish<Acc = i32>>(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        input: ConvInput<'_>,
        finish: &F,
    ) {
        let split = Split::new(ctx.pool.threads(), shape, self.slots(shape));
        let zero = unsigned_zero(input.values, input.zero_point);
        ctx.pool.for_each_range(split.tasks(shape), 1, |tasks| {
            for task in tasks {
                let (image, lines, chunks) = split.task(shape, task);
                let ring_len = split.slots * chunks.len() * split.line_len;
                with_scratch(ring_len, |ring| {
                    let (slots, line_len) = (split.slots, split.line_len);
                    let (bytes, flip) = (input.values.bytes(), input.values.flip());
                    let source = Source { shape, bytes, flip, zero, image };
                    let weights = self;
                    let band =
                        Band { weights, source, lines, chunks, slots, line_len, ring, finish };
                    band.run_on(ctx);
                });
            }
        });
    }

    /// Pairs of input rows that a block of output rows needs at most.
    fn slots(&self, shape: &ConvShape) -> usize {
        let lines = block_lines(shape);
        let pairs = self.starts[0].pairs.max(self.starts[1].pairs);
        pairs + (lines - 1) * shape.stride[0] / 2 + 1
    }
}

/// Output lines that are computed together: so many that an epilogue has a full batch.
pub(super) fn block_lines(shape: &ConvShape) -> usize {
    (BATCH / shape.out_w().max(1)).clamp(1, shape.out_h().max(1))
}

/// How the output is cut into tasks: images by chunks of channels by bands of lines.
struct Split {
    slots: usize,
    /// i16 elements of one prepared pair of rows, per chunk.
    line_len: usize,
    chunks: usize,
    block_chunks: usize,
    block_lines: usize,
}

impl Split {
    fn new(threads: usize, shape: &ConvShape, slots: usize) -> Split {
        let reach = (shape.kernel[1] - 1) * shape.dilation[1] + 1;
        let columns = shape.out_w().saturating_sub(1) * shape.stride[1] + reach;
        let (line_len, chunks) = (columns * NR * 2, shape.out_c.div_ceil(NR));
        let fitting = RING_BYTES / (slots * line_len * size_of::<i16>());
        let block_chunks = fitting.max(LEAST_CHUNKS).min(chunks.max(1));
        let blocks = shape.batch * chunks.div_ceil(block_chunks);
        let bands = if threads == 1 { 1 } else { (threads * 4).div_ceil(blocks.max(1)) };
        let block_lines = shape.out_h().div_ceil(bands).next_multiple_of(block_lines(shape)).max(4);
        Split { slots, line_len, chunks, block_chunks, block_lines }
    }

    fn bands(&self, shape: &ConvShape) -> usize {
        shape.out_h().div_ceil(self.block_lines)
    }

    fn tasks(&self, shape: &ConvShape) -> usize {
        shape.batch * self.chunks.div_ceil(self.block_chunks) * self.bands(shape)
    }

    /// Image, output lines and chunks of channels of a task.
    fn task(&self, shape: &ConvShape, task: usize) -> (usize, Range<usize>, Range<usize>) {
        // Neighbouring tasks have neighbouring lines: a thread takes such, in every layer the same.
        let blocks = self.chunks.div_ceil(self.block_chunks);
        let (rest, chunk) = (task / blocks, task % blocks * self.block_chunks);
        let (image, line) = (rest / self.bands(shape), rest % self.bands(shape) * self.block_lines);
        let lines = line..shape.out_h().min(line + self.block_lines);
        (image, lines, chunk..self.chunks.min(chunk + self.block_chunks))
    }
}
