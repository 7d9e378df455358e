//! Four rows of the image, interleaved byte by byte.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
use std::ops::Range;

use super::image::Image;
use super::{BLOCK, Block, PARTS, QUAD, mask};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::scratch::Line;

/// One row of the image for a block of channels, or of what surrounds the image.
#[derive(Clone, Copy)]
struct Row {
    /// The block at the first column of the padded image.
    first: *const u8,
    /// From one column to the next.
    column: usize,
}

/// Four rows of the padded image for a block of channels.
pub(super) struct Quad {
    rows: [Row; QUAD],
    /// Channels of the block.
    width: usize,
    /// Columns of the padded image that lie inside the image.
    inside: Range<usize>,
    /// Turns a byte into its unsigned form.
    flip: u8,
    /// What surrounds the image, in unsigned form.
    zero: u8,
}

impl Quad {
    /// The rows from `top` of the padded image on. Those that lie outside read `padding`, which must
    /// live as long as words are made.
    #[inline(always)]
    pub(super) fn new(image: &Image<'_>, block: Block, top: usize, padding: &[u8; BLOCK]) -> Quad {
        let left = image.shape.pads[1];
        let mut rows = [Row { first: padding.as_ptr(), column: 0 }; QUAD];
        for (i, row) in rows.iter_mut().enumerate() {
            if let Some(bytes) = image.row(top + i) {
                let first = bytes.as_ptr().wrapping_add(image.place(block.col));
                let first = first.wrapping_sub(left * image.step());
                *row = Row { first, column: image.step() };
            }
        }
        let inside = left..left + image.shape.in_w;
        Quad { rows, width: block.width, inside, flip: image.flip, zero: image.zero }
    }

    /// The words of a column.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW; image and padding are readable; the block has 64 channels if it is
    /// `FULL`.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    unsafe fn words<const FULL: bool>(&self, column: usize) -> [__m512i; PARTS] {
        if !self.inside.contains(&column) {
            return [_mm512_set1_epi8(self.zero.cast_signed()); PARTS];
        }
        let flip = _mm512_set1_epi8(self.flip.cast_signed());
        let mut blocks = [flip; QUAD];
        for (block, row) in blocks.iter_mut().zip(&self.rows) {
            let first = row.first.wrapping_add(column * row.column);
            // SAFETY: the caller's promise.
            let bytes = unsafe {
                match FULL {
                    true => _mm512_loadu_si512(first.cast()),
                    false => _mm512_maskz_loadu_epi8(mask(self.width), first.cast()),
                }
            };
            *block = _mm512_xor_si512(bytes, flip);
        }
        interleaved(blocks)
    }
}

/// Where words go: [`PARTS`] lines for each column.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Those of the first column.
    pub(super) first: *mut Line,
    /// From one column to the next.
    pub(super) step: usize,
}

impl Place {
    /// Stores the words of the columns, the first of which comes first, as in
    /// [`Quad::words`]. Columns are seen only if their number, modulo `step`, is below `taps`.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW, the rows of the image are readable, and there is room for all
    /// columns.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn fill<const FULL: bool>(
        &self,
        quad: &Quad,
        columns: Range<usize>,
        [taps, step]: [usize; 2],
    ) {
        let (mut out, mut phase) = (self.first, columns.start % step);
        for column in columns {
            if phase < taps {
                // SAFETY: the caller's promise.
                unsafe {
                    for (part, words) in quad.words::<FULL>(column).into_iter().enumerate() {
                        _mm512_storeu_si512(out.add(part).cast(), words);
                    }
                }
            }
            out = out.wrapping_add(self.step);
            phase = if phase + 1 == step { 0 } else { phase + 1 };
        }
    }
}

/// Four rows byte by byte.
#[inline]
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
fn interleaved([a, b, c, d]: [__m512i; QUAD]) -> [__m512i; PARTS] {
    let low = [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)];
    let high = [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)];
    [
        _mm512_unpacklo_epi16(low[0], low[1]),
        _mm512_unpackhi_epi16(low[0], low[1]),
        _mm512_unpacklo_epi16(high[0], high[1]),
        _mm512_unpackhi_epi16(high[0], high[1]),
    ]
}
