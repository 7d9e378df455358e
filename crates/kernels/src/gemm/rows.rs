//! Left operands that are a plain matrix, and the conversion of their elements.

use std::ops::Range;

use bytemuck::Pod;

use super::driver::Rows;
use super::kernel::NR;
use super::parts::LeftParts;

/// How stored elements become operands of a microkernel.
pub(crate) trait Convert: Copy + Sync {
    /// Stored element.
    type Src: Pod + Sync;
    /// Operand.
    type Dst: Pod + Sync;

    /// Converts `src` into `dst`, which is as long.
    fn convert(self, src: &[Self::Src], dst: &mut [Self::Dst]);

    /// The operand that contributes nothing: padding.
    fn padding(self) -> Self::Dst;

    /// `src` itself, where the conversion changes nothing.
    fn borrow(self, src: &[Self::Src]) -> Option<&[Self::Dst]>;
}

/// No conversion; padding is zero.
#[derive(Clone, Copy)]
pub(crate) struct Same;

impl Convert for Same {
    type Src = f32;
    type Dst = f32;

    #[inline(always)]
    fn convert(self, src: &[f32], dst: &mut [f32]) {
        dst.copy_from_slice(src);
    }

    #[inline(always)]
    fn padding(self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn borrow(self, src: &[f32]) -> Option<&[f32]> {
        Some(src)
    }
}

/// Converts all elements, [`NR`] at a time: each vector goes through values of its own, so that
/// the compiler need not fear that `src` and `dst` overlap.
#[inline(always)]
fn by_vectors<T: Copy + Default>(src: &[u8], dst: &mut [T], convert: impl Fn(u8) -> T) {
    let (src_vectors, src_rest) = src.as_chunks::<NR>();
    let (dst_vectors, dst_rest) = dst.as_chunks_mut::<NR>();
    for (dst, src) in dst_vectors.iter_mut().zip(src_vectors) {
        let bytes = *src;
        let mut lanes = [T::default(); NR];
        for (lane, byte) in lanes.iter_mut().zip(bytes) {
            *lane = convert(byte);
        }
        *dst = lanes;
    }
    for (dst, &src) in dst_rest.iter_mut().zip(src_rest) {
        *dst = convert(src);
    }
}

/// 8-bit values to `value - zero_point` as i16. Padding is the zero point, so 0.
#[derive(Clone, Copy)]
pub(crate) struct Widen {
    /// Turns a byte into its unsigned form.
    pub(crate) flip: u8,
    /// Zero point of the unsigned form.
    pub(crate) zero_point: i16,
}

impl Convert for Widen {
    type Src = u8;
    type Dst = i16;

    #[inline(always)]
    fn convert(self, src: &[u8], dst: &mut [i16]) {
        by_vectors(src, dst, |byte| i16::from(byte ^ self.flip) - self.zero_point);
    }

    #[inline(always)]
    fn padding(self) -> i16 {
        0
    }

    #[inline(always)]
    fn borrow(self, _: &[u8]) -> Option<&[i16]> {
        None
    }
}

/// 8-bit values to their unsigned form (`u8`) or their signed one (`i8`); the zero point is taken
/// off after the product.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[derive(Clone, Copy)]
pub(crate) struct Flip<T> {
    /// Turns a byte into that form.
    pub(crate) flip: u8,
    /// Zero point of that form.
    pub(crate) zero_point: T,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl<T: Pod + Default + Sync> Convert for Flip<T> {
    type Src = u8;
    type Dst = T;

    #[inline(always)]
    fn convert(self, src: &[u8], dst: &mut [T]) {
        by_vectors(src, dst, |byte| bytemuck::cast(byte ^ self.flip));
    }

    #[inline(always)]
    fn padding(self) -> T {
        self.zero_point
    }

    #[inline(always)]
    fn borrow(self, src: &[u8]) -> Option<&[T]> {
        (self.flip == 0).then_some(bytemuck::cast_slice(src))
    }
}

/// A row-major matrix.
pub(crate) struct MatrixRows<'a, C: Convert> {
    /// The elements.
    pub(crate) data: &'a [C::Src],
    /// Distance of two rows in elements.
    pub(crate) stride: usize,
    /// Elements per row.
    pub(crate) k: usize,
    /// `k`, rounded up to whole groups.
    pub(crate) padded_k: usize,
    /// What to do with each element.
    pub(crate) convert: C,
}

/// The distance at which to lay rows of `len` elements into scratch. Rows that lie a multiple of
/// 2 KiB apart fall on the same few lines of the first-level cache, which costs up to half the
/// speed; one cache line more avoids it.
pub(crate) fn pitch<T>(len: usize) -> usize {
    if conflicts::<T>(len) { len + 64 / size_of::<T>() } else { len }
}

fn conflicts<T>(stride: usize) -> bool {
    stride > 0 && (stride * size_of::<T>()).is_multiple_of(2048)
}

impl<C: Convert> MatrixRows<'_, C> {
    fn direct(&self) -> Option<&[C::Dst]> {
        let fits = self.k == self.padded_k && !conflicts::<C::Dst>(self.stride);
        self.convert.borrow(self.data).filter(|_| fits)
    }
}

impl<C: Convert> Rows<C::Dst> for MatrixRows<'_, C> {
    fn scratch_per_row(&self) -> usize {
        if self.direct().is_some() { 0 } else { pitch::<C::Dst>(self.padded_k) }
    }

    #[inline(always)]
    fn fetch<'s>(
        &'s self,
        range: Range<usize>,
        scratch: &'s mut [C::Dst],
    ) -> (&'s [C::Dst], usize) {
        if let Some(data) = self.direct() {
            return (&data[range.start * self.stride..], self.stride);
        }
        let pitch = pitch::<C::Dst>(self.padded_k);
        if pitch == self.k && pitch == self.stride {
            let len = range.len() * pitch;
            self.convert.convert(&self.data[range.start * pitch..][..len], &mut scratch[..len]);
            return (scratch, pitch);
        }
        for (i, row) in range.enumerate() {
            let dst = &mut scratch[i * pitch..][..self.padded_k];
            let (body, tail) = dst.split_at_mut(self.k);
            self.convert.convert(&self.data[row * self.stride..][..self.k], body);
            tail.fill(self.convert.padding());
        }
        (scratch, pitch)
    }
}

impl LeftParts for MatrixRows<'_, Same> {
    fn scratch_per_row(&self, len: usize, k: usize) -> usize {
        // Parts are copied, so that they lie close together.
        if len == k && self.direct().is_some() { 0 } else { pitch::<f32>(len) }
    }

    #[inline(always)]
    fn fetch_part<'s>(
        &'s self,
        rows: Range<usize>,
        k: Range<usize>,
        per_row: usize,
        scratch: &'s mut [f32],
    ) -> (&'s [f32], usize) {
        if per_row == 0 {
            return (&self.data[rows.start * self.stride..], self.stride);
        }
        for (i, row) in rows.enumerate() {
            let from = &self.data[row * self.stride..][k.clone()];
            scratch[i * per_row..][..k.len()].copy_from_slice(from);
        }
        (scratch, per_row)
    }
}
