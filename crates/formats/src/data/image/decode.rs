//! Decoding, with the size known and limited before a pixel is allocated.
//!
//! Pixels are those that Pillow's plain `open` gives: palettes and bit depths below 8 are
//! expanded, and the EXIF orientation is *not* applied. Refused: 16-bit and CMYK images, animated
//! PNG, and any other format.

use super::{Image, jpeg};
use crate::data::file::{read_limited, show};
use fewbit_core::{Error, Result, ResultExt};
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder, ImageError, Limits};
use std::io::Cursor;
use std::path::Path;

/// Largest image file.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Largest side, in pixels.
const MAX_SIDE: u32 = 32_768;
/// Largest area, in pixels; Pillow warns above 89 million.
pub(super) const MAX_PIXELS: u64 = 90_000_000;

const PNG_MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG_MAGIC: &[u8] = b"\xFF\xD8";

/// Reads and decodes an image file.
///
/// # Errors
/// As [`decode`], and when the file cannot be read.
pub fn read(path: &Path) -> Result<Image> {
    decode(&read_bytes(path)?).at(|| show(path))
}

/// The bytes of an image file, not decoded.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    read_limited(path, MAX_FILE_BYTES)
}

/// Decodes a JPEG or PNG file, told by its content.
///
/// # Errors
/// `FB-3330` for a damaged or truncated image, `FB-3331` for one too large, `FB-4330` for CMYK,
/// `FB-4331` for 16 bits, `FB-4332` for an animation, `FB-4333` for another format.
pub fn decode(bytes: &[u8]) -> Result<Image> {
    if bytes.starts_with(PNG_MAGIC) {
        return png(bytes);
    }
    if bytes.starts_with(JPEG_MAGIC) {
        jpeg::check(bytes)?;
        let decoder = JpegDecoder::new(Cursor::new(bytes)).map_err(|e| image_error(&e))?;
        return pixels(decoder);
    }
    if bytes.is_empty() {
        return Err(Error::bad_input("the file is empty").code("FB-3330"));
    }
    let error = Error::unsupported("not a JPEG or PNG image").code("FB-4333");
    Err(error.at("byte 0").hint("images are read as JPEG or PNG: convert it"))
}

fn png(bytes: &[u8]) -> Result<Image> {
    let limits = limits();
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits);
    let decoder = decoder.map_err(|e| image_error(&e))?;
    if decoder.is_apng().map_err(|e| image_error(&e))? {
        let error = Error::unsupported("an animated PNG has many images").code("FB-4332");
        return Err(error.hint("save the frame you mean as its own file"));
    }
    pixels(decoder)
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_PIXELS * 4 + (1 << 20));
    limits
}

fn pixels(mut decoder: impl ImageDecoder) -> Result<Image> {
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    decoder.set_limits(limits()).map_err(|e| image_error(&e))?;
    let channels = match decoder.color_type() {
        ColorType::L8 => 1,
        ColorType::La8 => 2,
        ColorType::Rgb8 => 3,
        ColorType::Rgba8 => 4,
        other => {
            let error = Error::unsupported(format!("the image has {other:?} pixels, not 8-bit"));
            return Err(error.code("FB-4331").hint("convert it to 8 bits per channel"));
        }
    };
    // Within the limits above this fits in memory and in usize.
    let mut pixels = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut pixels).map_err(|e| image_error(&e))?;
    Image::new(height as usize, width as usize, channels, pixels)
}

fn check_size(width: u32, height: u32) -> Result<()> {
    let area = u64::from(width) * u64::from(height);
    if area == 0 {
        return Err(Error::bad_input("an image without pixels").code("FB-3330"));
    }
    if area > MAX_PIXELS || width > MAX_SIDE || height > MAX_SIDE {
        return Err(too_large(&format!("{width}x{height} pixels")));
    }
    Ok(())
}

fn too_large(what: &str) -> Error {
    let limit = format!("at most {MAX_SIDE} per side and {MAX_PIXELS} in all");
    Error::bad_input(format!("{what}; {limit}")).code("FB-3331").at("image size")
}

fn image_error(error: &ImageError) -> Error {
    match error {
        ImageError::Limits(_) => too_large("too many pixels"),
        ImageError::Unsupported(e) => Error::unsupported(format!("{e}")).code("FB-4334"),
        e => Error::bad_input(format!("damaged image: {e}")).code("FB-3330"),
    }
}
