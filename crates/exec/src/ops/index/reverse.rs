//! `ReverseSequence`: the beginning of each sequence of a batch, reversed.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::movement::move_elements;
use crate::ops::params::size;
use fewbit_core::{Error, Result, Tensor};

pub(super) const DEF: OpDef =
    OpDef::new("ReverseSequence", same_as_input, eval).role(Role::SameScale);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let (batch, time) = (ctx.int("batch_axis", 1)?, ctx.int("time_axis", 0)?);
    let batch_first = match (batch, time) {
        (0, 1) => true,
        (1, 0) => false,
        _ => {
            return Err(Error::bad_input(format!(
                "batch_axis {batch} and time_axis {time}; one must be 0 and the other 1"
            )));
        }
    };
    let &[outer, second, ref rest @ ..] = input.shape() else {
        return Err(Error::bad_input(format!("needs rank 2 at least, found {:?}", input.shape())));
    };
    let (sequences, steps) = if batch_first { (outer, second) } else { (second, outer) };
    let lengths = lengths(&ctx.input(1)?.to_i64()?, sequences, steps)?;
    let out = move_elements(ctx, &[input], input.shape().to_vec(), |inputs, out, size| {
        let block = rest.iter().product::<usize>() * size;
        if out.is_empty() {
            return Ok(());
        }
        for (i, slot) in out.chunks_exact_mut(block).enumerate() {
            let (a, b) = (i / second, i % second);
            let (sequence, step) = if batch_first { (a, b) } else { (b, a) };
            let length = lengths[sequence];
            let from = if step < length { length - 1 - step } else { step };
            let source = if batch_first { a * second + from } else { from * second + b };
            slot.copy_from_slice(&inputs[0][source * block..][..block]);
        }
        Ok(())
    })?;
    Ok(vec![out])
}

fn lengths(given: &[i64], sequences: usize, steps: usize) -> Result<Vec<usize>> {
    let lengths: Vec<usize> =
        given.iter().map(|&n| size(n, "a sequence length")).collect::<Result<_>>()?;
    if lengths.len() != sequences || lengths.iter().any(|&n| n > steps) {
        return Err(Error::bad_input(format!(
            "lengths {given:?} do not fit {sequences} sequences of {steps} steps"
        )));
    }
    Ok(lengths)
}
