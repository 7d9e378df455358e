//! `QuantizeLinear` (opsets 10 to 25): numbers to codes, per tensor, axis or block.

use super::layout::Layout;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::cast::target;
use fewbit_core::codec::{MiniFloat, pack_bits};
use fewbit_core::{DType, Dim, Element, Error, Node, Result, Tensor, ValueType};
use fewbit_kernels::quantize::{Affine, Code, Quantizer, quantize_broadcast};
use half::{bf16, f16};
use std::borrow::Cow;

pub(super) const DEF: OpDef = OpDef::new("QuantizeLinear", infer, eval);

/// Type of the codes: that of the zero point, or `output_dtype`, or `u8`.
fn code_dtype(node: &Node, zero_point: Option<DType>) -> Result<DType> {
    let declared = match node.int("output_dtype")? {
        None | Some(0) => None,
        Some(code) => Some(target(code)?),
    };
    match (zero_point, declared) {
        (Some(a), Some(b)) if a != b => {
            Err(Error::bad_input(format!("{b}, but the zero point is {a}"))
                .at("attribute `output_dtype`"))
        }
        (a, b) => Ok(a.or(b).unwrap_or(DType::U8)),
    }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, scale) = (ctx.input(0)?, ctx.input(1)?);
    let dtype = code_dtype(ctx.node, ctx.opt(2).map(Tensor::dtype))?;
    let layout = Layout::of(ctx.node, input.shape(), scale)?;
    let zero_points = zero_points(ctx.opt(2), scale)?;
    let work = Work { ctx, layout, scales: scale.to_f32()?, zero_points };
    let values = numbers(input)?;
    let (values, scales) = match precision(ctx.node, scale.dtype())? {
        DType::F16 => work.quotients(&values, |q| f16::from_f32(q).to_f32()),
        DType::BF16 => work.quotients(&values, |q| bf16::from_f32(q).to_f32()),
        _ => (values, work.scales.clone()),
    };
    let shape = input.shape().to_vec();
    let out = match dtype {
        DType::U8 => work.whole::<u8>(&values, &scales, shape)?,
        DType::I8 => work.whole::<i8>(&values, &scales, shape)?,
        DType::U16 => work.whole::<u16>(&values, &scales, shape)?,
        DType::I16 => work.whole::<i16>(&values, &scales, shape)?,
        DType::U4 | DType::U2 => work.packed::<u8>(&values, &scales, dtype, shape)?,
        DType::I4 | DType::I2 => work.packed::<i8>(&values, &scales, dtype, shape)?,
        _ => work.mini(&values, &scales, dtype, shape)?,
    };
    Ok(vec![out])
}

/// The input as `f32`, without a copy where it already is.
fn numbers(input: &Tensor) -> Result<Cow<'_, [f32]>> {
    match input.dtype() {
        DType::F32 => input.cow(),
        _ => input.to_f32().map(Cow::Owned),
    }
}

/// Zero points as integers, one for each scale.
pub(super) fn zero_points(given: Option<&Tensor>, scale: &Tensor) -> Result<Vec<i32>> {
    let Some(zero_point) = given else {
        return Ok(vec![0; scale.len()]);
    };
    if zero_point.len() != scale.len() {
        return Err(Error::bad_input(format!(
            "{} zero points for {} scales",
            zero_point.len(),
            scale.len()
        ))
        .code("FB-3222"));
    }
    let narrow = |v: i64| {
        i32::try_from(v).map_err(|_| Error::bad_input(format!("a zero point of {v} is no code")))
    };
    match zero_point.dtype().is_float() {
        true => zero_point.to_f64()?.into_iter().map(|v| narrow(v as i64)).collect(),
        false => zero_point.to_i64()?.into_iter().map(narrow).collect(),
    }
}

/// The type in which the quotient is rounded once before it becomes a code (opset 23).
fn precision(node: &Node, scale: DType) -> Result<DType> {
    match node.int("precision")? {
        None | Some(0) => Ok(scale),
        Some(code) => target(code),
    }
}

