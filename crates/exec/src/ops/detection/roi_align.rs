//! `RoiAlign` (opsets 10 to 22): regions pooled at exact positions (He et al. 2017).

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::index::wrap_index;
use crate::ops::params::size;
use fewbit_core::{Dim, Error, Node, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("RoiAlign", infer, eval).since(10);

/// More samples than this along an axis of a bin mean a damaged region.
const MAX_SAMPLES: f32 = 4096.0;

struct Pooling {
    height: usize,
    width: usize,
    samples: usize,
    scale: f32,
    /// Half a pixel, where coordinates name corners of pixels.
    offset: f32,
    max: bool,
}

/// Four neighbours of a sample and their weights.
type Sample = [(usize, f32); 4];

impl Pooling {
    fn of(node: &Node, opset: i64) -> Result<Pooling> {
        let number = |name: &str, default: i64| size(node.int(name)?.unwrap_or(default), name);
        let transform = node.string("coordinate_transformation_mode")?;
        let half_pixel = match transform.unwrap_or("half_pixel") {
            _ if opset < 16 => false,
            "half_pixel" => true,
            "output_half_pixel" => false,
            other => {
                return Err(Error::bad_input(format!("unknown transform `{other}`"))
                    .at("attribute `coordinate_transformation_mode`"));
            }
        };
        let max = match node.string("mode")?.unwrap_or("avg") {
            "avg" => false,
            "max" => true,
            other => {
                return Err(
                    Error::bad_input(format!("unknown mode `{other}`")).at("attribute `mode`")
                );
            }
        };
        Ok(Pooling {
            height: number("output_height", 1)?,
            width: number("output_width", 1)?,
            samples: number("sampling_ratio", 0)?,
            scale: node.float("spatial_scale")?.unwrap_or(1.0),
            offset: if half_pixel { 0.5 } else { 0.0 },
            max,
        })
    }

    /// Start, bin size and number of samples of a region along one axis.
    fn axis(&self, start: f32, end: f32, bins: usize) -> Result<(f32, f32, usize)> {
        let (start, end) = (start * self.scale - self.offset, end * self.scale - self.offset);
        let extent = if self.offset == 0.0 { (end - start).max(1.0) } else { end - start };
        let bin = extent / bins as f32;
        let samples = if self.samples > 0 { self.samples as f32 } else { bin.ceil() };
        if !start.is_finite() || samples.is_nan() || samples > MAX_SAMPLES {
            return Err(Error::bad_input(format!("a region from {start} to {end}")));
        }
        Ok((start, bin, samples.max(0.0) as usize))
    }

    /// The samples of every bin of a region, in row-major order.
    fn samples(&self, roi: &[f32], (h, w): (usize, usize)) -> Result<Vec<Vec<Sample>>> {
        let (top, bin_h, rows) = self.axis(roi[1], roi[3], self.height)?;
        let (left, bin_w, columns) = self.axis(roi[0], roi[2], self.width)?;
        let place = |start: f32, bin: f32, i: usize, sample: usize, count: usize| {
            start + i as f32 * bin + (sample as f32 + 0.5) * bin / count as f32
        };
        let mut bins = Vec::with_capacity(self.height * self.width);
        for ph in 0..self.height {
            for pw in 0..self.width {
                let grid = (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x)));
                let sample = |(y, x)| {
                    let y = place(top, bin_h, ph, y, rows);
                    neighbours(y, place(left, bin_w, pw, x, columns), h, w)
                };
                bins.push(grid.map(sample).collect());
            }
        }
        Ok(bins)
    }

    fn pool(&self, samples: &[Sample], plane: &[f32]) -> f32 {
        let term = |&(at, weight): &(usize, f32)| weight * plane[at];
        if self.max {
            let largest = |s: &Sample| s.iter().map(term).fold(f32::NEG_INFINITY, f32::max);
            return samples.iter().map(largest).reduce(f32::max).unwrap_or(0.0);
        }
        let sum: f32 = samples.iter().map(|s| s.iter().map(term).sum::<f32>()).sum();
        sum / samples.len().max(1) as f32
    }
}

/// Bilinear neighbours of a position; all weights are 0 outside the plane.
fn neighbours(y: f32, x: f32, h: usize, w: usize) -> Sample {
    let inside = |v: f32, n: usize| (-1.0..=n as f32).contains(&v);
    if !inside(y, h) || !inside(x, w) {
        return [(0, 0.0); 4];
    }
    let split = |v: f32, n: usize| {
        let v = v.max(0.0);
        match v as usize {
            low if low + 1 >= n => (n - 1, n - 1, 0.0),
            low => (low, low + 1, v - low as f32),
        }
    };
    let ((y0, y1, ly), (x0, x1, lx)) = (split(y, h), split(x, w));
    let (hy, hx) = (1.0 - ly, 1.0 - lx);
    [(y0 * w + x0, hy * hx), (y0 * w + x1, hy * lx), (y1 * w + x0, ly * hx), (y1 * w + x1, ly * lx)]
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, rois, batches) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let pooling = Pooling::of(ctx.node, ctx.opset)?;
    let &[n, c, h, w] = input.shape() else {
        return Err(Error::bad_input(format!("an input of shape {:?}", input.shape())));
    };
    let count = batches.len();
    if rois.shape() != [count, 4] {
        return Err(Error::bad_input(format!(
            "regions of shape {:?} for {count} batch indices",
            rois.shape()
        )));
    }
    let shape = vec![count, c, pooling.height, pooling.width];
    let (values, regions) = (input.to_f32()?, rois.to_f32()?);
    let batches = batches.to_i64()?;
    let pooled = ctx.output::<f32>(shape, |out| {
        if out.is_empty() {
            return Ok(());
        }
        if values.is_empty() {
            return Err(Error::bad_input("regions of an empty input"));
        }
        let bins = pooling.height * pooling.width;
        let regions = regions.chunks_exact(4).zip(&batches);
        for ((roi, &batch), out) in regions.zip(out.chunks_exact_mut(c * bins)) {
            let samples = pooling.samples(roi, (h, w))?;
            let image = &values[wrap_index(batch, n)? * c * h * w..][..c * h * w];
            for (plane, out) in image.chunks_exact(h * w).zip(out.chunks_exact_mut(bins)) {
                let bins = out.iter_mut().zip(&samples);
                bins.for_each(|(slot, samples)| *slot = pooling.pool(samples, plane));
            }
        }
        Ok(())
    })?;
    Ok(vec![pooled.cast(input.dtype())?])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let pooling = Pooling::of(ctx.node, ctx.opset)?;
    let count = ctx.shape(1).and_then(|s| s.first()).cloned().unwrap_or(Dim::Unknown);
    let channels = ctx.shape(0).and_then(|s| s.get(1)).cloned().unwrap_or(Dim::Unknown);
    let shape = vec![count, channels, Dim::Known(pooling.height), Dim::Known(pooling.width)];
    Ok(vec![typed(ctx.dtype(0), Some(shape))])
}
