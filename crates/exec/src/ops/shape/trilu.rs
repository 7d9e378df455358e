//! `Trilu`: the upper or lower triangle of matrices, zeros elsewhere.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::movement::move_elements;
use crate::ops::params::scalar_int;
use fewbit_core::{Error, Result, Tensor};

pub(super) const DEF: OpDef = OpDef::new("Trilu", same_as_input, eval).role(Role::SameScale);
/// As exporters wrote it before operator set 14.
pub(super) const MICROSOFT: OpDef = DEF.domain("com.microsoft").role(Role::FloatOnly);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let &[.., rows, columns] = input.shape() else {
        return Err(Error::bad_input(format!("Trilu needs matrices, found {:?}", input.shape())));
    };
    let k = ctx.opt(1).map_or(Ok(0), scalar_int)?;
    let upper = ctx.int("upper", 1)? != 0;
    let out = move_elements(ctx, &[input], input.shape().to_vec(), |inputs, out, size| {
        out.copy_from_slice(inputs[0]);
        if out.is_empty() {
            return Ok(());
        }
        for (i, line) in out.chunks_exact_mut(columns * size).enumerate() {
            let row = (i % rows) as i64;
            // First column that belongs to the upper triangle (or lies past the lower one).
            let bound = row.saturating_add(k).saturating_add(!upper as i64);
            let at = bound.clamp(0, columns as i64) as usize * size;
            if upper { line[..at].fill(0) } else { line[at..].fill(0) }
        }
        Ok(())
    })?;
    Ok(vec![out])
}
