//! `Shrink`: values near 0 become 0, the others move toward 0.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use fewbit_core::{Result, Tensor};

pub(super) const DEF: OpDef = OpDef::new("Shrink", same_as_input, eval).since(9);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let (bias, bound) = (f64::from(ctx.float("bias", 0.0)?), f64::from(ctx.float("lambd", 0.5)?));
    let whole = input.dtype().is_int();
    let shrink = |x: f64| {
        let moved = match x {
            x if x < -bound => x + bias,
            x if x > bound => x - bias,
            _ => 0.0,
        };
        if whole { moved.trunc() } else { moved }
    };
    let values: Vec<f64> = input.to_f64()?.into_iter().map(shrink).collect();
    Ok(vec![Tensor::from_f64(input.dtype(), input.shape().to_vec(), &values)?])
}
