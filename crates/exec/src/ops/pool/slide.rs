//! A window sliding over a `[N,...,C]` value: every pool is one walk with its own accumulator.

use crate::ops::window::Window;
use fewbit_core::{Error, Result};
use fewbit_kernels::{Ctx, Isa, Job};

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
    /// All channels of a pixel at once, by a kernel: those of the given `pixels` of the image `x`.
    /// Returns whether there is one.
    fn whole(&self, _isa: Isa, _x: &[T], _pixels: &[usize], _out: &mut [Y]) -> bool {
        false
    }
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
            let (mut states, mut view) = (vec![A::START; self.channels], View::default());
            for (offset, out) in out.chunks_exact_mut(self.channels).enumerate() {
                self.look(index * grain + offset, &mut view);
                let x = &x[view.image * area..][..area][view.base * self.channels..];
                if !pool.whole(ctx.isa, x, &view.taps, out) {
                    ctx.isa.run(Pixel { pool, x, view: &view, states: &mut states, out });
                }
            }
        });
    }

    /// Finds the window of a pixel.
    fn look(&self, pixel: usize, view: &mut View) {
        let plane: usize = self.output.iter().product();
        match (&self.output[..], &self.window.strides[..]) {
            // Most pools are over images, and small: their windows must cost next to nothing.
            (&[_, wide], &[down, across]) => {
                view.corner.clear();
                view.corner.extend([pixel % plane / wide * down, pixel % wide * across]);
                let corner = [view.corner[0], view.corner[1]];
                self.look_at_image(corner, view);
            }
            _ => {
                self.find_corner(pixel % plane, &mut view.corner);
                self.look_at_volume(view);
            }
        };
        view.image = pixel / plane;
        view.count = match self.count_padding && !view.inside {
            true => self.padded_count(&view.corner),
            false => view.taps.len(),
        };
    }

    /// Finds the taps of a window over an image. Windows that lie inside of it differ in the base
    /// alone.
    fn look_at_image(&self, corner: [usize; 2], view: &mut View) {
        let reach = |axis: usize| (self.window.kernel[axis] - 1) * self.window.dilations[axis];
        let inside = |axis: usize| {
            let first = corner[axis].checked_sub(self.begin[axis])?;
            (first + reach(axis) < self.input[axis]).then_some(first)
        };
        let was_inside = std::mem::replace(&mut view.inside, false);
        let origin = match (inside(0), inside(1)) {
            (Some(row), Some(col)) => {
                (view.base, view.inside) = (row * self.input[1] + col, true);
                if was_inside {
                    return;
                }
                [self.begin[0], self.begin[1]]
            }
            _ => {
                view.base = 0;
                corner
            }
        };
        view.taps.clear();
        for row in self.along(0, origin[0]) {
            let line = row * self.input[1];
            view.taps.extend(self.along(1, origin[1]).map(|col| line + col));
        }
    }

    /// As [`look_at_image`](Slide::look_at_image), for the corner of the view over any number of
    /// dimensions.
    fn look_at_volume(&self, view: &mut View) {
        let mut base = 0;
        let mut inside = true;
        for (axis, corner) in view.corner.iter().enumerate() {
            let reach = (self.window.kernel[axis] - 1) * self.window.dilations[axis];
            let first = corner.checked_sub(self.begin[axis]);
            let fits = first.filter(|first| first + reach < self.input[axis]);
            inside &= fits.is_some();
            base = base * self.input[axis] + fits.unwrap_or(0);
        }
        let was_inside = std::mem::replace(&mut view.inside, inside);
        view.base = if inside { base } else { 0 };
        if inside && was_inside {
            return;
        }
        view.taps.clear();
        let origin = if inside { &self.begin } else { &view.corner };
        self.walk(0, 0, origin, &mut view.taps);
    }

    /// First tap of an output along each axis, counted from the start of the padding.
    fn find_corner(&self, mut pixel: usize, corner: &mut Vec<usize>) {
        corner.clear();
        corner.resize(self.output.len(), 0);
        for axis in (0..self.output.len()).rev() {
            corner[axis] = pixel % self.output[axis] * self.window.strides[axis];
            pixel /= self.output[axis];
        }
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

/// The window of a pixel.
#[derive(Default)]
struct View {
    image: usize,
    /// Its first tap along each axis, counted from the start of the padding.
    corner: Vec<usize>,
    /// Where the window begins in its image.
    base: usize,
    /// The positions of the taps behind that.
    taps: Vec<usize>,
    /// Whether the whole window lies inside of the image.
    inside: bool,
    /// How many elements the window counts.
    count: usize,
}

/// All channels of one output pixel.
struct Pixel<'a, T, Y, A: Accumulate<T, Y>> {
    pool: &'a A,
    /// The image from the base of the view on.
    x: &'a [T],
    view: &'a View,
    states: &'a mut [A::State],
    out: &'a mut [Y],
}

