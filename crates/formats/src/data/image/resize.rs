//! Resizing with antialiasing, bit for bit the arithmetic of Pillow's `Image.resize` on 8-bit
//! images: separable filters, widened when shrinking, in 22-bit fixed point, rounded to 8 bits
//! after each of the two passes (horizontal first).

use super::Image;
use super::decode::MAX_PIXELS;
use crate::data::card::Interpolation;
use fewbit_core::{Error, Result};

/// Fraction bits of the fixed-point weights.
const PRECISION: u32 = 32 - 8 - 2;

/// Scales so that the shorter side has `side` pixels; the longer one is rounded down, as in
/// torchvision's `Resize`.
///
/// # Errors
/// `FB-3331` when the result would be too large.
pub(super) fn short_side(image: &Image, side: usize, how: Interpolation) -> Result<Image> {
    let (w, h) = (image.width, image.height);
    if w.min(h) == side || w.min(h) == 0 {
        return Ok(image.clone());
    }
    let long = |n: usize, short: usize| (side as u64 * n as u64 / short as u64) as usize;
    let (width, height) = if w < h { (side, long(h, w)) } else { (long(w, h), side) };
    if (width as u64).saturating_mul(height as u64) > MAX_PIXELS {
        let what = format!("{w}x{h} resized to {width}x{height}; at most {MAX_PIXELS} pixels");
        return Err(Error::bad_input(what).code("FB-3331").at("`resize`"));
    }
    Ok(to_size(image, width, height, how))
}

/// Scales to exactly `width` and `height`, neither of them 0.
pub(super) fn to_size(image: &Image, width: usize, height: usize, how: Interpolation) -> Image {
    let Some(filter) = Filter::of(how) else { return nearest(image, width, height) };
    let mut out = image.clone();
    if width != image.width {
        out = horizontal(&out, &Weights::new(image.width, width, filter));
    }
    if height != image.height {
        out = vertical(&out, &Weights::new(image.height, height, filter));
    }
    out
}

fn nearest(image: &Image, width: usize, height: usize) -> Image {
    let c = image.channels;
    let pick = |from: usize, to: usize| -> Vec<usize> {
        let scale = from as f64 / to as f64;
        (0..to).map(|i| (((i as f64 + 0.5) * scale) as usize).min(from - 1)).collect()
    };
    let columns = pick(image.width, width);
    let mut pixels = Vec::with_capacity(width * height * c);
    for y in pick(image.height, height) {
        let row = &image.pixels[y * image.width * c..];
        columns.iter().for_each(|x| pixels.extend_from_slice(&row[x * c..(x + 1) * c]));
    }
    Image { width, height, channels: c, pixels }
}

#[derive(Clone, Copy)]
struct Filter {
    support: f64,
    weight: fn(f64) -> f64,
}

impl Filter {
    fn of(how: Interpolation) -> Option<Filter> {
        match how {
            Interpolation::Nearest => None,
            Interpolation::Bilinear => Some(Filter { support: 1.0, weight: triangle }),
            Interpolation::Bicubic => Some(Filter { support: 2.0, weight: cubic }),
        }
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic convolution kernel with a = -0.5 (doi:10.1109/TASSP.1981.1163711).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// For every output position: the first input position and the weights from there on.
struct Weights {
    rows: Vec<(usize, Vec<i32>)>,
}

impl Weights {
    fn new(from: usize, to: usize, filter: Filter) -> Weights {
        let scale = from as f64 / to as f64;
        // Enlarging keeps the filter's own width.
        let stretch = scale.max(1.0);
        let row = |i: usize| {
            let centre = (i as f64 + 0.5) * scale;
            let reach = filter.support * stretch;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let last = ((centre + reach + 0.5) as usize).min(from);
            let weight = |x: usize| (filter.weight)(((x as f64) - centre + 0.5) * (1.0 / stretch));
            let weights: Vec<f64> = (first..last).map(weight).collect();
            (first, fixed_point(&weights))
        };
        Weights { rows: (0..to).map(row).collect() }
    }
}

fn fixed_point(weights: &[f64]) -> Vec<i32> {
    let sum: f64 = weights.iter().sum();
    let one = f64::from(1u32 << PRECISION);
    let round = |w: f64| (w + if w < 0.0 { -0.5 } else { 0.5 }) as i32;
    weights.iter().map(|w| round(if sum == 0.0 { *w } else { w / sum } * one)).collect()
}

fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

fn horizontal(image: &Image, weights: &Weights) -> Image {
    let c = image.channels;
    let width = weights.rows.len();
    let mut pixels = Vec::with_capacity(width * image.height * c);
    for row in image.pixels.chunks_exact(image.width * c) {
        for (first, weights) in &weights.rows {
            for channel in 0..c {
                let taps = row[first * c + channel..].iter().step_by(c);
                let sum = taps.zip(weights).fold(HALF, |s, (p, w)| s + i32::from(*p) * w);
                pixels.push(clip(sum));
            }
        }
    }
    Image { width, height: image.height, channels: c, pixels }
}

fn vertical(image: &Image, weights: &Weights) -> Image {
    let stride = image.width * image.channels;
    let height = weights.rows.len();
    let mut pixels = Vec::with_capacity(stride * height);
    let mut sums = vec![0i32; stride];
    for (first, weights) in &weights.rows {
        sums.fill(HALF);
        for (row, w) in image.pixels.chunks_exact(stride).skip(*first).zip(weights) {
            sums.iter_mut().zip(row).for_each(|(s, p)| *s += i32::from(*p) * w);
        }
        pixels.extend(sums.iter().map(|s| clip(*s)));
    }
    Image { width: image.width, height, channels: image.channels, pixels }
}
