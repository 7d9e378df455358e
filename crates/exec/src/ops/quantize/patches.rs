//! Patches of an image as columns of a matrix (im2col), for exact integer convolutions.

use crate::ops::window::Window;

/// Where the patches of one image lie.
pub(super) struct Patches<'a> {
    pub window: &'a Window,
    /// Spatial size of the image.
    pub input: &'a [usize],
    /// How often the window fits along each axis.
    pub outputs: &'a [usize],
    /// Padding before each axis.
    pub begin: Vec<usize>,
}

impl Patches<'_> {
    /// Number of taps of the window.
    pub fn taps(&self) -> usize {
        self.window.kernel.iter().product()
    }

    /// Fills `columns` (a row for each channel and tap, a column for each place) from channels
    /// of `image`. Padding is 0.
    pub fn fill(&self, image: &[i32], columns: &mut [i32]) {
        let plane: usize = self.input.iter().product();
        let places: usize = self.outputs.iter().product();
        if places == 0 {
            return;
        }
        let taps = self.taps();
        for (row, line) in columns.chunks_exact_mut(places).enumerate() {
            let channel = &image[row / taps * plane..][..plane];
            self.row(channel, row % taps, line);
        }
    }

    /// One tap of the window at all places.
    fn row(&self, channel: &[i32], tap: usize, line: &mut [i32]) {
        let rank = self.input.len();
        let mut tap_at = vec![0; rank];
        let mut rest = tap;
        for axis in (0..rank).rev() {
            tap_at[axis] = rest % self.window.kernel[axis];
            rest /= self.window.kernel[axis];
        }
        let last = rank - 1;
        let mut at = vec![0usize; last];
        for run in line.chunks_exact_mut(self.outputs[last]) {
            let start = (0..last).try_fold(0usize, |offset, axis| {
                Some(offset * self.input[axis] + self.coordinate(axis, at[axis], tap_at[axis])?)
            });
            for (x, slot) in run.iter_mut().enumerate() {
                let place = start.zip(self.coordinate(last, x, tap_at[last]));
                *slot = place.map_or(0, |(start, x)| channel[start * self.input[last] + x]);
            }
            for axis in (0..last).rev() {
                at[axis] += 1;
                if at[axis] < self.outputs[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
    }

    /// The input coordinate of a tap; `None` in the padding.
    fn coordinate(&self, axis: usize, output: usize, tap: usize) -> Option<usize> {
        let at = output * self.window.strides[axis] + tap * self.window.dilations[axis];
        at.checked_sub(self.begin[axis]).filter(|&at| at < self.input[axis])
    }
}
