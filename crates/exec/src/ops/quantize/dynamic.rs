//! `DynamicQuantizeLinear`: codes with the range of the tensor itself.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use fewbit_core::{DType, Dim, Result, Tensor, ValueType};
use fewbit_kernels::Ctx;
use fewbit_kernels::quantize::{Affine, Quantizer, quantize};

pub(super) const DEF: OpDef = OpDef::new("DynamicQuantizeLinear", infer, eval);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let values = input.cow::<f32>()?;
    let affine = range(&values);
    let quantizer = Quantizer::of::<u8>(affine);
    let codes = ctx.output::<u8>(input.shape().to_vec(), |codes| {
        quantize(*ctx.kernels, quantizer, &values, codes);
        Ok(())
    })?;
    let zero_point = Tensor::scalar(affine.zero_point as u8);
    Ok(vec![codes, Tensor::scalar(affine.scale), zero_point])
}

/// `u8` codes whose range holds all values and 0.
pub(super) fn range(values: &[f32]) -> Affine {
    let (low, high) = ends(values);
    let scale = if low == high { 1.0 } else { (high - low) / 255.0 };
    // Not a number only when the range is infinite; the cast then gives 0.
    let zero_point = (-low / scale).clamp(0.0, 255.0).round_ties_even() as i32;
    Affine { scale, zero_point }
}

/// The least and the greatest of 0 and all numbers, in lanes that fill registers.
fn ends(values: &[f32]) -> (f32, f32) {
    const LANES: usize = 32;
    let (mut low, mut high) = ([0f32; LANES], [0f32; LANES]);
    let (parts, rest) = values.as_chunks::<LANES>();
    for part in parts {
        for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(part) {
            *low = if value < *low { value } else { *low };
            *high = if value > *high { value } else { *high };
        }
    }
    let end = |lanes: [f32; LANES], pick: fn(f32, f32) -> f32| {
        lanes.iter().chain(rest).fold(0.0, |end, &value| pick(end, value))
    };
    (end(low, f32::min), end(high, f32::max))
}

/// The codes of all values.
pub(super) fn codes(kernels: &Ctx, values: &[f32], affine: Affine) -> Vec<u8> {
    let mut codes = vec![0u8; values.len()];
    quantize(*kernels, Quantizer::of::<u8>(affine), values, &mut codes);
    codes
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let codes = typed(Some(DType::U8), ctx.shape(0).map(<[Dim]>::to_vec));
    Ok(vec![codes, ValueType::fixed(DType::F32, &[]), ValueType::fixed(DType::U8, &[])])
}
