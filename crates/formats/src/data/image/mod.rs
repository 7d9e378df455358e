//! JPEG and PNG files as 8-bit pixels, and the pixel steps of a data card.

mod decode;
mod jpeg;
mod resize;

pub(crate) use decode::read_bytes;
pub use decode::{decode, read};

use super::card::{Channels, InputSteps};
use fewbit_core::{Error, Result, Tensor};

/// 8-bit pixels, row by row, channels side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    pub(crate) pixels: Vec<u8>,
}

impl Image {
    /// Wraps `height * width * channels` bytes.
    ///
    /// # Errors
    /// When the length does not match.
    pub fn new(height: usize, width: usize, channels: usize, pixels: Vec<u8>) -> Result<Image> {
        let need = width.checked_mul(height).and_then(|n| n.checked_mul(channels));
        if need != Some(pixels.len()) {
            let what = format!("{height}x{width}x{channels} pixels in {} bytes", pixels.len());
            return Err(Error::bad_input(what).code("FB-3330"));
        }
        Ok(Image { width, height, channels, pixels })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha).
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The bytes in the order height, width, channels.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// As a `u8` tensor of shape [1, height, width, channels].
    ///
    /// # Errors
    /// When the image exceeds the limit for one tensor.
    pub fn to_tensor(&self) -> Result<Tensor> {
        Tensor::from_slice(vec![1, self.height, self.width, self.channels], &self.pixels)
    }

    /// The pixel steps of a card: `resize`, `crop`, `channels`, in this order.
    ///
    /// # Errors
    /// `FB-3332` when the crop is larger than the image.
    pub fn apply(mut self, steps: &InputSteps) -> Result<Image> {
        if let Some(side) = steps.resize {
            self =
                resize::short_side(&self, side as usize, steps.interpolation.unwrap_or_default())?;
        }
        if let Some(side) = steps.crop {
            self = self.crop_centre(side as usize)?;
        }
        match steps.channels {
            Some(channels) => self.with_channels(channels),
            None => Ok(self),
        }
    }

    /// The centre square; an odd margin is split as torchvision does, `round((n - side) / 2)`.
    fn crop_centre(self, side: usize) -> Result<Image> {
        let (w, h, c) = (self.width, self.height, self.channels);
        if side > w || side > h {
            let error = Error::bad_input(format!("crop {side} is larger than the image, {w}x{h}"));
            let hint = format!("add `resize = {side}` or more, or a smaller `crop`");
            return Err(error.code("FB-3332").at("`crop`").hint(hint));
        }
        let margin = |n: usize| ((n - side) as f64 / 2.0).round_ties_even() as usize;
        let (top, left) = (margin(h), margin(w));
        let mut pixels = Vec::with_capacity(side * side * c);
        for row in self.pixels.chunks_exact(w * c).skip(top).take(side) {
            pixels.extend_from_slice(&row[left * c..(left + side) * c]);
        }
        Ok(Image { width: side, height: side, channels: c, pixels })
    }

    /// Converts to the given channels; alpha is dropped, grey is repeated.
    pub(crate) fn with_channels(self, wanted: Channels) -> Result<Image> {
        let n = self.channels;
        let (width, height) = (self.width, self.height);
        if n == 0 || n > 4 {
            let what = format!("{n} channels are no image; 1 to 4 are");
            return Err(Error::bad_input(what).code("FB-3334").at("`channels`"));
        }
        let colour = |p: &[u8]| if n >= 3 { [p[0], p[1], p[2]] } else { [p[0]; 3] };
        let source = self.pixels.chunks_exact(n);
        let pixels: Vec<u8> = match wanted {
            Channels::Rgb if n == 3 => return Ok(self),
            Channels::Luma if n == 1 => return Ok(self),
            Channels::Rgb => source.flat_map(colour).collect(),
            Channels::Bgr => source.map(colour).flat_map(|[r, g, b]| [b, g, r]).collect(),
            Channels::Luma if n < 3 => source.map(|p| p[0]).collect(),
            Channels::Luma => source.map(colour).map(luma).collect(),
        };
        let channels = if wanted == Channels::Luma { 1 } else { 3 };
        Ok(Image { width, height, channels, pixels })
    }
}

/// ITU-R BT.601 luma in 16-bit fixed point, the arithmetic of Pillow's `convert("L")`.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000;
    (sum >> 16) as u8
}

#[cfg(test)]
mod tests;
