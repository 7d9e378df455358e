//! ONNX Runtime's average pools on 8-bit codes: `QLinearAveragePool`,
//! `QLinearGlobalAveragePool`.

use super::requantize::{affine, byte_tensor, quantizer};
use super::{MICROSOFT, exact};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::window::Window;
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};
use fewbit_kernels::quantize::Affine;

pub(super) const AVERAGE: OpDef =
    OpDef::new("QLinearAveragePool", infer_average, eval_average).domain(MICROSOFT);
pub(super) const GLOBAL: OpDef =
    OpDef::new("QLinearGlobalAveragePool", infer_global, eval_global).domain(MICROSOFT);

/// Reads a shape as batch, channels and spatial sizes, wherever the channels stand.
fn split(shape: &[usize], last: bool) -> Result<(usize, usize, Vec<usize>)> {
    match (shape, last) {
        ([n, c, spatial @ ..], false) if !spatial.is_empty() => Ok((*n, *c, spatial.to_vec())),
        ([n, spatial @ .., c], true) if !spatial.is_empty() => Ok((*n, *c, spatial.to_vec())),
        _ => Err(Error::bad_input(format!("a pool over a tensor of shape {shape:?}"))),
    }
}

fn merged<T: Clone>(n: T, c: T, spatial: &[T], last: bool) -> Vec<T> {
    match last {
        true => [&[n], spatial, &[c]].concat(),
        false => [&[n, c], spatial].concat(),
    }
}

fn eval_average(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let window = Window::of_pool(ctx.node)?;
    Ok(vec![pooled(ctx, window, ctx.int("count_include_pad", 0)? != 0)?])
}

fn eval_global(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let last = ctx.int("channels_last", 0)? != 0;
    let (_, _, spatial) = split(ctx.input(0)?.shape(), last)?;
    if spatial.contains(&0) {
        return Err(Error::bad_input("the average of no elements"));
    }
    Ok(vec![pooled(ctx, Window::whole(&spatial), false)?])
}

fn pooled(ctx: &EvalCtx, window: Window, count_padding: bool) -> Result<Tensor> {
    let input = ctx.input(0)?;
    exact::expect_bytes(&[input])?;
    let last = ctx.int("channels_last", 0)? != 0;
    let (n, c, spatial) = split(input.shape(), last)?;
    let outputs = window.output_sizes(&spatial)?;
    let meaning = affine(ctx.input(1)?, ctx.opt(2))?;
    let output = quantizer(input.dtype(), affine(ctx.input(3)?, ctx.opt(4))?)?;
    let shape = merged(n, c, &outputs, last);
    let codes = input.to_i64()?;
    let mut out = ctx.alloc(input.dtype(), shape.clone())?.bytes().to_vec();
    let (plane, places): (usize, usize) = (spatial.iter().product(), outputs.iter().product());
    let pool = Pool { window, spatial, outputs, count_padding, meaning };
    for image in 0..n * c {
        // Channels are either whole planes or interleaved.
        let (start, step) =
            if last { (image / c * plane * c + image % c, c) } else { (image * plane, 1) };
        let (first, stride) =
            if last { (image / c * places * c + image % c, c) } else { (image * places, 1) };
        for place in 0..places {
            let average = pool.average(place, |at| codes[start + at * step] as i32);
            out[first + place * stride] = output.code(average) as u8;
        }
    }
    byte_tensor(input.dtype(), shape, &out)
}

struct Pool {
    window: Window,
    spatial: Vec<usize>,
    outputs: Vec<usize>,
    count_padding: bool,
    meaning: Affine,
}

impl Pool {
    /// The average of one window as a number.
    fn average(&self, place: usize, code: impl Fn(usize) -> i32) -> f32 {
        let (mut sum, mut inside) = (0i32, 0usize);
        let (ranges, all) = self.ranges(place);
        let mut at: Vec<usize> = vec![0; ranges.len()];
        let count: usize = ranges.iter().map(Vec::len).product();
        for _ in 0..count {
            let offset =
                (0..at.len()).fold(0, |o, axis| o * self.spatial[axis] + ranges[axis][at[axis]]);
            sum = sum.wrapping_add(code(offset).wrapping_sub(self.meaning.zero_point));
            inside += 1;
            for axis in (0..at.len()).rev() {
                at[axis] += 1;
                if at[axis] < ranges[axis].len() {
                    break;
                }
                at[axis] = 0;
            }
        }
        let count = if self.count_padding { all } else { inside };
        sum as f32 / count.max(1) as f32 * self.meaning.scale
    }

    /// Input coordinates under the window along each axis, and how many elements the window
    /// has, those in explicit padding included.
    fn ranges(&self, mut place: usize) -> (Vec<Vec<usize>>, usize) {
        let mut ranges = vec![Vec::new(); self.spatial.len()];
        let mut all = 1;
        for axis in (0..self.spatial.len()).rev() {
            let output = place % self.outputs[axis];
            place /= self.outputs[axis];
            let (begin, end) = self.window.pads(axis, self.spatial[axis]);
            let start = output * self.window.strides[axis];
            let taps =
                (0..self.window.kernel[axis]).map(|k| start + k * self.window.dilations[axis]);
            let padded = taps.filter(|&at| at < self.spatial[axis] + begin + end);
            let padded: Vec<usize> = padded.collect();
            all *= padded.len();
            let inside = padded.iter().filter_map(|at| at.checked_sub(begin));
            ranges[axis] = inside.filter(|&at| at < self.spatial[axis]).collect();
        }
        (ranges, all)
    }
}

fn infer_average(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let window = Window::of_pool(ctx.node)?;
    infer_with(ctx, |spatial| window.output_dims(spatial))
}

fn infer_global(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    infer_with(ctx, |spatial| Ok(vec![Dim::Known(1); spatial.len()]))
}

fn infer_with(
    ctx: &InferCtx,
    outputs: impl Fn(&[Dim]) -> Result<Vec<Dim>>,
) -> Result<Vec<ValueType>> {
    let last = ctx.node.int("channels_last")?.unwrap_or(0) != 0;
    let shape = match (ctx.shape(0), last) {
        (Some([n, c, spatial @ ..]), false) => {
            Some(merged(n.clone(), c.clone(), &outputs(spatial)?, last))
        }
        (Some([n, spatial @ .., c]), true) => {
            Some(merged(n.clone(), c.clone(), &outputs(spatial)?, last))
        }
        _ => None,
    };
    Ok(vec![typed(ctx.dtype(0), shape)])
}
