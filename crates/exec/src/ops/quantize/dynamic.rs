//! `DynamicQuantizeLinear`: codes with the range of the tensor itself.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use fewbit_core::{DType, Dim, Result, Tensor, ValueType};
use fewbit_kernels::Ctx;
use fewbit_kernels::quantize::{Affine, Quantizer, dynamic_range, quantize};

pub(super) const DEF: OpDef = OpDef::new("DynamicQuantizeLinear", infer, eval);

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let values = input.cow::<f32>()?;
    let affine = dynamic_range(ctx.kernels.isa, &values);
    let quantizer = Quantizer::of::<u8>(affine);
    let codes = ctx.output::<u8>(input.shape().to_vec(), |codes| {
        quantize(*ctx.kernels, quantizer, &values, codes);
        Ok(())
    })?;
    let zero_point = Tensor::scalar(affine.zero_point as u8);
    Ok(vec![codes, Tensor::scalar(affine.scale), zero_point])
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
