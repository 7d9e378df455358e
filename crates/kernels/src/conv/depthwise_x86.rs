//! f32 depthwise convolution with AVX2 for kernels that are 3 or 5 wide: up to eight neighbouring
//! outputs of eight channels in registers, so that each weight is loaded once for them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::depthwise::taps;
use super::depthwise_f32::Line;
use super::shape::ConvShape;
use crate::cpu::Job;
use crate::gemm::kernel::{NR, prefetch};

/// Channels of a register.
const LANES: usize = 8;

/// Weights by eight channels, then row and column of the kernel.
pub(super) struct Octets(Vec<[f32; LANES]>);

impl Octets {
    /// Whether there is a window of this kernel and these steps.
    pub(super) fn fit(shape: &ConvShape) -> bool {
        let window = matches!((shape.kernel[1], shape.stride[1]), (3 | 5, 1 | 2));
        let plain = shape.dilation[1] == 1 && shape.in_c == shape.out_c;
        window && plain && shape.out_c.is_multiple_of(LANES)
    }

    /// Packs weights in the order out channel, row, column, where they [`fit`](Octets::fit). The
    /// size of the image does not matter.
    pub(super) fn new(shape: &ConvShape, weights: &[f32]) -> Option<Octets> {
        if !Octets::fit(shape) {
            return None;
        }
        let taps = shape.kernel[0] * shape.kernel[1];
        let octet = |i: usize| {
            let first = i / taps * LANES;
            std::array::from_fn(|lane| weights[shape.weight_index(i % taps, first + lane)])
        };
        Some(Octets((0..shape.out_c / LANES * taps).map(octet).collect()))
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }
}

/// One row of output pixels, for processors with AVX2 only.
pub(super) struct Sliding<'a> {
    pub(super) line: Line<'a>,
    pub(super) octets: &'a Octets,
}

impl Job for Sliding<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Sliding { line, octets } = &self;
        let shape = line.shape;
        let taps_of = shape.kernel[0] * shape.kernel[1];
        assert_eq!(octets.0.len(), shape.out_c / LANES * taps_of, "weights of other channels");
        let (image, y) = (line.line / shape.out_h(), line.line % shape.out_h());
        let rows = taps(shape, 0, shape.in_h, y);
        let line_len = shape.in_w * shape.in_c;
        let inputs = rows.clone().map(|ky| {
            let in_y = y * shape.stride[0] + ky * shape.dilation[0] - shape.pads[0];
            line.input[(image * shape.in_h + in_y) * line_len..][..line_len].as_ptr()
        });
        let window = Window {
            line,
            inputs: inputs.collect(),
            weights: octets.0[rows.start * shape.kernel[1]..].as_ptr(),
            taps: taps_of,
        };
        // SAFETY: the CPU has AVX2; the rows of the window lie in the image, by the slices above.
        unsafe {
            match (shape.kernel[1], shape.stride[1]) {
                (3, 1) => window.slide::<3, 1>(),
                (3, _) => window.slide::<3, 2>(),
                (_, 1) => window.slide::<5, 1>(),
                _ => window.slide::<5, 2>(),
            }
        }
    }
}

/// The rows of the image that a row of output pixels depends on.
struct Window<'a> {
    line: &'a Line<'a>,
    /// The first pixel of each.
    inputs: Vec<*const f32>,
    /// The weights of the first row, for the first eight channels.
    weights: *const [f32; LANES],
    /// From those of eight channels to the next.
    taps: usize,
}

/// The most columns of a window.
const MOST: usize = 7 * 2 + 5;

