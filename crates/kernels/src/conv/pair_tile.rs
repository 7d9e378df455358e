//! The innermost loops of the int8 depthwise convolution: a line of output pixels times [`NR`]
//! channels, from pairs of interleaved input rows. Written once, over what a register is.

use std::ops::Range;

use crate::cpu::Job;
use crate::gemm::kernel::NR;

/// From one column of the ring to the next: two rows of [`NR`] channels.
const COLUMN: usize = 2 * NR;

/// The kernel, in columns of the ring.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// Kernel columns.
    pub(super) taps: usize,
    /// From one kernel column to the next.
    pub(super) dilation: usize,
    /// From one output pixel to the next.
    pub(super) stride: usize,
}

/// A register of pairs of 16-bit numbers, which is one of 32-bit sums as well.
pub(super) trait Lanes {
    /// The register.
    type Register: Copy;
    /// Channels per register, a divisor of [`NR`].
    const CHANNELS: usize;
    /// Whether the instructions include AVX2.
    const AVX2: bool;

    /// Sums of 0.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn zero() -> Self::Register;

    /// # Safety
    /// The CPU has the instructions, and `2 * CHANNELS` elements are readable.
    unsafe fn load(pairs: *const i16) -> Self::Register;

    /// `sums` and the dot products of the pairs.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn add_products(
        sums: Self::Register,
        pairs: Self::Register,
        weights: Self::Register,
    ) -> Self::Register;

    /// # Safety
    /// The CPU has the instructions, and `CHANNELS` elements are writable.
    unsafe fn store(sums: Self::Register, out: *mut i32);

    /// Writes `(byte ^ flip) - zero` of both rows, interleaved.
    ///
    /// # Safety
    /// The CPU has the instructions; `2 * NR` elements are writable at `out`.
    unsafe fn widen(even: &[u8; NR], odd: &[u8; NR], flip: u8, zero: u8, out: *mut i16);

    /// Runs `job` compiled for the instructions.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn featured<J: Job>(job: J) -> J::Output;
}

/// The ring and the weights for one line of output pixels.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    /// Where the column of the first pixel begins in each pair of rows.
    pub(super) ring: *const i16,
    /// Pairs of rows, in elements from `ring`.
    pub(super) rows: &'a [usize],
    pub(super) step: Step,
    /// A group of [`NR`] pairs per pair of rows and kernel column.
    pub(super) weights: *const i16,
}

