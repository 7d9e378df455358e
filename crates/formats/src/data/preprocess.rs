//! The input steps of a card, applied to one sample: pixels, then numbers, then layout.

use super::card::{Channels, InputSteps, Layout};
use super::image::Image;
use fewbit_core::{AlignedBytes, DType, Error, Result, Tensor, codec};

/// Turns stored samples into model inputs, each with a leading batch dimension of 1.
///
/// Samples are `f32` where a numeric step applies and keep their stored type elsewhere.
/// All arithmetic is `f32`, in the order `((x / scale) - mean) / std`, as torchvision does it.
#[derive(Clone, Debug)]
pub struct Preprocess {
    steps: InputSteps,
}

/// One sample as it is stored, without a batch dimension.
pub(crate) struct Stored<'a> {
    pub(crate) dtype: DType,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: &'a [u8],
}

/// Where the channels of a sample are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Planes {
    channels: usize,
    pixels: usize,
    layout: Layout,
}

impl Preprocess {
    /// Checks the steps.
    ///
    /// # Errors
    /// As [`InputSteps::validate`].
    pub fn new(steps: InputSteps) -> Result<Preprocess> {
        steps.validate()?;
        Ok(Preprocess { steps })
    }

    /// A decoded image file. It becomes RGB (or luma, where `channels = "L"`) before all other
    /// steps: alpha is dropped, grey is repeated.
    ///
    /// # Errors
    /// `FB-3332` when the crop is larger than the image, `FB-3333` when `mean` or `std` have
    /// another number of channels.
    pub fn image(&self, image: Image) -> Result<Tensor> {
        let first = match self.steps.channels {
            Some(Channels::Luma) => Channels::Luma,
            _ => Channels::Rgb,
        };
        self.pixels(image.with_channels(first)?)
    }

    /// A stored array of any rank; images are recognised by their shape.
    pub(crate) fn array(&self, stored: &Stored<'_>) -> Result<Tensor> {
        if self.steps.has_pixel_steps() {
            return self.pixels(self.as_image(stored)?);
        }
        if stored.shape.len() < 2 || (self.steps.layout.is_none() && stored.shape.len() != 3) {
            return self.flat(stored);
        }
        let planes = match (self.planes(stored.shape), self.needs_channels()) {
            (Ok(planes), _) => planes,
            (Err(e), true) => return Err(e),
            (Err(_), false) => return self.flat(stored),
        };
        self.numbers(stored, planes)
    }

    /// Whether the position of the channels matters for what the steps do.
    fn needs_channels(&self) -> bool {
        let per_channel =
            |p: &Option<super::card::PerChannel>| p.as_ref().is_some_and(|p| p.values().len() > 1);
        self.steps.layout.is_some() || per_channel(&self.steps.mean) || per_channel(&self.steps.std)
    }

    fn pixels(&self, image: Image) -> Result<Tensor> {
        let image = image.apply(&self.steps)?;
        let shape = [image.height, image.width, image.channels];
        let stored = Stored { dtype: DType::U8, shape: &shape, bytes: &image.pixels };
        let pixels = image.height * image.width;
        self.numbers(&stored, Planes { channels: image.channels, pixels, layout: Layout::Nhwc })
    }

    fn as_image(&self, stored: &Stored<'_>) -> Result<Image> {
        let planes = self.planes(stored.shape)?;
        if stored.dtype != DType::U8 {
            let what = format!("pixel steps work on u8 images, the array is {}", stored.dtype);
            let hint = "leave out `resize`, `crop` and `channels`, or store the images as uint8";
            return Err(Error::unsupported(what).code("FB-4335").at("[input]").hint(hint));
        }
        let (height, width) = planes.sides(stored.shape);
        let mut pixels = vec![0; stored.bytes.len()];
        planes.each(Layout::Nhwc, |to, _, from| pixels[to] = stored.bytes[from]);
        Image::new(height, width, planes.channels, pixels)
    }

