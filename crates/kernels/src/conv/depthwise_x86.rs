//! f32 depthwise convolution with AVX2 for kernels that are 3 or 5 wide: up to eight neighbouring
//! outputs of eight channels in registers, so that each input and weight is loaded once for them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::depthwise::taps;
use super::depthwise_f32::Line;
use super::shape::ConvShape;
use crate::cpu::Job;

/// Channels of a register.
const LANES: usize = 8;

/// One row of output pixels, for processors with AVX2 only.
pub(super) struct Sliding<'a>(pub(super) Line<'a>);

impl Sliding<'_> {
    /// Whether there is a window of this kernel and these steps.
    pub(super) fn fits(shape: &ConvShape) -> bool {
        let window = matches!((shape.kernel[1], shape.stride[1]), (3 | 5, 1 | 2));
        window
            && shape.dilation[1] == 1
            && shape.in_c == shape.out_c
            && shape.out_c.is_multiple_of(LANES)
    }
}

impl Job for Sliding<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let shape = self.0.shape;
        let (image, y) = (self.0.line / shape.out_h(), self.0.line % shape.out_h());
        let rows = taps(shape, 0, shape.in_h, y);
        let from_top = y * shape.stride[0] + rows.start * shape.dilation[0];
        let line_len = shape.in_w * shape.in_c;
        let first = match rows.is_empty() {
            true => 0,
            false => (image * shape.in_h + from_top - shape.pads[0]) * line_len,
        };
        let step = shape.dilation[0] * line_len;
        let (len, kernel_w) = (rows.len(), shape.kernel[1]);
        assert!(len == 0 || first + (len - 1) * step + line_len <= self.0.input.len());
        assert_eq!(self.0.weights.len(), shape.kernel[0] * kernel_w * shape.out_c);
        let weights = &self.0.weights[rows.start * kernel_w * shape.out_c..];
        let window = Window {
            input: self.0.input[first..].as_ptr(),
            step,
            rows: len,
            weights: weights.as_ptr(),
            channels: shape.out_c,
        };
        // SAFETY: the CPU has AVX2; the rows of the window lie in the image, by the checks above.
        unsafe {
            match (kernel_w, shape.stride[1]) {
                (3, 1) => self.slide::<3, 1>(&window),
                (3, _) => self.slide::<3, 2>(&window),
                (_, 1) => self.slide::<5, 1>(&window),
                _ => self.slide::<5, 2>(&window),
            }
        }
    }
}

/// The rows of the image that a row of output pixels depends on.
struct Window {
    /// The first pixel of the first one.
    input: *const f32,
    /// From one to the next, in elements.
    step: usize,
    rows: usize,
    /// The weights of the first one, by column and channel.
    weights: *const f32,
    channels: usize,
}

impl Sliding<'_> {
    /// All pixels and channels.
    ///
    /// # Safety
    /// The CPU has AVX2; the window fits the shape, whose kernel is `KW` wide and moves by `S`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn slide<const KW: usize, const S: usize>(&self, window: &Window) {
        let out_w = self.0.shape.out_w();
        let mut x = 0;
        while x < out_w {
            // SAFETY: the caller's promise.
            unsafe {
                x += match (out_w - x, (out_w - x) % 8) {
                    (8.., 0) => self.tile::<KW, S, 8>(window, x),
                    (7, _) | (14.., _) => self.tile::<KW, S, 7>(window, x),
                    (8.., _) => self.tile::<KW, S, 8>(window, x),
                    (4.., _) => self.tile::<KW, S, 4>(window, x),
                    (2.., _) => self.tile::<KW, S, 2>(window, x),
                    _ => self.tile::<KW, S, 1>(window, x),
                };
            }
        }
    }

    /// All channels of the `P` pixels from `x` on; `P`.
    ///
    /// # Safety
    /// As [`Sliding::slide`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const KW: usize, const S: usize, const P: usize>(
        &self,
        window: &Window,
        x: usize,
    ) -> usize {
        let shape = self.0.shape;
        let (pad, start, width) = (shape.pads[1], x * S, (P - 1) * S + KW);
        // Columns of the window that lie in the image.
        let first = pad.saturating_sub(start).min(width);
        let end = (shape.in_w + pad).saturating_sub(start).min(width).max(first);
        let row = self.0.line * shape.out_w() + x;
        let mut columns = Columns([[0.0; LANES]; MOST]);
        for col in (0..shape.out_c).step_by(LANES) {
            let mut sums = [_mm256_setzero_ps(); P];
            for ky in 0..window.rows {
                let input = window.input.wrapping_add(ky * window.step + col);
                let input = input.wrapping_add(start * shape.in_c).wrapping_sub(pad * shape.in_c);
                let weights = window.weights.wrapping_add(ky * KW * window.channels + col);
                // SAFETY: the caller's promise; columns out of the image are not read.
                unsafe {
                    if end - first == width {
                        add::<KW, S, P>(
                            &mut sums,
                            input,
                            window.channels,
                            weights,
                            window.channels,
                        );
                    } else {
                        columns.copy(first..end, input, window.channels);
                        let input = columns.0.as_ptr().cast();
                        add::<KW, S, P>(&mut sums, input, LANES, weights, window.channels);
                    }
                }
            }
            // SAFETY: the CPU has AVX2; each pixel belongs to one task, which stores it once.
            unsafe { self.0.finish.eights(row, col, &sums) }
        }
        P
    }
}

/// The most columns of a window.
const MOST: usize = 7 * 2 + 5;

/// A window's columns in one row, zero where they lie out of the image.
struct Columns([[f32; LANES]; MOST]);

impl Columns {
    /// Copies those that lie in the image; `input` is where the first of all would be.
    ///
    /// # Safety
    /// The CPU has AVX2; the columns are readable, `step` elements apart.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn copy(&mut self, inside: Range<usize>, input: *const f32, step: usize) {
        for (c, column) in self.0.iter_mut().enumerate().take(inside.end).skip(inside.start) {
            // SAFETY: the caller's promise.
            unsafe {
                let value = _mm256_loadu_ps(input.wrapping_add(c * step));
                _mm256_storeu_ps(column.as_mut_ptr(), value);
            }
        }
    }
}

/// Adds the products of one row of the kernel, in order, to the sums of `P` pixels.
///
/// # Safety
/// The CPU has AVX2; eight channels of each column are readable, `step` elements apart, and of
/// each weight, `turn` elements apart.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add<const KW: usize, const S: usize, const P: usize>(
    sums: &mut [__m256; P],
    input: *const f32,
    step: usize,
    weights: *const f32,
    turn: usize,
) {
    for kx in 0..KW {
        // SAFETY: the caller's promise.
        let weight = unsafe { _mm256_loadu_ps(weights.add(kx * turn)) };
        for (p, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let value = unsafe { _mm256_loadu_ps(input.add((p * S + kx) * step)) };
            *sum = _mm256_fmadd_ps(value, weight, *sum);
        }
    }
}
