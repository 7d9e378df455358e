//! `ai.fewbit.QuantizeBlocks`: activations in blocks, each with the scale that its values need.
//!
//! Input: `f32`, rows of a multiple of 32 elements. Attribute `type`: `Q8_0`, the one format that
//! kernels take activations in, or `Q4_0`, for caches of keys and values. Output: `u8`, rows of blocks for `DequantizeBlocks`.

use super::FEWBIT;
use super::dequantize_blocks::block_type;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use fewbit_core::codec::block::BlockType;
use fewbit_core::{DType, Dim, Error, Node, Result, Tensor, ValueType};
use fewbit_kernels::blocks::quantize_activations;
use fewbit_kernels::cache::quantize_q4_0;

pub(super) const DEF: OpDef = OpDef::new("QuantizeBlocks", infer, eval).domain(FEWBIT);

fn activation_type(node: &Node) -> Result<BlockType> {
    match block_type(node)? {
        ty @ (BlockType::Q8_0 | BlockType::Q4_0) => Ok(ty),
        other => Err(Error::unsupported(format!("activations cannot be quantized to {other}"))
            .at("attribute `type`")
            .hint("Q8_0 and Q4_0 are handled")),
    }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (ty, input) = (activation_type(ctx.node)?, ctx.input(0)?);
    let Some((&last, rows)) = input.shape().split_last() else {
        return Err(Error::bad_input("blocks need a tensor of at least one dimension"));
    };
    let shape = [rows, &[ty.row_bytes(last)?]].concat();
    let values = input.cow::<f32>()?;
    let output = ctx.output::<u8>(shape, |out| {
        match ty {
            BlockType::Q4_0 => quantize_q4_0(*ctx.kernels, &values, out),
            _ => quantize_activations(*ctx.kernels, &values, out),
        }
        Ok(())
    })?;
    Ok(vec![output])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let ty = activation_type(ctx.node)?;
    let shape = ctx.shape(0).and_then(|s| s.split_last()).map(|(last, rows)| {
        let last = match last.known() {
            Some(elements) => Dim::Known(ty.row_bytes(elements)?),
            None => Dim::Unknown,
        };
        Ok([rows, &[last]].concat())
    });
    Ok(vec![typed(Some(DType::U8), shape.transpose()?)])
}
