//! `MaxRoiPool`: the largest elements of each part of a region (Girshick 2015).

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::index::wrap_index;
use crate::ops::params::size;
use fewbit_core::{Dim, Error, Node, Result, Tensor, ValueType};
use std::ops::Range;

pub(super) const DEF: OpDef = OpDef::new("MaxRoiPool", infer, eval);

fn pooled_shape(node: &Node) -> Result<(usize, usize)> {
    match node.ints("pooled_shape")? {
        Some(&[h, w]) => Ok((size(h, "pooled_shape")?, size(w, "pooled_shape")?)),
        _ => Err(Error::bad_input("two numbers are expected").at("attribute `pooled_shape`")),
    }
}

/// The elements of part `part` of `parts` of a region from `start` to `end`, both included.
fn part(start: f32, end: f32, part: usize, parts: usize, dim: usize) -> Range<usize> {
    let bin = (end - start + 1.0).max(1.0) / parts as f32;
    let clamp = |v: f32| (v + start).clamp(0.0, dim as f32) as usize;
    clamp((part as f32 * bin).floor())..clamp(((part + 1) as f32 * bin).ceil())
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, rois) = (ctx.input(0)?, ctx.input(1)?);
    let (rows, columns) = pooled_shape(ctx.node)?;
    let scale = ctx.float("spatial_scale", 1.0)?;
    let (&[n, c, h, w], &[count, 5]) = (input.shape(), rois.shape()) else {
        return Err(Error::bad_input(format!(
            "an input of shape {:?} with regions of shape {:?}",
            input.shape(),
            rois.shape()
        )));
    };
    let (values, regions) = (input.to_f32()?, rois.to_f32()?);
    let pooled = ctx.output::<f32>(vec![count, c, rows, columns], |out| {
        if out.is_empty() {
            return Ok(());
        }
        for (roi, out) in regions.chunks_exact(5).zip(out.chunks_exact_mut(c * rows * columns)) {
            let [left, top, right, bottom] = [1, 2, 3, 4].map(|i| (roi[i] * scale).round());
            let image = wrap_index(roi[0] as i64, n)? * c * h * w;
            for (i, slot) in out.iter_mut().enumerate() {
                let (channel, bin) = (i / (rows * columns), i % (rows * columns));
                let ys = part(top, bottom, bin / columns, rows, h);
                let xs = part(left, right, bin % columns, columns, w);
                let line = |y: usize| image + (channel * h + y) * w;
                let places = ys.flat_map(|y| xs.clone().map(move |x| line(y) + x));
                *slot = places.map(|at| values[at]).reduce(f32::max).unwrap_or(0.0);
            }
        }
        Ok(())
    })?;
    Ok(vec![pooled.cast(input.dtype())?])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let (rows, columns) = pooled_shape(ctx.node)?;
    let count = ctx.shape(1).and_then(|s| s.first()).cloned().unwrap_or(Dim::Unknown);
    let channels = ctx.shape(0).and_then(|s| s.get(1)).cloned().unwrap_or(Dim::Unknown);
    let shape = vec![count, channels, Dim::Known(rows), Dim::Known(columns)];
    Ok(vec![typed(ctx.dtype(0), Some(shape))])
}
