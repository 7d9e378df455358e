//! What the attention operators of ONNX Runtime add to scores: padding and a bias, as one mask of
//! numbers.

use crate::eval::EvalCtx;
use crate::ops::broadcast::zip;
use fewbit_core::{Error, Result, Tensor};

/// What a mask says is padding gets this much less.
const FILTER: f32 = -10000.0;

/// Padding and bias for scores of `[batch, heads, rows, keys]`, up to broadcasting.
///
/// Padding is finite: a query all of whose keys are padding weighs them by their scores.
///
/// # Errors
/// When a shape does not fit the scores.
pub(super) fn added(
    ctx: &EvalCtx,
    padding: Option<&Tensor>,
    bias: Option<&Tensor>,
    [batch, rows, keys]: [usize; 3],
) -> Result<Option<Tensor>> {
    if let Some(bias) = bias
        && (bias.rank() != 4 || bias.shape()[3] != keys)
    {
        return Err(misfit("an attention bias", bias, [batch, rows, keys]));
    }
    let filter = ctx.float("mask_filter_value", FILTER)?;
    let padding = padding.map(|mask| terms(ctx, mask, filter, [batch, rows, keys])).transpose()?;
    match (padding, bias) {
        (Some(padding), Some(bias)) => Ok(Some(zip(ctx, bias, &padding, |a: f32, b: f32| a + b)?)),
        (padding, bias) => Ok(padding.or_else(|| bias.cloned())),
    }
}

/// A mask as numbers, `[batch, 1, rows or 1, keys]`.
fn terms(
    ctx: &EvalCtx,
    mask: &Tensor,
    filter: f32,
    [batch, rows, keys]: [usize; 3],
) -> Result<Tensor> {
    let given = mask.to_i64()?;
    let [both, all] = [2, 3].map(|n| batch.checked_mul(n));
    let lengths = [Some(batch), both, all.and_then(|n| n.checked_add(2))];
    let term = |keep: bool| if keep { 0.0 } else { filter };
    let kept = |rows: usize| {
        let values: Vec<f32> = given.iter().map(|&keep| term(keep > 0)).collect();
        Tensor::from_slice(vec![batch, 1, rows, keys], &values)
    };
    match *mask.shape() {
        [n] if lengths.contains(&Some(n)) => {
            // Ends, then the starts; what follows in the longest form are sums of lengths.
            let starts = (Some(n) == both).then(|| &given[batch..]);
            ctx.output(vec![batch, 1, 1, keys], |out: &mut [f32]| {
                for (at, out) in out.iter_mut().enumerate() {
                    let (sample, key) = (at / keys, (at % keys) as i64);
                    let started = starts.is_none_or(|starts| key >= starts[sample]);
                    *out = term(started && key < given[sample]);
                }
                Ok(())
            })
        }
        [b, k] if (b, k) == (batch, keys) => kept(1),
        [b, r, k] if (b, r, k) == (batch, rows, keys) => kept(rows),
        _ => Err(misfit("a padding mask", mask, [batch, rows, keys])),
    }
}

fn misfit(what: &str, tensor: &Tensor, [batch, rows, keys]: [usize; 3]) -> Error {
    Error::bad_input(format!(
        "{what} of shape {:?} for {batch} samples of {rows} queries and {keys} keys",
        tensor.shape()
    ))
}