    /// Finds the channels of a sample of rank 2 (grey) or 3.
    fn planes(&self, shape: &[usize]) -> Result<Planes> {
        let known = |n: usize| matches!(n, 1 | 3 | 4);
        let (layout, channels, pixels) = match *shape {
            [h, w] => (Layout::Nhwc, 1, h.checked_mul(w)),
            [a, b, c] => match (self.steps.stored, known(a), known(c)) {
                (Some(Layout::Nchw), ..) | (None, true, false) => {
                    (Layout::Nchw, a, b.checked_mul(c))
                }
                (Some(Layout::Nhwc), ..) | (None, false, true) => {
                    (Layout::Nhwc, c, a.checked_mul(b))
                }
                _ => return Err(unknown_layout(shape)),
            },
            _ => return Err(not_an_image(shape)),
        };
        let pixels = pixels.ok_or_else(|| not_an_image(shape))?;
        Ok(Planes { channels, pixels, layout })
    }

    /// No channels to tell apart: the numeric steps, shape and order stay.
    fn flat(&self, stored: &Stored<'_>) -> Result<Tensor> {
        if self.steps.layout.is_some() {
            return Err(not_an_image(stored.shape));
        }
        let channels = stored.shape.last().copied().unwrap_or(1);
        let pixels = stored.shape.iter().rev().skip(1).product();
        let planes = Planes { channels, pixels, layout: Layout::Nhwc };
        let mut shape = vec![1];
        shape.extend_from_slice(stored.shape);
        self.compute(stored, planes, Layout::Nhwc)?.reshape(shape)
    }

    fn numbers(&self, stored: &Stored<'_>, planes: Planes) -> Result<Tensor> {
        let layout = self.steps.layout.unwrap_or(planes.layout);
        let (height, width) = planes.sides(stored.shape);
        let shape = match layout {
            Layout::Nchw => vec![1, planes.channels, height, width],
            Layout::Nhwc => vec![1, height, width, planes.channels],
        };
        self.compute(stored, planes, layout)?.reshape(shape)
    }

    /// A flat tensor in the given layout, computed or copied.
    fn compute(&self, stored: &Stored<'_>, planes: Planes, layout: Layout) -> Result<Tensor> {
        if !self.steps.has_numeric_steps() {
            return reorder(stored, planes, layout);
        }
        let count = planes.channels * planes.pixels;
        let mut out = Tensor::zeros(DType::F32, vec![count])?;
        let values = out.as_mut_slice::<f32>()?;
        if stored.dtype == DType::U8 {
            let table = self.table(planes.channels)?;
            planes.each(layout, |to, c, from| values[to] = table[c][stored.bytes[from] as usize]);
        } else {
            let numbers = codec::decode_f32(stored.dtype, stored.bytes, count)?;
            let channels = self.channels(planes.channels)?;
            planes.each(layout, |to, c, from| values[to] = channels[c].apply(numbers[from]));
        }
        Ok(out)
    }

    /// The numeric steps of each channel.
    fn channels(&self, count: usize) -> Result<Vec<Numeric>> {
        let s = &self.steps;
        let pick = |key: &str, values: Option<&super::card::PerChannel>, c: usize| {
            let values = values.map(|p| p.values()).unwrap_or_default();
            match values.len() {
                0 => Ok(None),
                1 => Ok(Some(values[0] as f32)),
                n if n == count => Ok(Some(values[c] as f32)),
                n => Err(wrong_channels(key, n, count)),
            }
        };
        let channel = |c| {
            Ok(Numeric {
                zero_point: s.zero_point.map(|z| z as f32),
                multiply: s.multiply.map(|m| m as f32),
                scale: s.scale.map(|v| v as f32),
                mean: pick("mean", s.mean.as_ref(), c)?,
                std: pick("std", s.std.as_ref(), c)?,
            })
        };
        (0..count).map(channel).collect()
    }

    /// The result for each of the 256 values of a byte, per channel.
    fn table(&self, count: usize) -> Result<Vec<[f32; 256]>> {
        let channels = self.channels(count)?;
        Ok(channels.iter().map(|n| std::array::from_fn(|v| n.apply(v as f32))).collect())
    }
}

/// The numeric steps of one channel; steps that are not there leave the bits alone.
struct Numeric {
    zero_point: Option<f32>,
    multiply: Option<f32>,
    scale: Option<f32>,
    mean: Option<f32>,
    std: Option<f32>,
}

