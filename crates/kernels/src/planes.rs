//! Values of an image in planes: all pixels in the first 64 channels, then all pixels in the next
//! ones, and so on; the last plane may have fewer channels.
//!
//! What looks at neighbouring pixels in 64 channels at a time finds them side by side, each in a
//! cache line of its own, whatever the number of channels is.

/// Channels of a plane.
const PLANE: usize = 64;

/// How many values there are.
#[derive(Clone, Copy)]
pub(crate) struct Planes {
    /// Pixels of all images.
    pub(crate) pixels: usize,
    pub(crate) channels: usize,
}

/// Some channels of all pixels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plane {
    /// Where they begin.
    pub(crate) start: usize,
    /// The first channel.
    pub(crate) first: usize,
    /// Channels, which is what lies between a pixel and the next.
    pub(crate) width: usize,
}

impl Planes {
    /// Whether values pixel by pixel would lie across cache lines.
    pub(crate) fn pay(channels: usize) -> bool {
        channels > PLANE && !channels.is_multiple_of(PLANE)
    }

    /// The plane of a channel.
    #[inline(always)]
    pub(crate) fn of(&self, channel: usize) -> Plane {
        let first = channel / PLANE * PLANE;
        let width = PLANE.min(self.channels - first);
        Plane { start: self.pixels * first, first, width }
    }
}

impl Plane {
    /// Where a channel of a pixel lies.
    #[inline(always)]
    pub(crate) fn place(&self, pixel: usize, channel: usize) -> usize {
        self.start + pixel * self.width + channel - self.first
    }
}
