//! Functions of one number.

use crate::eval::EvalCtx;
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::elementwise::{Unary, unary_f32_in_place};

pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let op = unary(ctx)?;
    let input = ctx.take(0)?;
    let dtype = input.dtype();
    if dtype.is_int() && dtype.bits() > 16 || !(dtype.is_int() || dtype.is_float()) {
        return Err(Error::unsupported(format!("{} of {dtype} values", ctx.node.op)));
    }
    let mut values = input.cast(DType::F32)?;
    drop(input);
    unary_f32_in_place(*ctx.kernels, op, values.as_mut_slice()?);
    Ok(vec![values.cast(dtype)?])
}

fn unary(ctx: &EvalCtx) -> Result<Unary> {
    let alpha = |default| ctx.float("alpha", default);
    Ok(match ctx.node.op.as_str() {
        "Relu" => Unary::Relu,
        "Clip" => Unary::Clip {
            low: bound(ctx, 1, "min", f32::NEG_INFINITY)?,
            high: bound(ctx, 2, "max", f32::INFINITY)?,
        },
        "LeakyRelu" => Unary::LeakyRelu { alpha: alpha(0.01)? },
        "Sigmoid" => Unary::Sigmoid,
        "HardSigmoid" => Unary::HardSigmoid { alpha: alpha(0.2)?, beta: ctx.float("beta", 0.5)? },
        "HardSwish" => Unary::HardSwish,
        "Tanh" => Unary::Tanh,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sqrt" => Unary::Sqrt,
        "Reciprocal" => Unary::Reciprocal,
        "Erf" => Unary::Erf,
        "Gelu" if ctx.string("approximate", "none")? == "tanh" => Unary::GeluTanh,
        "Gelu" => Unary::Gelu,
        "Elu" => Unary::Elu { alpha: alpha(1.0)? },
        "Selu" => Unary::Selu { alpha: alpha(1.673_263_2)?, gamma: ctx.float("gamma", 1.050_701)? },
        "Celu" => Unary::Celu { alpha: alpha(1.0)? },
        "Softplus" => Unary::Softplus,
        "Softsign" => Unary::Softsign,
        "Mish" => Unary::Mish,
        "Abs" => Unary::Abs,
        "Neg" => Unary::Neg,
        "Sign" => Unary::Sign,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Round" => Unary::Round,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        other => return Err(Error::internal(format!("{other} is no function here"))),
    })
}

/// A bound of `Clip`: an input since operator set 11, an attribute before.
fn bound(ctx: &EvalCtx, index: usize, name: &str, default: f32) -> Result<f32> {
    match ctx.opt(index) {
        None => ctx.float(name, default),
        Some(bound) => match bound.to_f32()?.as_slice() {
            [one] => Ok(*one),
            _ => Err(Error::bad_input(format!("the bound is one number, found {bound:?}"))),
        },
    }
}
