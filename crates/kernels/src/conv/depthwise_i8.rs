//! int8 depthwise convolution: exact i32 sums, 16 channels at a time.
//!
//! Input rows are widened to i16, less the zero point, and interleaved two by two: rows 0 and 1,
//! rows 2 and 3 and so on of the padded image. One multiplication then adds the taps of two rows.
//! An output row that starts at an odd input row uses the same pairs with its weights moved by one
//! row, so each input row is prepared once. A ring holds the few pairs that an output row needs,
//! for as many channels as fit the first-level cache.

use std::ops::Range;

use super::int8::ConvInput;
use super::pair_tile::{PairTile, ScalarPairs, Step};
#[cfg(target_arch = "x86_64")]
use super::pair_tile_x86::{Avx2Pairs, Avx512Pairs};
use super::shape::ConvShape;
use crate::cpu::{Ctx, Job, Level};
use crate::gemm::driver::Finish;
use crate::gemm::kernel::{BATCH, NR, Sums};
use crate::gemm::{Matrix, Output, Prepared, WeightZero, unsigned_zero};
use crate::int8::Int8;
use crate::scratch::with_scratch;

/// Bytes of the ring that one task aims at.
const RING_BYTES: usize = 24 << 10;

/// The fewest chunks of channels per task, so that cache lines of the input are used whole.
const LEAST_CHUNKS: usize = 2;

/// Weights less their zero points, for output rows that start at an even or at an odd input row.
pub(super) struct DepthwiseI8 {
    kernel: [usize; 2],
    dilation: usize,
    out_c: usize,
    starts: [PairWeights; 2],
}

/// Weights by chunk of [`NR`] channels, pair of rows, kernel column, channel and row of the pair.
struct PairWeights {
    pairs: usize,
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
}

impl DepthwiseI8 {
    pub(super) fn new(shape: &ConvShape, weights: Int8<'_>, zero: WeightZero<'_>) -> DepthwiseI8 {
        let weight = |tap: usize, channel: usize| {
            let weight = weights.get(shape.weight_index(tap, channel)) - zero.get(channel);
            i16::try_from(weight).expect("zero points are of the weights' type")
        };
        DepthwiseI8 {
            kernel: shape.kernel,
            dilation: shape.dilation[0],
            out_c: shape.out_c,
            starts: [0, 1].map(|start| PairWeights::new(shape, start, weight)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.starts.iter().map(|start| size_of_val(start.weights.as_slice())).sum()
    }

    pub(super) fn run(
        &self,
        ctx: Ctx<'_>,
        shape: &ConvShape,
        input: ConvInput<'_>,
        output: Output<'_>,
    ) {
        let same = self.kernel == shape.kernel && self.dilation == shape.dilation[0];
        assert!(same && self.out_c == shape.out_c, "weights packed for another shape");
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
        let split = Split::new(ctx.pool.threads(), shape, self.slots());
        let zero = unsigned_zero(input.values, input.zero_point);
        ctx.pool.for_each_range(split.tasks(shape), 1, |tasks| {
            for task in tasks {
                let (image, lines, chunks) = split.task(shape, task);
                let ring_len = self.slots() * chunks.len() * split.line_len;
                with_scratch(ring_len, |ring| {
                    let (line_len, bytes) = (split.line_len, input.values.bytes());
                    let source = Source { shape, bytes, flip: input.values.flip(), zero, image };
                    let band =
                        Band { weights: self, source, lines, chunks, line_len, ring, finish };
                    band.run_on(ctx);
                });
            }
        });
    }

    /// Pairs of input rows that an output row needs at most.
    fn slots(&self) -> usize {
        self.starts[0].pairs.max(self.starts[1].pairs)
    }
}

/// How the output is cut into tasks: images by chunks of channels by bands of lines.
struct Split {
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
        let block_lines = shape.out_h().div_ceil(bands).max(4);
        Split { line_len, chunks, block_chunks, block_lines }
    }

    fn bands(&self, shape: &ConvShape) -> usize {
        shape.out_h().div_ceil(self.block_lines)
    }

    fn tasks(&self, shape: &ConvShape) -> usize {
        shape.batch * self.chunks.div_ceil(self.block_chunks) * self.bands(shape)
    }

    /// Image, output lines and chunks of channels of a task.
    fn task(&self, shape: &ConvShape, task: usize) -> (usize, Range<usize>, Range<usize>) {
        let (band, rest) = (task % self.bands(shape), task / self.bands(shape));
        let blocks = self.chunks.div_ceil(self.block_chunks);
        let (line, chunk) = (band * self.block_lines, rest % blocks * self.block_chunks);
        let lines = line..shape.out_h().min(line + self.block_lines);
        (rest / blocks, lines, chunk..self.chunks.min(chunk + self.block_chunks))
    }
}

/// One image of the input.
struct Source<'a> {
    shape: &'a ConvShape,
    bytes: &'a [u8],
    /// Turns a byte into its unsigned form.
    flip: u8,
    /// Zero point of the unsigned form.
    zero: u8,
    image: usize,
}

