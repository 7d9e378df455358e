//! `DequantizeLinear` (opsets 10 to 25): codes to numbers, per tensor, axis or block.

use super::layout::Layout;
use super::linear::zero_points;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::cast::target;
use fewbit_core::{DType, Dim, Element, Error, Node, Result, Tensor, ValueType};
use fewbit_kernels::quantize::{Affine, Integer, dequantize_broadcast};

pub(super) const DEF: OpDef = OpDef::new("DequantizeLinear", infer, eval);

fn number_dtype(node: &Node, scale: Option<DType>) -> Result<Option<DType>> {
    match node.int("output_dtype")? {
        None | Some(0) => Ok(scale),
        Some(code) => target(code).map(Some),
    }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, scale) = (ctx.input(0)?, ctx.input(1)?);
    let layout = Layout::of(ctx.node, input.shape(), scale)?;
    let zero_points = match ctx.opt(2) {
        Some(given) if given.dtype() != input.dtype() => {
            return Err(Error::bad_input(format!(
                "codes are {}, but the zero point is {}",
                input.dtype(),
                given.dtype()
            )));
        }
        given => zero_points(given, scale)?,
    };
    let scales = scale.to_f32()?;
    let pairs = scales.into_iter().zip(zero_points);
    let affines: Vec<Affine> =
        pairs.map(|(scale, zero_point)| Affine { scale, zero_point }).collect();
    let numbers = dequantized(ctx, input, &layout, affines)?;
    let dtype = number_dtype(ctx.node, Some(scale.dtype()))?.unwrap_or(DType::F32);
    Ok(vec![numbers.cast(dtype)?])
}

/// `(code - zero_point) scale` for every element, in `f32`.
///
/// # Errors
/// When the codes are of a type that has no numbers.
pub(super) fn dequantized(
    ctx: &EvalCtx,
    input: &Tensor,
    layout: &Layout,
    affines: Vec<Affine>,
) -> Result<Tensor> {
    let affines = layout.spread(affines);
    let work = Work { ctx, layout, affines: &affines };
    let shape = input.shape().to_vec();
    match input.dtype() {
        DType::U8 => work.numbers(&input.cow::<u8>()?, shape),
        DType::I8 => work.numbers(&input.cow::<i8>()?, shape),
        DType::U16 => work.numbers(&input.cow::<u16>()?, shape),
        DType::I16 => work.numbers(&input.cow::<i16>()?, shape),
        DType::I32 => work.numbers(&input.cow::<i32>()?, shape),
        dtype if dtype.is_sub_byte() && dtype.is_int() => {
            let codes: Vec<i32> = input.to_i64()?.into_iter().map(|c| c as i32).collect();
            work.numbers(&codes, shape)
        }
        dtype if dtype.is_float() => work.floats(&input.to_f32()?, shape),
        dtype => Err(Error::unsupported(format!("{dtype} codes cannot be dequantized"))),
    }
}

struct Work<'a, 'c> {
    ctx: &'a EvalCtx<'c>,
    layout: &'a Layout,
    affines: &'a [Affine],
}

impl Work<'_, '_> {
    fn numbers<T: Integer + Element>(&self, codes: &[T], shape: Vec<usize>) -> Result<Tensor> {
        self.ctx.output::<f32>(shape, |out| {
            if !codes.is_empty() {
                let params = (self.affines, self.layout.params.as_slice());
                dequantize_broadcast(*self.ctx.kernels, params, codes, out, &self.layout.dims);
            }
            Ok(())
        })
    }

    /// Codes that are small floats: their value times the scale.
    fn floats(&self, values: &[f32], shape: Vec<usize>) -> Result<Tensor> {
        if self.affines.iter().any(|a| a.zero_point != 0) {
            return Err(Error::bad_input("the zero point of a float type must be 0"));
        }
        let at = self.layout.positions();
        self.ctx.output::<f32>(shape, |out| {
            for (i, (slot, value)) in out.iter_mut().zip(values).enumerate() {
                *slot = value * self.affines[at(i)].scale;
            }
            Ok(())
        })
    }
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = number_dtype(ctx.node, ctx.dtype(1))?;
    Ok(vec![typed(dtype, ctx.shape(0).map(<[Dim]>::to_vec))])
}
