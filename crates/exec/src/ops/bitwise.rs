//! `BitShift`, `BitwiseAnd`, `BitwiseOr`, `BitwiseXor` and `BitwiseNot`.

use super::broadcast::zip;
use super::number::{for_int, mixed_dtypes};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{broadcast, same_as_input};
use fewbit_core::{Error, Result, Tensor};

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("BitShift", broadcast, shift).since(11),
    OpDef::new("BitwiseAnd", broadcast, and).since(18),
    OpDef::new("BitwiseNot", same_as_input, not).since(18),
    OpDef::new("BitwiseOr", broadcast, or).since(18),
    OpDef::new("BitwiseXor", broadcast, xor).since(18),
];

macro_rules! bits {
    ($($name:ident $op:tt;)*) => { $(
        fn $name(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
            let (a, b) = pair(ctx)?;
            Ok(vec![for_int!(a.dtype(), T => zip(ctx, a, b, |a: T, b: T| a $op b))?])
        }
    )* };
}
bits! { and &; or |; xor ^; }

fn pair<'a>(ctx: &'a EvalCtx) -> Result<(&'a Tensor, &'a Tensor)> {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    match a.dtype() == b.dtype() {
        true => Ok((a, b)),
        false => Err(mixed_dtypes(a.dtype(), b.dtype())),
    }
}

fn not(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let mut input = ctx.take(0)?;
    // Whole-byte integers only: the unused bits of a packed tensor must stay 0.
    for_int!(input.dtype(), T => input.as_mut_slice::<T>().map(|_| ()))?;
    input.bytes_mut().iter_mut().for_each(|byte| *byte = !*byte);
    Ok(vec![input])
}

fn shift(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (a, b) = pair(ctx)?;
    let dtype = a.dtype();
    if dtype.is_signed_int() && ctx.opset < 28 {
        let what =
            format!("BitShift of {dtype}; before operator set 28 it is for unsigned integers");
        return Err(Error::bad_input(what));
    }
    // Shifting out every bit, or by less than none, leaves 0, where the machine would take the
    // amount modulo the width; to the right, copies of the sign come in.
    let out = match ctx.string("direction", "")? {
        "LEFT" => {
            for_int!(dtype, T => zip(ctx, a, b, |a: T, b: T| a.checked_shl(amount(b)).unwrap_or(0)))
        }
        "RIGHT" => {
            for_int!(dtype, T => zip(ctx, a, b, |a: T, b: T| {
                // By two shifts, so that the sign of an unsigned number is 0.
                a.checked_shr(amount(b)).unwrap_or((a >> 1) >> (T::BITS - 1))
            }))
        }
        other => Err(Error::bad_input(format!("direction `{other}`; allowed: LEFT, RIGHT"))),
    };
    Ok(vec![out?])
}

/// A number of bits; more than any type has when it is negative or does not fit.
fn amount<T: TryInto<u32>>(bits: T) -> u32 {
    bits.try_into().unwrap_or(u32::MAX)
}