impl Source<'_> {
    /// Where the row starts that has number `row` in the padded image; `None` in the padding.
    #[inline(always)]
    fn row(&self, row: usize) -> Option<usize> {
        let shape = self.shape;
        let row = row.checked_sub(shape.pads[0]).filter(|&row| row < shape.in_h)?;
        Some((self.image * shape.in_h + row) * shape.in_w * shape.in_c)
    }

    /// The bytes of the output channels from `col` on, at all pixels of a row, where there are
    /// [`NR`] of them, one for each input channel.
    #[inline(always)]
    fn chunk_row<'s>(
        &'s self,
        row: Option<usize>,
        col: usize,
        zeros: &'s [u8; NR],
    ) -> ChunkRow<'s> {
        let in_c = self.shape.in_c;
        match row {
            Some(row) => ChunkRow { bytes: &self.bytes[row + col..], step: in_c },
            None => ChunkRow { bytes: zeros, step: 0 },
        }
    }

    /// The bytes of the output channels from `col` on, at one pixel of a row.
    #[inline(always)]
    fn pixel(&self, row: Option<usize>, x: usize, col: usize) -> [u8; NR] {
        let shape = self.shape;
        let mut lanes = self.padding();
        let Some(row) = row else { return lanes };
        for (i, lane) in lanes.iter_mut().take(shape.out_c - col).enumerate() {
            *lane = self.bytes[row + x * shape.in_c + (col + i) / shape.group_out_c()];
        }
        lanes
    }

    /// Bytes that stand for 0.
    #[inline(always)]
    fn padding(&self) -> [u8; NR] {
        [self.zero ^ self.flip; NR]
    }
}

/// [`NR`] channels of a row of pixels.
struct ChunkRow<'a> {
    /// From those of the first pixel on.
    bytes: &'a [u8],
    /// From one pixel to the next.
    step: usize,
}

impl ChunkRow<'_> {
    /// Whether there are so many pixels.
    #[inline(always)]
    fn holds(&self, pixels: usize) -> bool {
        pixels == 0 || (pixels - 1) * self.step + NR <= self.bytes.len()
    }

    /// # Safety
    /// The row holds more than `x` pixels.
    #[inline(always)]
    unsafe fn pixel(&self, x: usize) -> &[u8; NR] {
        // SAFETY: the caller's promise.
        unsafe { &*self.bytes.as_ptr().add(x * self.step).cast() }
    }
}

/// One task: lines of an image for some chunks of channels.
struct Band<'a, F> {
    weights: &'a DepthwiseI8,
    source: Source<'a>,
    lines: Range<usize>,
    chunks: Range<usize>,
    line_len: usize,
    ring: &'a mut [i16],
    finish: &'a F,
}

impl<F: Finish<Acc = i32>> Band<'_, F> {
    fn run_on(self, ctx: Ctx<'_>) {
        // SAFETY: the CPU has the level of `ctx.isa`.
        unsafe {
            match ctx.isa.level() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => Avx512Pairs::featured(On::<Avx512Pairs, F>::new(self)),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => Avx2Pairs::featured(On::<Avx2Pairs, F>::new(self)),
                _ => ScalarPairs::featured(On::<ScalarPairs, F>::new(self)),
            }
        }
    }
}

/// A band to be computed by the tile `P`.
struct On<'a, P, F> {
    band: Band<'a, F>,
    tile: std::marker::PhantomData<P>,
}

impl<'a, P: PairTile, F: Finish<Acc = i32>> On<'a, P, F> {
    /// # Safety
    /// The CPU has the level of `P`.
    unsafe fn new(band: Band<'a, F>) -> Self {
        On { band, tile: std::marker::PhantomData }
    }
}

impl<P: PairTile, F: Finish<Acc = i32>> Job for On<'_, P, F> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let (weights, shape) = (self.band.weights, self.band.source.shape);
        let slots = weights.slots();
        let mut prepared = 0;
        let mut rows = Vec::with_capacity(slots);
        let mut sums = Sums::new();
        for line in self.band.lines.clone() {
            let top = line * shape.stride[0];
            let start = &weights.starts[top % 2];
            let pairs = top / 2..top / 2 + start.pairs;
            for pair in pairs.start.max(prepared)..pairs.end {
                self.prepare(pair, pair % slots);
            }
            prepared = pairs.end;
            rows.clear();
            rows.extend(pairs.map(|pair| pair % slots * self.slot_len()));
            for chunk in self.band.chunks.clone() {
                self.line(line, chunk, start, &rows, &mut sums);
            }
        }
    }
}

