//! `InstanceNormalization` and `GroupNormalization`: statistics over part of one sample.

use super::{channels, parameter};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::half::through_f32;
use fewbit_core::{Error, Result, Tensor};
use fewbit_kernels::norm::group_norm_f32;

pub(in crate::ops) const INSTANCE: OpDef =
    OpDef::new("InstanceNormalization", same_as_input, instance);
pub(in crate::ops) const GROUP: OpDef = OpDef::new("GroupNormalization", same_as_input, group);

fn instance(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, instance)? {
        return Ok(done);
    }
    let (count, _) = channels(ctx.input(0)?.shape())?;
    normalize(ctx, count)
}

fn group(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, group)? {
        return Ok(done);
    }
    let groups = ctx.int("num_groups", 0)?;
    let (count, _) = channels(ctx.input(0)?.shape())?;
    match usize::try_from(groups) {
        Ok(groups) if groups > 0 && count.is_multiple_of(groups) => normalize(ctx, groups),
        _ => Err(Error::bad_input(format!("{groups} groups of {count} channels")).code("FB-3208")),
    }
}

fn normalize(ctx: &mut EvalCtx, groups: usize) -> Result<Vec<Tensor>> {
    let x = ctx.input(0)?;
    let (count, inner) = channels(x.shape())?;
    let scale = per_channel(ctx.input(1)?, count, groups, "scale")?;
    let bias = per_channel(ctx.input(2)?, count, groups, "bias")?;
    let epsilon = ctx.float("epsilon", 1e-5)?;
    let data = x.cow::<f32>()?;
    let y = ctx.output(x.shape().to_vec(), |out| {
        if !data.is_empty() {
            group_norm_f32(*ctx.kernels, &data, inner, groups, (&scale, &bias), epsilon, out);
        }
        Ok(())
    })?;
    Ok(vec![y])
}

/// One value for each channel; `GroupNormalization` of operator set 18 gave one for each group.
fn per_channel(tensor: &Tensor, count: usize, groups: usize, what: &str) -> Result<Vec<f32>> {
    if tensor.len() == groups && groups != count {
        let values = tensor.to_f32()?;
        return Ok((0..count).map(|c| values[c / (count / groups)]).collect());
    }
    parameter(tensor, count, what)
}
