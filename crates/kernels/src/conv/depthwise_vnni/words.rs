//! Four rows of the image, interleaved byte by byte.

#[cfg(not(feature = "avx512-model"))]
use std::arch::x86_64::*;
use std::ops::Range;

use super::image::Image;
use super::stack::load;
use super::{BLOCK, Block, PARTS, QUAD};
#[cfg(feature = "avx512-model")]
use crate::avx512_model::*;
use crate::scratch::Line;

/// One row of the image for a block of channels, or of what surrounds the image.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// The block at the first column of the padded image.
    first: *const u8,
    /// From one column to the next.
    column: usize,
    /// From one pixel of a block to the next.
    pixel: usize,
}

/// Four rows of the padded image for a block of channels, of pixels `stride` columns apart.
pub(super) struct Quad<'a> {
    image: &'a Image<'a>,
    block: Block,
    /// Those that lie in the image.
    inner: [Option<&'a [u8]>; QUAD],
    rows: [Row; QUAD],
    /// Columns of the padded image all of whose pixels lie inside the image.
    inside: Range<usize>,
}

impl<'a> Quad<'a> {
    /// The rows from `top` of the padded image on. Those that lie outside read `padding`.
    #[inline(always)]
    pub(super) fn new(
        image: &'a Image<'a>,
        block: Block,
        top: usize,
        padding: &'a [u8; BLOCK],
    ) -> Quad<'a> {
        let shape = image.shape;
        let left = shape.pads[1];
        let outside = Row { first: padding.as_ptr(), column: 0, pixel: 0 };
        let (mut inner, mut rows) = ([None; QUAD], [outside; QUAD]);
        // Loops, not `map`, which is not inlined.
        for i in 0..QUAD {
            inner[i] = image.row(top + i);
            if let Some(bytes) = inner[i] {
                let first = bytes.as_ptr().wrapping_add(image.place(block.col));
                let first = first.wrapping_sub(left * image.step());
                let pixel = shape.stride[1] * image.step();
                rows[i] = Row { first, column: image.step(), pixel };
            }
        }
        let end = (shape.in_w + left).saturating_sub((block.pixels - 1) * shape.stride[1]);
        Quad { image, block, inner, rows, inside: left..end.max(left) }
    }

    /// Whether all pixels of a column lie inside the image.
    #[inline(always)]
    pub(super) fn holds(&self, column: usize) -> bool {
        self.inside.contains(&column)
    }

    /// The words of a column inside the image.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW, and the column lies there.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn words<const PIXELS: usize>(&self, column: usize) -> [__m512i; PARTS] {
        // SAFETY: the caller's promise; rows were checked, what surrounds them is a block.
        unsafe { interleaved::<PIXELS>(&self.rows, column, self.image.flip) }
    }

    /// The words of a column some of whose pixels lie outside the image.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn edge<const PIXELS: usize>(&self, column: usize) -> [__m512i; PARTS] {
        if PIXELS == 1 {
            return [_mm512_set1_epi8(self.image.zero.cast_signed()); PARTS];
        }
        let blocks = self.edge_blocks(column);
        let mut rows = self.rows;
        for (row, bytes) in rows.iter_mut().zip(&blocks) {
            *row = Row { first: bytes.as_ptr(), column: 0, pixel: BLOCK / PIXELS };
        }
        // SAFETY: the caller's promise; each row holds a block.
        unsafe { interleaved::<PIXELS>(&rows, 0, self.image.flip) }
    }

    /// The blocks at `column` of the padded image, some of whose pixels may lie outside.
    #[cold]
    #[inline(never)]
    fn edge_blocks(&self, column: usize) -> [[u8; BLOCK]; QUAD] {
        self.inner.map(|row| self.edge_block(row, column))
    }

    /// The block at `column` of the padded image, some of whose pixels may lie outside.
    fn edge_block(&self, row: Option<&[u8]>, column: usize) -> [u8; BLOCK] {
        let Image { shape, flip, zero, .. } = *self.image;
        let mut block = [zero ^ flip; BLOCK];
        let Some(row) = row else { return block };
        for (i, block) in block.chunks_exact_mut(self.block.width()).enumerate() {
            let x = (column + i * shape.stride[1]).wrapping_sub(shape.pads[1]);
            if x < shape.in_w {
                let at = x * self.image.step() + self.image.place(self.block.col);
                block.copy_from_slice(&row[at..at + block.len()]);
            }
        }
        block
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
    /// Stores the words of the columns, the first of which comes first, for blocks of `PIXELS`
    /// pixels. Columns are seen only if their number, modulo `step`, is below `taps`.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW, and there is room for all columns.
    #[inline]
    #[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
    pub(super) unsafe fn fill<const PIXELS: usize>(
        &self,
        quad: &Quad<'_>,
        columns: Range<usize>,
        [taps, step]: [usize; 2],
    ) {
        let (mut out, mut phase) = (self.first, columns.start % step);
        for column in columns {
            if phase < taps {
                // SAFETY: the caller's promise.
                unsafe {
                    let words = match quad.holds(column) {
                        true => quad.words::<PIXELS>(column),
                        false => quad.edge::<PIXELS>(column),
                    };
                    for (part, words) in words.into_iter().enumerate() {
                        _mm512_storeu_si512(out.add(part).cast(), words);
                    }
                }
            }
            out = out.wrapping_add(self.step);
            phase = if phase + 1 == step { 0 } else { phase + 1 };
        }
    }
}

/// The blocks of four rows at a column, interleaved in unsigned form.
///
/// # Safety
/// The CPU has AVX-512 with BW, and the blocks are readable.
#[inline]
#[cfg_attr(not(feature = "avx512-model"), target_feature(enable = "avx512f,avx512bw"))]
unsafe fn interleaved<const PIXELS: usize>(
    rows: &[Row; QUAD],
    column: usize,
    flip: u8,
) -> [__m512i; PARTS] {
    let flip = _mm512_set1_epi8(flip.cast_signed());
    let mut blocks = [flip; QUAD];
    for (block, row) in blocks.iter_mut().zip(rows) {
        let first = row.first.wrapping_add(column * row.column);
        // SAFETY: the caller's promise.
        let bytes = unsafe { load::<PIXELS>(|i| first.wrapping_add(i * row.pixel)) };
        *block = _mm512_xor_si512(bytes, flip);
    }
    let [a, b, c, d] = blocks;
    let low = [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)];
    let high = [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)];
    [
        _mm512_unpacklo_epi16(low[0], low[1]),
        _mm512_unpackhi_epi16(low[0], low[1]),
        _mm512_unpacklo_epi16(high[0], high[1]),
        _mm512_unpackhi_epi16(high[0], high[1]),
    ]
}