/// Windows of up to so many taps go by blocks of channels.
const FEW: usize = 32;

impl<T: Copy, Y, A: Accumulate<T, Y>> Job for Pixel<'_, T, Y, A> {
    type Output = ();
    #[inline(always)]
    fn run(mut self) {
        if self.view.taps.len() > FEW {
            return self.row();
        }
        // States of a block stay in registers; those of the next ones are computed beside them.
        let mut first = 0;
        while first < self.out.len() {
            first += match self.out.len() - first {
                16.. => self.block::<16>(first),
                4.. => self.block::<4>(first),
                _ => self.block::<1>(first),
            };
        }
    }
}

impl<T: Copy, Y, A: Accumulate<T, Y>> Pixel<'_, T, Y, A> {
    /// All channels: a long sum of few of them would wait for each addition.
    #[inline(always)]
    fn row(self) {
        let channels = self.states.len();
        self.states.fill(A::START);
        for &tap in &self.view.taps {
            let values = &self.x[tap * channels..][..channels];
            for (state, &value) in self.states.iter_mut().zip(values) {
                self.pool.add(state, value, self.view.base + tap);
            }
        }
        for (y, &state) in self.out.iter_mut().zip(self.states.iter()) {
            *y = self.pool.finish(state, self.view.count);
        }
    }

    /// `N` channels from `first` on.
    #[inline(always)]
    fn block<const N: usize>(&mut self, first: usize) -> usize {
        let channels = self.out.len();
        let mut states = [A::START; N];
        for &tap in &self.view.taps {
            let values = &self.x[tap * channels + first..][..N];
            for (state, &value) in states.iter_mut().zip(values) {
                self.pool.add(state, value, self.view.base + tap);
            }
        }
        for (y, &state) in self.out[first..][..N].iter_mut().zip(&states) {
            *y = self.pool.finish(state, self.view.count);
        }
        N
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::{ArgMax, Max, Mean};
    use super::*;
    use crate::ops::window::AutoPad;
    use fewbit_kernels::{Isa, Pool};

    fn window(sizes: [[usize; 2]; 5], ceil: bool) -> Window {
        let [kernel, strides, dilations, begin, end] = sizes.map(|pair| pair.to_vec());
        Window { kernel, strides, dilations, begin, end, auto_pad: AutoPad::Explicit, ceil }
    }

    /// The same window over a volume of depth 1.
    fn deepened(window: &Window) -> Window {
        let with = |first: usize, rest: &[usize]| [&[first][..], rest].concat();
        Window {
            kernel: with(1, &window.kernel),
            strides: with(1, &window.strides),
            dilations: with(1, &window.dilations),
            begin: with(0, &window.begin),
            end: with(0, &window.end),
            ..window.clone()
        }
    }

    fn pool<T, Y, A>(pool: &A, slide: &Slide, threads: usize, isa: Isa, x: &[T]) -> Vec<Y>
    where
        T: Copy + Sync,
        Y: Send + Clone + Default,
        A: Accumulate<T, Y>,
    {
        let mut out = vec![Y::default(); slide.output_shape(2).iter().product()];
        let threads = Pool::new(threads);
        slide.run(&Ctx { isa, pool: &threads }, pool, x, &mut out);
        out
    }

    #[test]
    fn images_are_pooled_as_volumes_are() {
        let windows = [
            window([[3, 3], [2, 2], [1, 1], [1, 1], [1, 1]], false),
            window([[2, 3], [1, 2], [2, 1], [0, 2], [1, 0]], true),
            window([[1, 5], [3, 1], [1, 2], [0, 4], [0, 4]], false),
            window([[7, 9], [1, 1], [1, 1], [0, 0], [0, 0]], false),
        ];
        for (i, window) in windows.iter().enumerate() {
            for channels in [1, 7, 8, 31, 32, 64, 107] {
                let bytes: Vec<u8> =
                    (0..2 * 63 * channels).map(|i| (i * 167 % 251) as u8).collect();
                let floats: Vec<f32> = bytes.iter().map(|&b| f32::from(b) - 125.0).collect();
                let doubles: Vec<f64> = floats.iter().map(|&x| f64::from(x)).collect();
                let mut image = Slide::new(window, &[2, 7, 9, channels]).unwrap();
                let mut volume = Slide::new(&deepened(window), &[2, 1, 7, 9, channels]).unwrap();
                (image.count_padding, volume.count_padding) = (i % 2 == 0, i % 2 == 0);
                for isa in Isa::available() {
                    for threads in [1, 2] {
                        let both = [&image, &volume];
                        let [a, b] = both.map(|s| pool::<u8, u8, _>(&Max, s, threads, isa, &bytes));
                        assert_eq!(a, b, "{window:?} {channels}");
                        let mean = |s: &Slide| pool::<f32, f32, _>(&Mean, s, threads, isa, &floats);
                        assert_eq!(mean(&image), mean(&volume), "{window:?} {channels}");
                        let place =
                            |s: &Slide| pool::<f64, i64, _>(&ArgMax, s, threads, isa, &doubles);
                        assert_eq!(place(&image), place(&volume), "{window:?} {channels}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_maximum_is_that_of_its_window() {
        let window = window([[3, 3], [2, 2], [1, 1], [1, 1], [1, 1]], false);
        let x: Vec<u8> = (0..6 * 5 * 40).map(|i| (i * 167 % 251) as u8).collect();
        let slide = Slide::new(&window, &[1, 6, 5, 40]).unwrap();
        let mut out = vec![0; 3 * 3 * 40];
        slide.run(&Ctx { isa: Isa::best(), pool: &Pool::new(1) }, &Max, &x, &mut out);
        for (i, got) in out.into_iter().enumerate() {
            let (row, col, channel) = (i / 120 * 2, i / 40 % 3 * 2, i % 40);
            let rows = row.saturating_sub(1)..6.min(row + 2);
            let at = |y: usize| (col.saturating_sub(1)..5.min(col + 2)).map(move |x| y * 5 + x);
            let want = rows.flat_map(at).map(|pixel| x[pixel * 40 + channel]).max();
            assert_eq!(Some(got), want, "{i}");
        }
    }

    #[test]
    fn the_only_window_may_hang_over() {
        // Results of ONNX Runtime.
        let ones = [1, 1];
        let cases = [
            (window([[7, 7], [7, 7], ones, [0, 0], [0, 0]], true), 3, [5.0, 5.0, 9.0]),
            (window([[4, 5], [3, 4], ones, [0, 1], [0, 0]], true), 3, [5.0, 3.75, 9.0]),
            (window([[4, 5], [3, 4], ones, [1, 1], [0, 0]], true), 2, [2.5, 10.0 / 9.0, 4.0]),
        ];
        for (window, size, [mean, padded, largest]) in cases {
            let mut slide = Slide::new(&window, &[2, size, size, 1]).unwrap();
            assert_eq!(slide.output_shape(2), [2, 1, 1, 1]);
            let codes: Vec<u8> = (0..2).flat_map(|_| 1..=(size * size) as u8).collect();
            let floats: Vec<f32> = codes.iter().map(|&code| f32::from(code)).collect();
            let isa = Isa::best();
            let means = pool::<f32, f32, _>(&Mean, &slide, 1, isa, &floats);
            assert_eq!(means, [mean; 2], "{window:?}");
            assert_eq!(pool::<u8, u8, _>(&Max, &slide, 1, isa, &codes), [largest as u8; 2]);
            slide.count_padding = true;
            let means = pool::<f32, f32, _>(&Mean, &slide, 1, isa, &floats);
            assert_eq!(means, [padded; 2], "{window:?}");
            let floor = Window { ceil: false, ..window };
            let error = floor.output_sizes(&[size, size]).unwrap_err();
            assert_eq!(error.stable_code(), "FB-3210");
        }
        // A stride too few: the window would begin before the input.
        let far = window([[7, 7], [4, 4], ones, [0, 0], [0, 0]], true);
        assert!(far.output_sizes(&[3, 3]).is_err());
        assert_eq!(far.output_sizes(&[4, 4]).unwrap(), [1, 1]);
    }
}
