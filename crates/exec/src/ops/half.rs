//! Half-precision tensors, computed with in `f32`.

use crate::def::EvalFn;
use crate::eval::EvalCtx;
use fewbit_core::{DType, Result, Tensor};

/// Whether an element type is `f16` or `bf16`.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// If an input is half-precision: widens all such inputs to `f32`, evaluates, and rounds the
/// `f32` outputs to the type of the first of them. `None` when there is nothing to widen.
pub(crate) fn through_f32(ctx: &mut EvalCtx, eval: EvalFn) -> Result<Option<Vec<Tensor>>> {
    let Some(half) = widen(ctx)? else { return Ok(None) };
    let narrow = |t: Tensor| if t.dtype() == DType::F32 { t.cast(half) } else { Ok(t) };
    eval(ctx)?.into_iter().map(narrow).collect::<Result<_>>().map(Some)
}

/// Widens half-precision inputs in place; gives the type of the first of them.
pub(crate) fn widen(ctx: &mut EvalCtx) -> Result<Option<DType>> {
    let mut first = None;
    for input in ctx.inputs.iter_mut().flatten() {
        if is_half(input.dtype()) {
            first.get_or_insert(input.dtype());
            *input = input.cast(DType::F32)?;
        }
    }
    Ok(first)
}

/// A float tensor of type `dtype` from values computed in f32.
///
/// # Errors
/// When the shape does not hold exactly `values.len()` elements.
pub(crate) fn from_f32(dtype: DType, shape: Vec<usize>, values: &[f32]) -> Result<Tensor> {
    match dtype {
        DType::F32 => Tensor::from_slice(shape, values),
        _ => {
            let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            Tensor::from_f64(dtype, shape, &wide)
        }
    }
}
