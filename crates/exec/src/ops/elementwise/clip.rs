//! `Clip`: bounds as attributes before operator set 11, as inputs since.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::half::through_f32;
use crate::ops::number::{Number, for_number};
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::elementwise::{Unary, unary_f32_in_place};

pub(super) const DEF: OpDef = OpDef::new("Clip", same_as_input, eval).role(Role::Clamp);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let mut tensor = ctx.take(0)?;
    if tensor.dtype() == DType::F32 {
        let low = bound::<f32>(ctx, "min", 1)?.unwrap_or(f32::NEG_INFINITY);
        let high = bound::<f32>(ctx, "max", 2)?.unwrap_or(f32::INFINITY);
        unary_f32_in_place(*ctx.kernels, Unary::Clip { low, high }, tensor.as_mut_slice()?);
        return Ok(vec![tensor]);
    }
    for_number!(tensor.dtype(), T => clip::<T>(ctx, &mut tensor))?;
    Ok(vec![tensor])
}

fn clip<T: Number>(ctx: &EvalCtx, tensor: &mut Tensor) -> Result<()> {
    let low = bound::<T>(ctx, "min", 1)?.unwrap_or(T::LOWEST);
    let high = bound::<T>(ctx, "max", 2)?.unwrap_or(T::HIGHEST);
    for value in tensor.as_mut_slice::<T>()? {
        let raised = if *value < low { low } else { *value };
        *value = if raised > high { high } else { raised };
    }
    Ok(())
}

fn bound<T: Number>(ctx: &EvalCtx, name: &str, index: usize) -> Result<Option<T>> {
    if let Some(value) = ctx.node.float(name)? {
        return Ok(Some(T::from_f64(value as f64)));
    }
    let Some(tensor) = ctx.opt(index) else {
        return Ok(None);
    };
    match tensor.cow::<T>()?.first() {
        Some(&value) if tensor.len() == 1 => Ok(Some(value)),
        _ => Err(Error::bad_input(format!("{name} has {} elements, expected 1", tensor.len()))
            .code("FB-3205")),
    }
}
