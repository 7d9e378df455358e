//! `Resize` (opsets 10 to 19) and `Upsample` (7 to 10): tensors of another size, their elements
//! picked or interpolated.

mod coordinates;
mod nearest;
mod plan;
mod resample;
mod taps;

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use coordinates::Transform;
use fewbit_core::{Error, Node, Result, Tensor, ValueType};
use plan::{Plan, Request};

// Interpolation stays within the range of its input (cubic nearly so).
pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("Resize", infer, eval).since(10).role(Role::SameScale),
    OpDef::new("Upsample", infer, eval).since(7).role(Role::SameScale),
];

/// How output elements come from input elements.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

impl Mode {
    fn of(node: &Node) -> Result<Mode> {
        match node.string("mode")?.unwrap_or("nearest") {
            "nearest" => Ok(Mode::Nearest),
            "linear" | "bilinear" | "trilinear" => Ok(Mode::Linear),
            "cubic" | "bicubic" => Ok(Mode::Cubic),
            other => {
                Err(Error::bad_input(format!("unknown mode `{other}`")).at("attribute `mode`"))
            }
        }
    }
}

/// Whether the operator has the inputs `X, scales` only.
fn is_old(node: &Node, opset: i64) -> bool {
    node.op == "Upsample" || opset < 11
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let request = Request::of(ctx.node, ctx.opset, &|i| ctx.opt(i))?;
    let plan = Plan::new(input.shape(), &request)?;
    let transform = Transform::of(ctx.node, is_old(ctx.node, ctx.opset))?;
    if plan.is_identity(transform) {
        return Ok(vec![ctx.take(0)?]);
    }
    if input.is_empty() && !plan.shape().contains(&0) {
        return Err(Error::bad_input(format!(
            "an empty tensor of shape {:?} cannot become {:?}",
            input.shape(),
            plan.shape()
        )));
    }
    let out = match Mode::of(ctx.node)? {
        Mode::Nearest => nearest::resize(ctx, input, &plan, transform)?,
        mode => resample::resize(ctx, input, &plan, transform, mode)?,
    };
    Ok(vec![out])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(dims) = ctx.shape(0) else {
        return Ok(vec![typed(ctx.dtype(0), None)]);
    };
    let count = if is_old(ctx.node, ctx.opset) { 2 } else { 4 };
    let known = (1..count).all(|i| !ctx.has(i) || ctx.constant(i).is_some());
    let shape = match known {
        true => {
            let request = Request::of(ctx.node, ctx.opset, &|i| ctx.constant(i))?;
            plan::output_dims(dims, &request)?
        }
        false => crate::ops::params::open(dims.len()),
    };
    Ok(vec![typed(ctx.dtype(0), Some(shape))])
}

#[cfg(test)]
mod tests;