impl Numeric {
    fn apply(&self, x: f32) -> f32 {
        let x = self.zero_point.map_or(x, |z| x - z);
        let x = self.multiply.map_or(x, |m| x * m);
        let x = self.scale.map_or(x, |s| x / s);
        let x = self.mean.map_or(x, |m| x - m);
        self.std.map_or(x, |s| x / s)
    }
}

impl Planes {
    fn sides(&self, shape: &[usize]) -> (usize, usize) {
        match (self.layout, shape) {
            (Layout::Nchw, &[_, h, w]) => (h, w),
            (_, &[h, w, ..]) => (h, w),
            _ => (1, self.pixels),
        }
    }

    /// Calls `visit(to, channel, from)` for every element, `to` counting up.
    #[inline]
    fn each(&self, to: Layout, mut visit: impl FnMut(usize, usize, usize)) {
        let (channels, pixels) = (self.channels, self.pixels);
        let (channel_step, pixel_step) = match self.layout {
            Layout::Nchw => (pixels, 1),
            Layout::Nhwc => (1, channels),
        };
        let mut out = 0;
        let mut emit = |c: usize, p: usize| {
            visit(out, c, c * channel_step + p * pixel_step);
            out += 1;
        };
        match to {
            Layout::Nchw => (0..channels).for_each(|c| (0..pixels).for_each(|p| emit(c, p))),
            Layout::Nhwc => (0..pixels).for_each(|p| (0..channels).for_each(|c| emit(c, p))),
        }
    }
}

fn reorder(stored: &Stored<'_>, planes: Planes, layout: Layout) -> Result<Tensor> {
    let size = stored.dtype.size().unwrap_or(1);
    let mut bytes = AlignedBytes::try_zeroed(stored.bytes.len())?;
    let out = bytes.as_mut();
    if layout == planes.layout || planes.channels == 1 {
        out.copy_from_slice(stored.bytes);
    } else {
        planes.each(layout, |to, _, from| {
            let source = &stored.bytes[from * size..(from + 1) * size];
            out[to * size..(to + 1) * size].copy_from_slice(source);
        });
    }
    Tensor::from_bytes(stored.dtype, vec![planes.channels * planes.pixels], bytes.into())
}

fn wrong_channels(key: &str, found: usize, channels: usize) -> Error {
    let what = format!("{found} numbers for samples of {channels} channels");
    let hint = "give one number, or one per channel";
    Error::bad_input(what).code("FB-3333").at(format!("`{key}`")).at("[input]").hint(hint)
}

fn unknown_layout(shape: &[usize]) -> Error {
    let what = format!("samples of shape {shape:?} do not tell where their channels are");
    let hint = "add `stored = \"NHWC\"` or `stored = \"NCHW\"` to [input]";
    Error::bad_input(what).code("FB-3334").at("[input]").hint(hint)
}