impl<P: PairTile, F: Finish<Acc = i32>> On<'_, P, F> {
    fn slot_len(&self) -> usize {
        self.band.chunks.len() * self.band.line_len
    }

    /// Widens and interleaves rows `2 * pair` and `2 * pair + 1` of the padded image.
    #[inline(always)]
    fn prepare(&mut self, pair: usize, slot: usize) {
        let rows = [2 * pair, 2 * pair + 1].map(|row| self.band.source.row(row));
        let start = slot * self.slot_len();
        for (i, chunk) in self.band.chunks.clone().enumerate() {
            let shape = self.band.source.shape;
            let first = start + i * self.band.line_len;
            let col = chunk * NR;
            if shape.group_out_c() == 1 && col + NR <= shape.out_c {
                self.prepare_chunk::<true>(rows, first, col);
            } else {
                self.prepare_chunk::<false>(rows, first, col);
            }
        }
    }

    #[inline(always)]
    fn prepare_chunk<const FULL: bool>(
        &mut self,
        rows: [Option<usize>; 2],
        first: usize,
        col: usize,
    ) {
        let source = &self.band.source;
        let line = &mut self.band.ring[first..][..self.band.line_len];
        let columns = self.band.line_len / (2 * NR);
        let left = source.shape.pads[1].min(columns);
        let inside = source.shape.in_w.min(columns - left);
        let (before, rest) = line.split_at_mut(left * 2 * NR);
        let (body, after) = rest.split_at_mut(inside * 2 * NR);
        before.fill(0);
        after.fill(0);
        if !FULL {
            for (x, out) in body.chunks_exact_mut(2 * NR).enumerate() {
                let even = source.pixel(rows[0], x, col);
                let odd = source.pixel(rows[1], x, col);
                // SAFETY: `new` demands the level; `out` has 32 elements.
                unsafe { P::widen(&even, &odd, source.flip, source.zero, out.as_mut_ptr()) }
            }
            return;
        }
        let zeros = source.padding();
        let even = source.chunk_row(rows[0], col, &zeros);
        let odd = source.chunk_row(rows[1], col, &zeros);
        assert!(even.holds(inside) && odd.holds(inside), "the input is too short");
        for (x, out) in body.chunks_exact_mut(2 * NR).enumerate() {
            // SAFETY: `new` demands the level; `out` has 32 elements and both rows hold `inside`
            // pixels, which is the number of chunks.
            unsafe {
                let (even, odd) = (even.pixel(x), odd.pixel(x));
                P::widen(even, odd, source.flip, source.zero, out.as_mut_ptr());
            }
        }
    }

    /// One line of output pixels for one chunk of channels.
    #[inline(always)]
    fn line(
        &self,
        line: usize,
        chunk: usize,
        start: &PairWeights,
        rows: &[usize],
        sums: &mut Sums<i32>,
    ) {
        let shape = self.band.source.shape;
        let (col, out_w) = (chunk * NR, shape.out_w());
        let width = NR.min(shape.out_c - col);
        // A copy of its own, which stores through raw pointers cannot change.
        let finish = *self.band.finish;
        let columns = finish.columns(col, width);
        let group = start.pairs * shape.kernel[1] * 2 * NR;
        let weights = &start.weights[chunk * group..][..group];
        let first = (chunk - self.band.chunks.start) * self.band.line_len;
        let pixel = (self.band.source.image * shape.out_h() + line) * out_w;
        for start in (0..out_w).step_by(BATCH) {
            let count = BATCH.min(out_w - start);
            let mut x = 0;
            while x < count {
                let at = first + (start + x) * shape.stride[1] * 2 * NR;
                x += match count - x {
                    4.. => self.pixels::<4>(weights, rows, at, &mut sums.0[x..]),
                    2.. => self.pixels::<2>(weights, rows, at, &mut sums.0[x..]),
                    _ => self.pixels::<1>(weights, rows, at, &mut sums.0[x..]),
                };
            }
            let (row, sums) = (pixel + start, &sums.0[..count]);
            // SAFETY: `new` demands the level; each pixel is stored by one task.
            unsafe {
                if P::AVX2 {
                    finish.rows_avx2(&columns, row, col, width, sums);
                    continue;
                }
                for (i, sums) in sums.iter().enumerate() {
                    match width {
                        NR => finish.row::<true>(&columns, row + i, col, NR, sums),
                        _ => finish.row::<false>(&columns, row + i, col, width, sums),
                    }
                }
            }
        }
    }

    /// The sums of `N` neighbouring pixels whose first column is at `at` of each row of the ring.
    #[inline(always)]
    fn pixels<const N: usize>(
        &self,
        weights: &[i16],
        rows: &[usize],
        at: usize,
        sums: &mut [[i32; NR]],
    ) -> usize {
        let shape = self.band.source.shape;
        let step = Step {
            taps: shape.kernel[1],
            tap: shape.dilation[1] * 2 * NR,
            pixel: shape.stride[1] * 2 * NR,
        };
        let last = at + (N - 1) * step.pixel + (step.taps - 1) * step.tap + 2 * NR;
        assert!(rows.iter().all(|row| row + last <= self.band.ring.len()), "the ring is too short");
        let Some(sums) = sums.first_chunk_mut::<N>() else { panic!("no room for {N} pixels") };
        // SAFETY: `new` demands the level; the rows are within the ring by the check above, and
        // the weights hold one group per row and tap.
        unsafe { P::tile::<N>(self.band.ring.as_ptr().add(at), rows, step, weights.as_ptr(), sums) }
        N
    }
}
