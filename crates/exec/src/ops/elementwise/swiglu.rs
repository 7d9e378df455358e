//! `SwiGLU`: a gate, through `Swish`, times a value.

use super::binary::pair;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::half::through_f32;
use crate::ops::number::{mixed_dtypes, unsupported_dtype};
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::elementwise::{Binary, Unary, unary_f32_in_place};

pub(super) const DEF: OpDef = OpDef::new("SwiGLU", same_as_input, eval).since(28);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let kernel = Unary::Silu { alpha: ctx.float("alpha", 1.0)? };
    let mut gate = ctx.take(0)?;
    let value = ctx.input(1)?;
    check(&gate, value)?;
    match gate.dtype() {
        DType::F32 => unary_f32_in_place(*ctx.kernels, kernel, gate.as_mut_slice()?),
        DType::F64 => {
            let through = |x: &mut f64| *x = f64::from(kernel.apply(*x as f32));
            gate.as_mut_slice()?.iter_mut().for_each(through);
        }
        other => return Err(unsupported_dtype(other)),
    }
    Ok(vec![pair(ctx, Binary::Mul, &gate, value)?])
}

/// Nothing broadcasts here.
fn check(gate: &Tensor, value: &Tensor) -> Result<()> {
    if gate.dtype() != value.dtype() {
        return Err(mixed_dtypes(gate.dtype(), value.dtype()));
    }
    if gate.shape() != value.shape() {
        let (gate, value) = (gate.shape(), value.shape());
        return Err(Error::bad_input(format!("a gate of shape {gate:?} for values {value:?}")));
    }
    Ok(())
}
