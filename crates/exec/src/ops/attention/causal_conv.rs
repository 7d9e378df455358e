//! `CausalConvWithState`: a depthwise convolution over the past, carried from call to call.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype};
use crate::ops::half::through_f32;
use fewbit_core::{Error, Result, Tensor, ValueType};
use fewbit_kernels::math;

pub(super) const DEF: OpDef = OpDef::new("CausalConvWithState", infer, eval).since(27);

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![ctx.ty(0), only_dtype(ctx.dtype(0))])
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let silu = match ctx.string("activation", "none")? {
        "none" => false,
        "silu" | "swish" => true,
        other => return Err(Error::unsupported(format!("activation `{other}`"))),
    };
    let (x, weight) = (ctx.input(0)?, ctx.input(1)?);
    let (&[batch, channels, len], &[rows, 1, k]) = (x.shape(), weight.shape()) else {
        return Err(mismatch(x, weight));
    };
    if rows != channels || k == 0 {
        return Err(mismatch(x, weight));
    }
    let bias = match ctx.opt(2) {
        Some(bias) if bias.len() == channels => bias.to_vec()?,
        Some(bias) => return Err(mismatch(x, bias)),
        None => vec![0.0; channels],
    };
    let padded = padded(ctx, x, k - 1)?;
    let (line, kernels) = (len + k - 1, weight.cow::<f32>()?);
    let mut y = ctx.alloc(x.dtype(), vec![batch, channels, len])?;
    let mut state = ctx.alloc(x.dtype(), vec![batch, channels, k - 1])?;
    let (out, kept) = (y.as_mut_slice::<f32>()?, state.as_mut_slice::<f32>()?);
    for (i, line) in padded.chunks_exact(line.max(1)).enumerate() {
        let kernel = &kernels[i % channels * k..][..k];
        for (slot, window) in out[i * len..][..len].iter_mut().zip(line.windows(k)) {
            let sum = window.iter().zip(kernel).fold(0.0f32, |sum, (x, w)| x.mul_add(*w, sum));
            let value = sum + bias[i % channels];
            *slot = if silu { math::silu(value, 1.0) } else { value };
        }
        kept[i * (k - 1)..][..k - 1].copy_from_slice(&line[len..]);
    }
    Ok(vec![y, state])
}

/// The state, or zeros, before each line of the input.
fn padded(ctx: &EvalCtx, x: &Tensor, before: usize) -> Result<Vec<f32>> {
    let (lines, len) = (x.shape()[0] * x.shape()[1], x.shape()[2]);
    let past = match ctx.opt(3) {
        Some(past) if past.shape() != [x.shape()[0], x.shape()[1], before] => {
            return Err(mismatch(x, past));
        }
        Some(past) => Some(past.cow::<f32>()?),
        None => None,
    };
    let x = x.cow::<f32>()?;
    let mut out = Vec::with_capacity(x.len() + lines * before);
    for line in 0..lines {
        match &past {
            Some(past) => out.extend_from_slice(&past[line * before..][..before]),
            None => out.resize(out.len() + before, 0.0),
        }
        out.extend_from_slice(&x[line * len..][..len]);
    }
    Ok(out)
}

fn mismatch(x: &Tensor, other: &Tensor) -> Error {
    Error::bad_input(format!("an input of shape {:?} with {:?}", x.shape(), other.shape()))
}
