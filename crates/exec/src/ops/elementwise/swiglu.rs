//! `SwiGLU`: a gate, through `Swish`, times a value.

use super::binary::pair;
use super::unary::{apply, via_f32};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::half::through_f32;
use crate::ops::number::mixed_dtypes;
use fewbit_core::{Error, Result, Tensor};
use fewbit_kernels::elementwise::{Binary, Unary};

pub(super) const DEF: OpDef = OpDef::new("SwiGLU", same_as_input, eval).since(28);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    check(ctx.input(0)?, ctx.input(1)?)?;
    let swish = Unary::Silu { alpha: ctx.float("alpha", 1.0)? };
    let gate = apply(ctx, swish, via_f32)?;
    gate.iter().map(|gate| pair(ctx, Binary::Mul, gate, ctx.input(1)?)).collect()
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
