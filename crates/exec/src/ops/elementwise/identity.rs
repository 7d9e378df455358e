//! `Identity`: the input, unchanged.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use fewbit_core::{Result, Tensor};

pub(super) const DEF: OpDef = OpDef::new("Identity", same_as_input, eval).role(Role::SameScale);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    Ok(vec![ctx.take(0)?])
}
