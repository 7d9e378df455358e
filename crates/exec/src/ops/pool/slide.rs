//! A window sliding over a `[N,...,C]` value: every pool is one walk with its own accumulator.

use crate::ops::window::Window;
use fewbit_core::{Error, Result};
use fewbit_kernels::{Ctx, Job};

/// One pool over an input of known size.
pub(crate) struct Slide {
    window: Window,
    input: Vec<usize>,
    output: Vec<usize>,
    begin: Vec<usize>,
    end: Vec<usize>,
    channels: usize,
    /// Whether padding counts as elements of a window.
    pub count_padding: bool,
}

/// How a pool turns the elements of a window into one.
pub(crate) trait Accumulate<T, Y>: Sync {
    /// State for one channel.
    type State: Copy + Send;
    /// State before the first element.
    const START: Self::State;
    /// Takes an element in; `position` is its index in the image.
    fn add(&self, state: &mut Self::State, value: T, position: usize);
    /// The result for a window of `count` elements.
    fn finish(&self, state: Self::State, count: usize) -> Y;
}

impl Slide {
    /// A pool with `window` over an input of shape `[N,...,C]`.
    ///
    /// # Errors
    /// When the window does not fit the input.
    pub fn new(window: &Window, shape: &[usize]) -> Result<Slide> {
        let rank = window.rank();
        if shape.len() != rank + 2 {
            return Err(Error::bad_input(format!(
                "a pool over {rank} dimensions for an input of rank {}",
                shape.len()
            )));
        }
        let input = shape[1..=rank].to_vec();
        let output = window.output_sizes(&input)?;
        let pads = input.iter().enumerate().map(|(axis, &size)| window.pads(axis, size));
        let (begin, end) = pads.unzip();
        let (channels, window) = (shape[rank + 1], window.clone());
        Ok(Slide { window, input, output, begin, end, channels, count_padding: false })
    }

    /// A pool over the whole plane.
    ///
    /// # Errors
    /// When the input has no spatial dimension, or an empty one.
    pub fn global(shape: &[usize]) -> Result<Slide> {
        let spatial = shape.get(1..shape.len().saturating_sub(1)).unwrap_or(&[]);
        if spatial.is_empty() || spatial.contains(&0) {
            return Err(Error::bad_input(format!("a global pool over shape {shape:?}")));
        }
        Slide::new(&Window::whole(spatial), shape)
    }

    /// Output shape `[N,...,C]`.
    pub fn output_shape(&self, batch: usize) -> Vec<usize> {
        let mut shape = vec![batch];
        shape.extend(&self.output);
        shape.push(self.channels);
        shape
    }

    /// Computes all outputs. Each is computed by one thread, over the window in row-major order.
    pub fn run<T, Y, A>(&self, ctx: &Ctx, pool: &A, x: &[T], out: &mut [Y])
    where
        T: Copy + Sync,
        Y: Send,
        A: Accumulate<T, Y>,
    {
        let pixels = out.len() / self.channels.max(1);
        let taps: usize = self.window.kernel.iter().product();
        let least = (1 << 14) / (taps * self.channels).max(1);
        let area = self.input.iter().product::<usize>() * self.channels;
        let grain = ctx.pool.grain(pixels, least);
        ctx.pool.for_each_chunk(out, grain * self.channels.max(1), |index, out| {
            let mut states = vec![A::START; self.channels];
            let mut taps = Vec::new();
            for (offset, out) in out.chunks_exact_mut(self.channels).enumerate() {
                let (image, count) = self.window_of(index * grain + offset, &mut taps);
                let x = &x[image * area..][..area];
                ctx.isa.run(Pixel { pool, x, taps: &taps, states: &mut states, count, out });
            }
        });
    }

    /// Collects the positions of a window in its image; returns the image and how many elements
    /// the window counts.
    fn window_of(&self, pixel: usize, taps: &mut Vec<usize>) -> (usize, usize) {
        let plane: usize = self.output.iter().product();
        taps.clear();
        let padded = match (&self.output[..], &self.window.strides[..]) {
            // Most pools are over images, and small: their windows must cost next to nothing.
            (&[_, wide], &[down, across]) => {
                let corner = [pixel % plane / wide * down, pixel % wide * across];
                for row in self.along(0, corner[0]) {
                    let first = row * self.input[1];
                    taps.extend(self.along(1, corner[1]).map(|col| first + col));
                }
                self.count_padding.then(|| self.padded_count(&corner))
            }
            _ => {
                let corner = self.corner(pixel % plane);
                self.walk(0, 0, &corner, taps);
                self.count_padding.then(|| self.padded_count(&corner))
            }
        };
        (pixel / plane, padded.unwrap_or(taps.len()))
    }

    /// First tap of an output along each axis, counted from the start of the padding.
    fn corner(&self, mut pixel: usize) -> Vec<usize> {
        let mut corner = vec![0; self.output.len()];
        for axis in (0..self.output.len()).rev() {
            corner[axis] = pixel % self.output[axis] * self.window.strides[axis];
            pixel /= self.output[axis];
        }
        corner
    }

    /// The places of the taps along an axis that meet the input, for a window that begins at
    /// `first`, counted from the start of the padding.
    fn along(&self, axis: usize, first: usize) -> impl Iterator<Item = usize> {
        let (begin, size) = (self.begin[axis], self.input[axis]);
        let step = self.window.dilations[axis];
        let places = (0..self.window.kernel[axis]).map(move |tap| first + tap * step);
        places.filter_map(move |at| at.checked_sub(begin)).take_while(move |&at| at < size)
    }

    /// Collects the taps that meet the input, in row-major order.
    fn walk(&self, axis: usize, base: usize, corner: &[usize], taps: &mut Vec<usize>) {
        if axis == corner.len() {
            return taps.push(base);
        }
        for at in self.along(axis, corner[axis]) {
            self.walk(axis + 1, base * self.input[axis] + at, corner, taps);
        }
    }

    /// Taps within the padded input. What `ceil_mode` hangs over does not count.
    fn padded_count(&self, corner: &[usize]) -> usize {
        let taps = |axis: usize| {
            let size = self.input[axis] + self.begin[axis] + self.end[axis];
            let inside = |tap: &usize| corner[axis] + tap * self.window.dilations[axis] < size;
            (0..self.window.kernel[axis]).take_while(inside).count()
        };
        (0..corner.len()).map(taps).product()
    }
}

/// All channels of one output pixel.
struct Pixel<'a, T, Y, A: Accumulate<T, Y>> {
    pool: &'a A,
    x: &'a [T],
    taps: &'a [usize],
    states: &'a mut [A::State],
    count: usize,
    out: &'a mut [Y],
}

impl<T: Copy, Y, A: Accumulate<T, Y>> Job for Pixel<'_, T, Y, A> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let channels = self.states.len();
        self.states.fill(A::START);
        for &tap in self.taps {
            let values = &self.x[tap * channels..][..channels];
            for (state, &value) in self.states.iter_mut().zip(values) {
                self.pool.add(state, value, tap);
            }
        }
        for (y, &state) in self.out.iter_mut().zip(self.states.iter()) {
            *y = self.pool.finish(state, self.count);
        }
    }
}
