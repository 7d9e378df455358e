//! `ConvInteger` and `QLinearConv`.

use super::exact;
use super::patches::Patches;
use super::requantize::{one_scale, one_zero_point, requantized};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::conv::geometry::Geometry;
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};

pub(super) const INTEGER: OpDef = OpDef::new("ConvInteger", infer_integer, eval_integer);
pub(super) const LINEAR: OpDef = OpDef::new("QLinearConv", infer_linear, eval_linear);

/// The exact convolution of inputs `x` and `w` with zero points at `x_zero` and `w_zero`.
fn convolved(ctx: &EvalCtx, [x, w, x_zero, w_zero]: [usize; 4]) -> Result<Tensor> {
    let (input, weight) = (ctx.input(x)?, ctx.input(w)?);
    exact::expect_bytes(&[input, weight])?;
    if ctx.int("channels_last", 0)? != 0 {
        return Err(Error::unsupported("a convolution with channels last"));
    }
    let geometry = Geometry::of_conv(ctx.node, weight.shape())?;
    let (&[batch, channels, ref spatial @ ..], true) = (input.shape(), input.rank() >= 3) else {
        return Err(Error::bad_input(format!("an input of shape {:?}", input.shape())));
    };
    if channels != geometry.in_c {
        return Err(Error::bad_input(format!(
            "{channels} input channels for a weight of shape {:?} in {} groups",
            weight.shape(),
            geometry.groups
        )));
    }
    let outputs = geometry.window.output_sizes(spatial)?;
    let mut shape = vec![batch, geometry.out_c];
    shape.extend(&outputs);
    let mut out = ctx.alloc(DType::I32, shape)?;
    one_zero_point(ctx.opt(x_zero))?;
    let image = exact::centred(input, ctx.opt(x_zero), exact::by_column)?;
    let per_channel = |s: &[usize]| [s, &vec![1; weight.rank() - 1]].concat();
    let taps = exact::centred(weight, ctx.opt(w_zero), per_channel)?;
    let begin = spatial.iter().enumerate().map(|(axis, &n)| geometry.window.pads(axis, n).0);
    let patches = Patches {
        window: &geometry.window,
        input: spatial,
        outputs: &outputs,
        begin: begin.collect(),
    };
    accumulate(ctx, &geometry, &patches, &image, &taps, out.as_mut_slice()?)?;
    Ok(out)
}

fn accumulate(
    ctx: &EvalCtx,
    geometry: &Geometry,
    patches: &Patches,
    image: &[i32],
    weight: &[i32],
    out: &mut [i32],
) -> Result<()> {
    out.fill(0);
    if out.is_empty() {
        return Ok(());
    }
    let places: usize = patches.outputs.iter().product();
    let rows = geometry.in_c / geometry.groups * patches.taps();
    let group_out = geometry.out_c / geometry.groups;
    let group_in = image.len() / (out.len() / (group_out * places));
    let mut columns = ctx.alloc(DType::I32, vec![rows, places])?;
    for (index, sums) in out.chunks_exact_mut(group_out * places).enumerate() {
        let group = index % geometry.groups;
        patches.fill(&image[index * group_in..][..group_in], columns.as_mut_slice()?);
        let weight = &weight[group * group_out * rows..][..group_out * rows];
        exact::multiply(ctx, weight, columns.as_slice()?, (rows, places), sums);
    }
    ctx.arena.recycle(columns);
    Ok(())
}

fn eval_integer(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    Ok(vec![convolved(ctx, [0, 1, 2, 3])?])
}

fn eval_linear(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let mut sums = convolved(ctx, [0, 3, 2, 5])?;
    let channels = sums.shape()[1];
    let plane: usize = sums.shape()[2..].iter().product();
    let channel = |i: usize| i / plane % channels;
    if let Some(bias) = ctx.opt(8) {
        let bias = bias.to_i64()?;
        if bias.len() != channels {
            return Err(Error::bad_input(format!("{} biases for {channels} channels", bias.len())));
        }
        let sums = sums.as_mut_slice::<i32>()?.iter_mut().enumerate();
        sums.for_each(|(i, sum)| *sum = sum.wrapping_add(bias[channel(i)] as i32));
    }
    let (x_scale, y_scale) = (one_scale(ctx.input(1)?)?, one_scale(ctx.input(6)?)?);
    let factors: Vec<f32> =
        ctx.input(4)?.to_f32()?.iter().map(|w_scale| x_scale * w_scale / y_scale).collect();
    if factors.len() != 1 && factors.len() != channels {
        return Err(Error::bad_input(format!("{} scales for {channels} channels", factors.len()))
            .code("FB-3220"));
    }
    let factor = |i: usize| if factors.len() == 1 { factors[0] } else { factors[channel(i)] };
    let dtype = ctx.opt(7).map_or(ctx.input(0)?.dtype(), Tensor::dtype);
    Ok(vec![requantized(&sums, factor, one_zero_point(ctx.opt(7))?, dtype)?])
}

fn output_dims(ctx: &InferCtx, w: usize) -> Result<Option<Vec<Dim>>> {
    let (Some(input), Some(weight)) = (ctx.shape(0), ctx.shape(w)) else {
        return Ok(None);
    };
    let Some(weight) = crate::ops::params::all_known(weight) else {
        return Ok(Some(crate::ops::params::open(input.len())));
    };
    let geometry = Geometry::of_conv(ctx.node, &weight)?;
    let [batch, _, spatial @ ..] = input else {
        return Err(Error::bad_input("a convolution of a tensor without channels"));
    };
    let mut dims = vec![batch.clone(), Dim::Known(geometry.out_c)];
    dims.extend(geometry.window.output_dims(spatial)?);
    Ok(Some(dims))
}

fn infer_integer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![typed(Some(DType::I32), output_dims(ctx, 1)?)])
}

fn infer_linear(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = if ctx.has(7) { ctx.dtype(7) } else { ctx.dtype(0) };
    Ok(vec![typed(dtype, output_dims(ctx, 3)?)])
}
