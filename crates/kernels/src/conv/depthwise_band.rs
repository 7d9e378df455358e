//! One task of the int8 depthwise convolution: output lines of an image, for some chunks of
//! channels. See [`super::depthwise_i8`].

use std::ops::Range;

use super::depthwise_i8::{DepthwiseI8, block_lines};
use super::pair_tile::{Lanes, Line, Single, Step};
#[cfg(target_arch = "aarch64")]
use super::pair_tile_arm::NeonLanes;
#[cfg(target_arch = "x86_64")]
use super::pair_tile_x86::{Avx2Lanes, Avx512Lanes};
use super::shape::ConvShape;
use crate::cpu::{Ctx, Job, Level};
use crate::gemm::driver::Finish;
use crate::gemm::kernel::{BATCH, NR, Sums};

/// One image of the input.
pub(super) struct Source<'a> {
    pub(super) shape: &'a ConvShape,
    pub(super) bytes: &'a [u8],
    /// Turns a byte into its unsigned form.
    pub(super) flip: u8,
    /// Zero point of the unsigned form.
    pub(super) zero: u8,
    pub(super) image: usize,
}

impl Source<'_> {
    /// Where the row starts that has number `row` in the padded image; `None` in the padding.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> Option<usize> {
        let shape = self.shape;
        let row = row.wrapping_sub(shape.pads[0]);
        if row >= shape.in_h {
            return None;
        }
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
pub(super) struct Band<'a, F> {
    pub(super) weights: &'a DepthwiseI8,
    pub(super) source: Source<'a>,
    pub(super) lines: Range<usize>,
    pub(super) chunks: Range<usize>,
    /// Pairs of rows in the ring.
    pub(super) slots: usize,
    /// i16 elements of one prepared pair of rows, per chunk.
    pub(super) line_len: usize,
    pub(super) ring: &'a mut [i16],
    pub(super) finish: &'a F,
}

impl<F: Finish<Acc = i32>> Band<'_, F> {
    pub(super) fn run_on(self, ctx: Ctx<'_>) {
        // SAFETY: the CPU has the level of `ctx.isa`.
        unsafe {
            match ctx.isa.level() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => Avx512Lanes::featured(On::<Avx512Lanes, F>::new(self)),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => Avx2Lanes::featured(On::<Avx2Lanes, F>::new(self)),
                #[cfg(target_arch = "aarch64")]
                Level::Neon | Level::Dotprod | Level::I8mm => {
                    NeonLanes::featured(On::<NeonLanes, F>::new(self));
                }
                _ => Single::featured(On::<Single, F>::new(self)),
            }
        }
    }
}

/// A band to be computed in the registers `P`.
struct On<'a, P, F> {
    band: Band<'a, F>,
    tile: std::marker::PhantomData<P>,
}

impl<'a, P: Lanes, F: Finish<Acc = i32>> On<'a, P, F> {
    /// # Safety
    /// The CPU has the level of `P`.
    unsafe fn new(band: Band<'a, F>) -> Self {
        On { band, tile: std::marker::PhantomData }
    }
}

impl<P: Lanes, F: Finish<Acc = i32>> Job for On<'_, P, F> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let (weights, shape) = (self.band.weights, self.band.source.shape);
        let (lines, slots) = (self.band.lines.clone(), self.band.slots);
        self.clear_margins();
        let mut prepared = 0;
        let mut rows = Vec::new();
        let mut sums = Sums::new();
        for first in lines.clone().step_by(block_lines(shape)) {
            let block = first..lines.end.min(first + block_lines(shape));
            rows.clear();
            for line in block.clone() {
                let top = line * shape.stride[0];
                let pairs = top / 2..top / 2 + weights.starts[top % 2].pairs;
                for pair in pairs.start.max(prepared)..pairs.end {
                    self.prepare(pair, pair % slots);
                }
                prepared = prepared.max(pairs.end);
                rows.push(pairs.map(|pair| pair % slots * self.slot_len()).collect());
            }
            for chunk in self.band.chunks.clone() {
                self.block(first, &rows, chunk, &mut sums);
            }
        }
    }
}