impl Window<'_> {
    /// All pixels and channels.
    ///
    /// # Safety
    /// The CPU has AVX2; the kernel is `KW` wide and moves by `S`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn slide<const KW: usize, const S: usize>(&self) {
        let out_w = self.line.shape.out_w();
        let mut x = 0;
        while x < out_w {
            let left = out_w - x;
            // SAFETY: the caller's promise.
            unsafe {
                x += match left {
                    7 | 14 | 15 | 21 | 28 => self.tile::<KW, S, 7>(x),
                    8.. => self.tile::<KW, S, 8>(x),
                    4.. => self.tile::<KW, S, 4>(x),
                    2.. => self.tile::<KW, S, 2>(x),
                    _ => self.tile::<KW, S, 1>(x),
                };
            }
        }
    }

    /// All channels of the `P` pixels from `x` on; `P`.
    ///
    /// # Safety
    /// As [`Window::slide`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const KW: usize, const S: usize, const P: usize>(&self, x: usize) -> usize {
        let shape = self.line.shape;
        let (pad, start, width) = (shape.pads[1], x * S, (P - 1) * S + KW);
        // Columns of the window that lie in the image.
        let first = pad.saturating_sub(start).min(width);
        let end = (shape.in_w + pad).saturating_sub(start).min(width).max(first);
        let from = (start * shape.in_c).wrapping_sub(pad * shape.in_c);
        let row = self.line.line * shape.out_w() + x;
        let mut columns = [[0.0; LANES]; MOST];
        let next = self.next::<S, P>(x);
        for octet in 0..shape.out_c / LANES {
            let from = from.wrapping_add(octet * LANES);
            let mut sums = [_mm256_setzero_ps(); P];
            for &(place, lines) in &next {
                for line in 0..lines {
                    prefetch(place.wrapping_add((octet * lines + line) * NR));
                }
            }
            // SAFETY: the caller's promise; columns out of the image are not read; each pixel
            // belongs to one task, which stores it once.
            unsafe {
                let mut weights = self.weights.add(octet * self.taps).cast();
                for &input in &self.inputs {
                    let input = input.wrapping_add(from);
                    if end - first == width {
                        add::<KW, S, P>(&mut sums, input, shape.in_c, weights);
                    } else {
                        copy(&mut columns, first..end, input, shape.in_c);
                        add::<KW, S, P>(&mut sums, columns.as_ptr().cast(), LANES, weights);
                    }
                    weights = weights.add(KW * LANES);
                }
                self.line.finish.eights(row, octet * LANES, &sums);
            }
        }
        P
    }
}

impl Window<'_> {
    /// What the `P` pixels behind those at `x` read for the first time, and where they are stored:
    /// where it begins, and how many lines of it are to be asked for with each eight channels.
    fn next<const S: usize, const P: usize>(&self, x: usize) -> [(*const f32, usize); 3] {
        let shape = self.line.shape;
        let input = |row: usize| {
            let place = self.inputs[self.inputs.len().saturating_sub(1 + row)];
            place.wrapping_add((x + P) * S * shape.in_c)
        };
        let out = self.line.finish.at((self.line.line * shape.out_w()) + x + P);
        let rows = if self.inputs.is_empty() { 0 } else { (P * S).div_ceil(2) };
        let more = if S > 1 && self.inputs.len() > 1 { rows } else { 0 };
        if rows == 0 {
            return [(out, P.div_ceil(2)), (out, 0), (out, 0)];
        }
        [(out, P.div_ceil(2)), (input(0), rows), (if more > 0 { input(1) } else { out }, more)]
    }
}

/// Copies the columns that lie in the image; `input` is where the first of all would be.
///
/// # Safety
/// The CPU has AVX2; the columns are readable, `step` elements apart.
#[inline(always)]
unsafe fn copy(
    columns: &mut [[f32; LANES]; MOST],
    inside: Range<usize>,
    input: *const f32,
    step: usize,
) {
    let mut from = input.wrapping_add(inside.start * step);
    for column in &mut columns[inside] {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(column.as_mut_ptr(), _mm256_loadu_ps(from)) }
        from = from.wrapping_add(step);
    }
}

/// Adds the products of one row of the kernel, in order, to the sums of `P` pixels.
///
/// # Safety
/// The CPU has AVX2; eight channels of each column are readable, `step` elements apart, and `KW`
/// times eight weights.
#[inline(always)]
unsafe fn add<const KW: usize, const S: usize, const P: usize>(
    sums: &mut [__m256; P],
    input: *const f32,
    step: usize,
    weights: *const f32,
) {
    for kx in 0..KW {
        // SAFETY: the caller's promise.
        unsafe {
            let weight = _mm256_loadu_ps(weights.add(kx * LANES));
            for (p, sum) in sums.iter_mut().enumerate() {
                let value = _mm256_loadu_ps(input.add((p * S + kx) * step));
                *sum = _mm256_fmadd_ps(value, weight, *sum);
            }
        }
    }
}