impl Line<'_> {
    /// The sums of the pixels `xs`, in `sums`.
    ///
    /// # Safety
    /// The CPU has the instructions. All columns that `rows` and `step` lead to are readable, for
    /// all pixels, the weights are complete, and `sums` has a row per pixel.
    #[inline(always)]
    pub(super) unsafe fn sums<L: Lanes>(&self, xs: Range<usize>, sums: &mut [[i32; NR]]) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.rows.len(), self.step.taps, self.step.stride, self.step.dilation) {
                (2, 3, 1, 1) => self.slide::<L, 2, 3, 1>(xs, sums),
                (2, 3, 2, 1) => self.slide::<L, 2, 3, 2>(xs, sums),
                (3, 5, 1, 1) => self.blocks::<L, 3, 5, 1, 4>(xs, sums),
                (3, 5, 2, 1) => self.blocks::<L, 3, 5, 2, 4>(xs, sums),
                _ => self.any::<L>(xs, sums),
            }
        }
    }

    /// Small kernels of known size: weights and the columns under them stay in registers.
    ///
    /// # Safety
    /// As [`Line::sums`].
    #[inline(always)]
    unsafe fn slide<L: Lanes, const PAIRS: usize, const TAPS: usize, const STRIDE: usize>(
        &self,
        xs: Range<usize>,
        sums: &mut [[i32; NR]],
    ) {
        let Some(rows) = self.rows.first_chunk::<PAIRS>() else { return };
        for first in (0..NR).step_by(L::CHANNELS) {
            // SAFETY: the caller's promise.
            unsafe {
                let ring = self.ring.add(xs.start * STRIDE * COLUMN + 2 * first);
                let weights = self.weights.add(2 * first);
                Slide::<L, PAIRS, TAPS, STRIDE>::new(ring, rows, weights).run(first, sums);
            }
        }
    }

    /// Larger kernels of known size: `N` pixels at a time share weights in registers.
    ///
    /// # Safety
    /// As [`Line::sums`].
    #[inline(always)]
    unsafe fn blocks<
        L: Lanes,
        const PAIRS: usize,
        const TAPS: usize,
        const STRIDE: usize,
        const N: usize,
    >(
        &self,
        xs: Range<usize>,
        sums: &mut [[i32; NR]],
    ) {
        let Some(rows) = self.rows.first_chunk::<PAIRS>() else { return };
        for first in (0..NR).step_by(L::CHANNELS) {
            let mut x = 0;
            while x < xs.len() {
                // SAFETY: the caller's promise.
                unsafe {
                    let ring = self.ring.add((xs.start + x) * STRIDE * COLUMN + 2 * first);
                    let weights = self.weights.add(2 * first);
                    x += match sums[x..xs.len()].first_chunk_mut::<N>() {
                        Some(sums) => {
                            block::<L, PAIRS, TAPS, STRIDE, N>(ring, rows, weights, first, sums);
                            N
                        }
                        None => {
                            let sums = std::array::from_mut(&mut sums[x]);
                            block::<L, PAIRS, TAPS, STRIDE, 1>(ring, rows, weights, first, sums);
                            1
                        }
                    }
                }
            }
        }
    }

    /// Any other kernel.
    ///
    /// # Safety
    /// As [`Line::sums`].
    #[inline(always)]
    unsafe fn any<L: Lanes>(&self, xs: Range<usize>, sums: &mut [[i32; NR]]) {
        let Step { taps, dilation, stride } = self.step;
        for (x, sums) in xs.zip(sums) {
            for first in (0..NR).step_by(L::CHANNELS) {
                // SAFETY: the caller's promise.
                unsafe {
                    let mut acc = L::zero();
                    for (i, row) in self.rows.iter().enumerate() {
                        let pairs = self.ring.add(row + x * stride * COLUMN + 2 * first);
                        let weights = self.weights.add(i * taps * COLUMN + 2 * first);
                        for tap in 0..taps {
                            let pairs = L::load(pairs.add(tap * dilation * COLUMN));
                            acc = L::add_products(acc, pairs, L::load(weights.add(tap * COLUMN)));
                        }
                    }
                    L::store(acc, sums.as_mut_ptr().add(first));
                }
            }
        }
    }
}

/// A window of the kernel's size, of the channels of one register, that slides over pairs of rows.
struct Slide<L: Lanes, const PAIRS: usize, const TAPS: usize, const STRIDE: usize> {
    /// The next columns to come in.
    next: [*const i16; PAIRS],
    window: [[L::Register; TAPS]; PAIRS],
    weights: [[L::Register; TAPS]; PAIRS],
}