impl<P: Lanes, F: Finish<Acc = i32>> On<'_, P, F> {
    fn slot_len(&self) -> usize {
        self.band.chunks.len() * self.band.line_len
    }

    /// Columns of a prepared row left of the image, and inside of it.
    #[inline(always)]
    fn margins(&self) -> (usize, usize) {
        let shape = self.band.source.shape;
        let columns = self.band.line_len / (2 * NR);
        let left = shape.pads[1].min(columns);
        (left, shape.in_w.min(columns - left))
    }

    /// Zeros to both sides of the image, in all slots.
    #[inline(always)]
    fn clear_margins(&mut self) {
        let (left, inside) = self.margins();
        for line in self.band.ring.chunks_exact_mut(self.band.line_len) {
            line[..left * 2 * NR].fill(0);
            line[(left + inside) * 2 * NR..].fill(0);
        }
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
        let (left, inside) = self.margins();
        let source = &self.band.source;
        let line = &mut self.band.ring[first..][..self.band.line_len];
        let body = &mut line[left * 2 * NR..][..inside * 2 * NR];
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

    /// Output lines from `line` on for one chunk of channels, with the pairs of rows of each.
    #[inline(always)]
    fn block(&self, line: usize, rows: &[Vec<usize>], chunk: usize, sums: &mut Sums<i32>) {
        let shape = self.band.source.shape;
        let out_w = shape.out_w();
        let columns = self.band.finish.columns(chunk * NR, NR.min(shape.out_c - chunk * NR));
        let mut pixel = (self.band.source.image * shape.out_h() + line) * out_w;
        let mut count = 0;
        for (i, rows) in rows.iter().enumerate() {
            let start = &self.band.weights.starts[(line + i) * shape.stride[0] % 2];
            let weights = start.chunk(chunk, shape.kernel[1]);
            let first = (chunk - self.band.chunks.start) * self.band.line_len;
            let line = self.ring_line(first, rows, weights, out_w);
            let mut x = 0;
            while x < out_w {
                let more = (BATCH - count).min(out_w - x);
                // SAFETY: `new` demands the level; `ring_line` checked the ring and the weights.
                unsafe { line.sums::<P>(x..x + more, &mut sums.0[count..count + more]) }
                (x, count) = (x + more, count + more);
                if count == BATCH {
                    self.store(&columns, pixel, chunk, &sums.0[..count]);
                    (pixel, count) = (pixel + count, 0);
                }
            }
        }
        self.store(&columns, pixel, chunk, &sums.0[..count]);
    }

    /// Finishes pixels from `row` on.
    #[inline(always)]
    fn store(&self, columns: &F::Columns, row: usize, chunk: usize, sums: &[[i32; NR]]) {
        if sums.is_empty() {
            return;
        }
        let (col, out_c) = (chunk * NR, self.band.source.shape.out_c);
        let width = NR.min(out_c - col);
        // A copy of its own, which stores through raw pointers cannot change.
        let finish = *self.band.finish;
        // SAFETY: `new` demands the level; each pixel is stored by one task.
        unsafe {
            if P::AVX2 {
                return finish.rows_avx2(columns, row, col, width, sums);
            }
            for (i, sums) in sums.iter().enumerate() {
                match width {
                    NR => finish.row::<true>(columns, row + i, col, NR, sums),
                    _ => finish.row::<false>(columns, row + i, col, width, sums),
                }
            }
        }
    }

    /// The line of pixels whose first column is at `first` of each row of the ring.
    #[inline(always)]
    fn ring_line<'l>(
        &self,
        first: usize,
        rows: &'l [usize],
        weights: &[i16],
        pixels: usize,
    ) -> Line<'l> {
        let shape = self.band.source.shape;
        let (taps, dilation, stride) = (shape.kernel[1], shape.dilation[1], shape.stride[1]);
        let columns = pixels.saturating_sub(1) * stride + (taps - 1) * dilation + 1;
        let end = first + columns * 2 * NR;
        let ring = &self.band.ring;
        assert!(rows.iter().all(|row| row + end <= ring.len()), "the ring is too short");
        assert!(weights.len() >= rows.len() * taps * 2 * NR, "weights are missing");
        let step = Step { taps, dilation, stride };
        Line { ring: ring[first..].as_ptr(), rows, step, weights: weights.as_ptr() }
    }
}