struct Work<'a, 'c> {
    ctx: &'a EvalCtx<'c>,
    layout: Layout,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
}

impl Work<'_, '_> {
    /// Rounded quotients, to be quantized with a scale of 1.
    fn quotients(
        &self,
        values: &[f32],
        round: impl Fn(f32) -> f32,
    ) -> (Cow<'static, [f32]>, Vec<f32>) {
        let quotient = |v: f32, s: f32| round(v / s);
        let values = self.zip(values, &self.scales, quotient);
        (Cow::Owned(values), vec![1.0; self.scales.len()])
    }

    /// Combines every element with its scale.
    fn zip<T>(&self, values: &[f32], scales: &[f32], combine: impl Fn(f32, f32) -> T) -> Vec<T> {
        let scales = self.layout.spread(scales.to_vec());
        let at = self.layout.positions();
        values.iter().enumerate().map(|(i, &v)| combine(v, scales[at(i)])).collect()
    }

    /// Codes of whole bytes.
    fn whole<T: Code + Element>(
        &self,
        values: &[f32],
        scales: &[f32],
        shape: Vec<usize>,
    ) -> Result<Tensor> {
        self.ctx.output::<T>(shape, |codes| self.write_codes(values, scales, T::DTYPE, codes))
    }

    fn write_codes<T: Code + Element>(
        &self,
        values: &[f32],
        scales: &[f32],
        dtype: DType,
        codes: &mut [T],
    ) -> Result<()> {
        let (low, high) = dtype.int_range().unwrap_or((0, 0));
        let pairs = scales.iter().zip(&self.zero_points);
        let quantizer = |(&scale, &zero_point): (&f32, &i32)| {
            if !(low..=high).contains(&(zero_point as i128)) {
                return Err(Error::bad_input(format!(
                    "a zero point of {zero_point} is no code of {dtype}"
                )));
            }
            Ok(Quantizer::with_range(Affine { scale, zero_point }, low as i32, high as i32))
        };
        let quantizers = self.layout.spread(pairs.map(quantizer).collect::<Result<Vec<_>>>()?);
        if !values.is_empty() {
            let params = (quantizers.as_slice(), self.layout.params.as_slice());
            quantize_broadcast(*self.ctx.kernels, params, values, codes, &self.layout.dims);
        }
        Ok(())
    }

    fn packed<T: Code + Element>(
        &self,
        values: &[f32],
        scales: &[f32],
        dtype: DType,
        shape: Vec<usize>,
    ) -> Result<Tensor> {
        let mut codes = vec![T::zeroed(); values.len()];
        self.write_codes(values, scales, dtype, &mut codes)?;
        let mut out = self.ctx.alloc(dtype, shape)?;
        pack_bits(codes.into_iter().map(|c| c.widen() as i64), dtype.bits(), out.bytes_mut());
        Ok(out)
    }

    /// Codes of a small floating-point type.
    fn mini(
        &self,
        values: &[f32],
        scales: &[f32],
        dtype: DType,
        shape: Vec<usize>,
    ) -> Result<Tensor> {
        let Some(format) = MiniFloat::of(dtype) else {
            return Err(Error::unsupported(format!("quantization to {dtype}")));
        };
        if self.zero_points.iter().any(|&z| z != 0) {
            return Err(Error::bad_input(format!("the zero point of {dtype} must be 0")));
        }
        let saturate = self.ctx.int("saturate", 1)? != 0;
        let codes = self.zip(values, scales, |v, s| format.encode(v / s, saturate));
        let mut out = self.ctx.alloc(dtype, shape)?;
        match dtype.is_sub_byte() {
            true => pack_bits(codes.into_iter().map(i64::from), dtype.bits(), out.bytes_mut()),
            false => out.bytes_mut().copy_from_slice(&codes),
        }
        Ok(out)
    }
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = match (ctx.has(2), ctx.dtype(2)) {
        (true, None) => None,
        (_, zero_point) => Some(code_dtype(ctx.node, zero_point)?),
    };
    Ok(vec![typed(dtype, ctx.shape(0).map(<[Dim]>::to_vec))])
}