impl<L: Lanes, const PAIRS: usize, const TAPS: usize, const STRIDE: usize>
    Slide<L, PAIRS, TAPS, STRIDE>
{
    /// Before the first pixel: the last columns of the window are still to come in.
    ///
    /// # Safety
    /// As [`Line::sums`].
    #[inline(always)]
    unsafe fn new(ring: *const i16, rows: &[usize; PAIRS], weights: *const i16) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let mut slide = Slide {
                next: [ring; PAIRS],
                window: [[L::zero(); TAPS]; PAIRS],
                weights: [[L::zero(); TAPS]; PAIRS],
            };
            for (i, row) in rows.iter().enumerate() {
                for tap in 0..TAPS {
                    slide.weights[i][tap] = L::load(weights.add((i * TAPS + tap) * COLUMN));
                    if tap < TAPS - STRIDE {
                        slide.window[i][tap] = L::load(ring.add(row + tap * COLUMN));
                    }
                }
                slide.next[i] = ring.add(row + (TAPS - STRIDE) * COLUMN);
            }
            slide
        }
    }

    /// The sums of all pixels, from the channel `first` on.
    ///
    /// # Safety
    /// As [`Line::sums`].
    #[inline(always)]
    unsafe fn run(mut self, first: usize, sums: &mut [[i32; NR]]) {
        for sums in sums {
            // SAFETY: the caller's promise.
            unsafe {
                let mut acc = L::zero();
                for i in 0..PAIRS {
                    for new in 0..STRIDE {
                        let column = self.next[i].add(new * COLUMN);
                        self.window[i][TAPS - STRIDE + new] = L::load(column);
                    }
                    self.next[i] = self.next[i].wrapping_add(STRIDE * COLUMN);
                    for tap in 0..TAPS {
                        acc = L::add_products(acc, self.window[i][tap], self.weights[i][tap]);
                    }
                    for tap in STRIDE..TAPS {
                        self.window[i][tap - STRIDE] = self.window[i][tap];
                    }
                }
                L::store(acc, sums.as_mut_ptr().add(first));
            }
        }
    }
}

/// The sums of `N` pixels side by side, from the channel `first` on.
///
/// # Safety
/// As [`Line::sums`].
#[inline(always)]
unsafe fn block<
    L: Lanes,
    const PAIRS: usize,
    const TAPS: usize,
    const STRIDE: usize,
    const N: usize,
>(
    ring: *const i16,
    rows: &[usize; PAIRS],
    weights: *const i16,
    first: usize,
    sums: &mut [[i32; NR]; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [L::zero(); N];
        for (i, row) in rows.iter().enumerate() {
            let pairs = ring.add(*row);
            let weights = weights.add(i * TAPS * COLUMN);
            for tap in 0..TAPS {
                let factor = L::load(weights.add(tap * COLUMN));
                for (n, acc) in acc.iter_mut().enumerate() {
                    let pairs = L::load(pairs.add((n * STRIDE + tap) * COLUMN));
                    *acc = L::add_products(*acc, pairs, factor);
                }
            }
        }
        for (sums, acc) in sums.iter_mut().zip(acc) {
            L::store(acc, sums.as_mut_ptr().add(first));
        }
    }
}

/// One channel: the scalar twin.
pub(super) struct Single;

impl Lanes for Single {
    /// One sum, or the bits of a pair.
    type Register = i32;
    const CHANNELS: usize = 1;
    const AVX2: bool = false;

    #[inline(always)]
    unsafe fn zero() -> i32 {
        0
    }

    #[inline(always)]
    unsafe fn load(pairs: *const i16) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { pairs.cast::<i32>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn add_products(sums: i32, pairs: i32, weights: i32) -> i32 {
        let halves = |bits: i32| bytemuck::cast::<i32, [i16; 2]>(bits).map(i32::from);
        let ([a, b], [c, d]) = (halves(pairs), halves(weights));
        sums.wrapping_add(a.wrapping_mul(c)).wrapping_add(b.wrapping_mul(d))
    }

    #[inline(always)]
    unsafe fn store(sums: i32, out: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe { *out = sums }
    }

    unsafe fn widen(even: &[u8; NR], odd: &[u8; NR], flip: u8, zero: u8, out: *mut i16) {
        // SAFETY: the caller's promise.
        let out = unsafe { std::slice::from_raw_parts_mut(out, 2 * NR) };
        for (i, out) in out.iter_mut().enumerate() {
            let byte = if i % 2 == 0 { even[i / 2] } else { odd[i / 2] };
            *out = i16::from(byte ^ flip) - i16::from(zero);
        }
    }

    unsafe fn featured<J: Job>(job: J) -> J::Output {
        job.run()
    }
}
