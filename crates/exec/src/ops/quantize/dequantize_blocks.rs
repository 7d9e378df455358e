//! `ai.fewbit.DequantizeBlocks`: tensors in the block formats of language models, as numbers.
//!
//! Input: `u8`, the last dimension holds whole blocks of a row. Attribute `type`: the name of the
//! format, such as `Q4_K`. Attribute `output_dtype` (as of `DequantizeLinear`): `f32` unless given.
//! Output: the numbers; the last dimension counts elements instead of bytes.

use super::FEWBIT;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::cast::target;
use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_core::{DType, Dim, Error, Node, Result, ResultExt, Tensor, ValueType};
use std::sync::Mutex;

pub(super) const DEF: OpDef = OpDef::new("DequantizeBlocks", infer, eval).domain(FEWBIT);

/// The format that attribute `type` names.
///
/// # Errors
/// When there is no such attribute or format.
pub(crate) fn block_type(node: &Node) -> Result<BlockType> {
    let name = node.string("type")?;
    let name = name.ok_or_else(|| Error::bad_input("attribute `type` is missing"))?;
    BlockType::from_name(name).at(|| "attribute `type`")
}

fn output_dtype(node: &Node) -> Result<DType> {
    match node.int("output_dtype")? {
        None | Some(0) => Ok(DType::F32),
        Some(code) => target(code),
    }
}

/// The shape in elements of a tensor of bytes.
///
/// # Errors
/// When the bytes are no whole blocks.
pub(crate) fn element_shape(ty: BlockType, bytes: &Tensor) -> Result<Vec<usize>> {
    let Some((&last, rows)) = bytes.shape().split_last() else {
        return Err(Error::bad_input("blocks need a tensor of at least one dimension"));
    };
    if bytes.dtype() != DType::U8 {
        return Err(Error::bad_input(format!("blocks are u8, found {}", bytes.dtype())));
    }
    Ok([rows, &[ty.row_elements(last)?]].concat())
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (ty, input) = (block_type(ctx.node)?, ctx.input(0)?);
    let shape = element_shape(ty, input)?;
    let output = ctx.output::<f32>(shape, |out| decode(ctx, ty, input.bytes(), out))?;
    Ok(vec![output.cast(output_dtype(ctx.node)?)?])
}

/// Decodes whole blocks, split over the threads.
fn decode(ctx: &EvalCtx, ty: BlockType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let pool = ctx.kernels.pool;
    let grain = pool.grain(out.len() / ty.elements(), (4096 / ty.elements()).max(1));
    let failed = Mutex::new(Ok(()));
    pool.for_each_chunk(out, grain * ty.elements(), |chunk, out| {
        let bytes = &bytes[chunk * grain * ty.bytes()..][..out.len() / ty.elements() * ty.bytes()];
        if let (Err(error), Ok(mut failed)) = (dequantize(ty, bytes, out), failed.lock()) {
            *failed = Err(error);
        }
    });
    failed.into_inner().unwrap_or_else(|_| Err(Error::internal("a decoder panicked")))
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let ty = block_type(ctx.node)?;
    let shape = ctx.shape(0).and_then(|s| s.split_last()).map(|(last, rows)| {
        let last = match last.known() {
            Some(bytes) => Dim::Known(ty.row_elements(bytes)?),
            None => Dim::Unknown,
        };
        Ok([rows, &[last]].concat())
    });
    Ok(vec![typed(Some(output_dtype(ctx.node)?), shape.transpose()?)])
}
