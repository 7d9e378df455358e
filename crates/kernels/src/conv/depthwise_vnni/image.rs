//! What a task looks at: an image, pixel by pixel or in planes.

use crate::conv::shape::ConvShape;
use crate::planes::{Plane, Planes};

/// An image, seen in all channels or in those of one plane.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) shape: &'a ConvShape,
    /// Of all images.
    pub(super) bytes: &'a [u8],
    /// Turns a byte into its unsigned form.
    pub(super) flip: u8,
    /// Zero point of the unsigned form.
    pub(super) zero: u8,
    /// Which of the images it is, counted from 0.
    pub(super) number: usize,
    /// How values lie that are not pixel by pixel.
    pub(super) planes: Option<Planes>,
    pub(super) plane: Plane,
}

impl<'a> Image<'a> {
    /// Images with a zero point in unsigned form; the first one is seen, in its first plane.
    pub(super) fn new(
        shape: &'a ConvShape,
        bytes: &'a [u8],
        [flip, zero]: [u8; 2],
        in_planes: bool,
    ) -> Image<'a> {
        let pixels = shape.batch * shape.in_h * shape.in_w;
        let planes = in_planes.then_some(Planes { pixels, channels: shape.in_c });
        let all = Plane { start: 0, first: 0, width: shape.in_c };
        let plane = planes.map_or(all, |planes| planes.of(0));
        Image { shape, bytes, flip, zero, number: 0, planes, plane }
    }

    /// From a pixel to the next.
    #[inline(always)]
    pub(super) fn step(&self) -> usize {
        self.plane.width
    }

    /// Bytes of a row.
    #[inline(always)]
    pub(super) fn row_bytes(&self) -> usize {
        self.shape.in_w * self.step()
    }

    /// The first channel that is seen of all rows of the image, one after another.
    ///
    /// # Panics
    /// When there are fewer images.
    pub(super) fn rows(&self) -> &'a [u8] {
        let start =
            self.plane.place(self.number * self.shape.in_h * self.shape.in_w, self.plane.first);
        &self.bytes[start..][..self.shape.in_h * self.row_bytes()]
    }

    /// The row that has number `row` in the padded image, from the first channel that is seen on;
    /// `None` in the padding.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> Option<&'a [u8]> {
        let shape = self.shape;
        let row = row.wrapping_sub(shape.pads[0]);
        if row >= shape.in_h {
            return None;
        }
        let pixel = (self.number * shape.in_h + row) * shape.in_w;
        let start = self.plane.place(pixel, self.plane.first);
        Some(&self.bytes[start..][..self.row_bytes()])
    }

    /// Where a channel lies in a pixel of a row.
    #[inline(always)]
    pub(super) fn place(&self, channel: usize) -> usize {
        channel - self.plane.first
    }
}