fn not_an_image(shape: &[usize]) -> Error {
    let what = format!("samples of shape {shape:?} are no images");
    let hint = "leave out `layout` and the pixel steps";
    Error::bad_input(what).code("FB-3334").at("[input]").hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::card::Card;

    fn steps(text: &str) -> Preprocess {
        let card = Card::parse(&format!("path = 'a'\n[input]\n{text}\n")).unwrap();
        Preprocess::new(card.input).unwrap()
    }

    fn bytes<'a>(shape: &'a [usize], bytes: &'a [u8]) -> Stored<'a> {
        Stored { dtype: DType::U8, shape, bytes }
    }

    #[test]
    fn without_steps_a_sample_stays_as_it_is() {
        let t = steps("").array(&bytes(&[2, 2], &[1, 2, 3, 4])).unwrap();
        assert_eq!((t.dtype(), t.shape()), (DType::U8, &[1, 2, 2][..]));
        let t = steps("").array(&bytes(&[], &[9])).unwrap();
        assert_eq!(t.shape(), [1]);
        // A shape that could be either layout is no obstacle while nothing asks.
        let t = steps("scale = 2.0").array(&bytes(&[3, 1, 3], &[8; 9])).unwrap();
        assert_eq!((t.shape(), t.to_f32().unwrap()[0]), (&[1, 3, 1, 3][..], 4.0));
    }

    #[test]
    fn numbers_are_computed_in_order_and_per_channel() {
        let p = steps("scale = 255.0\nmean = [0.5, 0.25]\nstd = [0.5, 2.0]\nstored = 'NHWC'");
        let t = p.array(&bytes(&[1, 2, 2], &[255, 0, 0, 255])).unwrap();
        assert_eq!(t.shape(), [1, 1, 2, 2]);
        assert_eq!(t.to_f32().unwrap(), [1.0, -0.125, -1.0, 0.375]);
    }

    #[test]
    fn stored_integers_become_real_numbers() {
        let p = steps("zero_point = 83\nmultiply = 0.5847029\nlayout = 'NHWC'");
        let stored = Stored { dtype: DType::I8, shape: &[2, 1, 1], bytes: &[83, 0xff] };
        let t = p.array(&stored).unwrap();
        assert_eq!(t.shape(), [1, 2, 1, 1]);
        assert_eq!(t.to_f32().unwrap(), [0.0, -84.0 * 0.5847029]);
    }

    #[test]
    fn layouts_are_told_by_the_shape() {
        let data: Vec<u8> = (0..12).collect();
        let chw = steps("layout = 'NCHW'").array(&bytes(&[2, 2, 3], &data)).unwrap();
        assert_eq!(chw.shape(), [1, 3, 2, 2]);
        assert_eq!(chw.bytes(), [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
        let same = steps("layout = 'NCHW'").array(&bytes(&[3, 2, 2], &data)).unwrap();
        assert_eq!(same.bytes(), data);
        let hwc = steps("layout = 'NHWC'").array(&bytes(&[3, 2, 2], &data)).unwrap();
        assert_eq!((hwc.shape(), hwc.bytes()[1]), (&[1, 2, 2, 3][..], 4));
        let grey = steps("layout = 'NCHW'").array(&bytes(&[2, 6], &data)).unwrap();
        assert_eq!(grey.shape(), [1, 1, 2, 6]);
    }

    #[test]
    fn an_ambiguous_layout_is_asked_for() {
        let data = [0; 9];
        let e = steps("layout = 'NCHW'").array(&bytes(&[3, 1, 3], &data)).unwrap_err();
        assert_eq!(e.stable_code(), "FB-3334");
        assert!(e.advice().unwrap().contains("stored"));
        let t = steps("layout = 'NCHW'\nstored = 'NHWC'").array(&bytes(&[3, 1, 3], &data)).unwrap();
        assert_eq!(t.shape(), [1, 3, 3, 1]);
        assert!(steps("layout = 'NCHW'").array(&bytes(&[9], &data)).is_err());
    }

    #[test]
    fn pixel_steps_work_on_stored_images_of_either_layout() {
        let chw: Vec<u8> = (0..12).collect();
        let t = steps("channels = 'BGR'\nlayout = 'NCHW'").array(&bytes(&[3, 2, 2], &chw)).unwrap();
        assert_eq!(t.bytes(), [8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3]);
        let t = steps("crop = 1").array(&bytes(&[2, 2, 3], &chw)).unwrap();
        assert_eq!((t.shape(), t.bytes()), (&[1, 1, 1, 3][..], &[0u8, 1, 2][..]));
        let floats = Stored { dtype: DType::F32, shape: &[2, 2, 1], bytes: &[0; 16] };
        assert_eq!(steps("crop = 1").array(&floats).unwrap_err().stable_code(), "FB-4335");
    }

    #[test]
    fn means_must_match_the_channels() {
        let e = steps("mean = [1.0, 2.0]").array(&bytes(&[2, 2, 3], &[0; 12])).unwrap_err();
        assert_eq!((e.stable_code(), e.place().as_str()), ("FB-3333", "[input]: `mean`"));
        let t = steps("mean = [1.0, 2.0]").array(&bytes(&[2], &[5, 5])).unwrap();
        assert_eq!(t.to_f32().unwrap(), [4.0, 3.0]);
    }
}
