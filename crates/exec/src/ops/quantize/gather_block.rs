//! ONNX Runtime's `GatherBlockQuantized`: rows of a table of 4- or 8-bit codes, dequantized.

use super::MICROSOFT;
use super::dequantize::dequantized;
use super::layout::Layout;
use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::{InferCtx, typed};
use crate::ops::index::{index_values, picked, replaced};
use fewbit_core::{DType, Dim, Error, Node, Result, Tensor, ValueType};
use fewbit_kernels::quantize::Affine;

pub(super) const DEF: OpDef = OpDef::new("GatherBlockQuantized", infer, eval).domain(MICROSOFT);

/// Bytes that hold two codes of 4 bits, along the last axis.
fn is_packed(node: &Node, data: Option<DType>) -> Result<bool> {
    Ok(data == Some(DType::U8) && node.int("bits")?.unwrap_or(4) == 4)
}

/// Packed bytes as a tensor of 4-bit codes, twice as long on the last axis.
fn unpacked(tensor: &Tensor, last: Option<usize>) -> Result<Tensor> {
    let Some((&len, rows)) = tensor.shape().split_last() else {
        return Err(Error::bad_input("packed codes of rank 0"));
    };
    let full = len.checked_mul(2).ok_or_else(|| Error::bad_input("a row is too long"))?;
    let shape = [rows, &[full]].concat();
    let bytes = tensor.shared_bytes().cloned();
    let bytes = bytes.ok_or_else(|| Error::internal("codes without bytes"))?;
    let codes = Tensor::from_bytes(DType::U4, shape, bytes)?;
    match last {
        // An odd number of codes leaves the last nibble of a row unused.
        Some(last) if last + 1 == full => {
            let all = codes.to_f64()?;
            let kept = all.chunks_exact(full.max(1)).flat_map(|row| row[..last].iter().copied());
            Tensor::from_f64(DType::U4, [rows, &[last]].concat(), &kept.collect::<Vec<_>>())
        }
        _ => Ok(codes),
    }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (data, indices, scales) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    let packed = is_packed(ctx.node, Some(data.dtype()))?;
    let data = if packed { unpacked(data, None)? } else { data.clone() };
    let rank = data.rank();
    let gather_axis = axis_index(ctx.int("gather_axis", 0)?, rank)?;
    let block_axis = axis_index(ctx.int("quantize_axis", 1)?, rank)?;
    if gather_axis == block_axis || scales.rank() != rank {
        return Err(Error::bad_input(format!(
            "codes {data:?} with scales of shape {:?}, gathered along axis {gather_axis}, in \
             blocks along axis {block_axis}",
            scales.shape()
        )));
    }
    let zeros = match ctx.opt(3) {
        Some(zeros) if packed => Some(unpacked(zeros, scales.shape().last().copied())?),
        given => given.cloned(),
    };
    if scales.shape()[gather_axis] != data.shape()[gather_axis] {
        return Err(Error::bad_input("codes and scales differ along the gathered axis"));
    }
    let picks = index_values(indices, data.shape()[gather_axis])?;
    // Only what is asked for is dequantized.
    let codes = picked(ctx, &data, gather_axis, &picks)?;
    let scales = picked(ctx, scales, gather_axis, &picks)?;
    let zeros = zeros.map(|zeros| {
        if zeros.shape()[..] != *ctx.input(2)?.shape() {
            return Err(Error::bad_input("zero points and scales differ in shape"));
        }
        picked(ctx, &zeros, gather_axis, &picks)
    });
    let numbers = dequantize(ctx, &codes, &scales, zeros.transpose()?, block_axis, packed)?;
    let shape = replaced(data.shape(), gather_axis, indices.shape());
    Ok(vec![numbers.cast(scales.dtype())?.reshape(shape)?])
}

fn dequantize(
    ctx: &EvalCtx,
    codes: &Tensor,
    scales: &Tensor,
    zeros: Option<Tensor>,
    axis: usize,
    unsigned: bool,
) -> Result<Tensor> {
    let block = crate::ops::params::size(ctx.int("block_size", 128)?, "block_size")?;
    if block == 0 {
        return Err(Error::bad_input("0").at("attribute `block_size`"));
    }
    // Spelled out, so that a single scale is not taken for one of the whole tensor.
    let layout = Layout::blocks(codes.shape(), scales.shape(), axis, block)?;
    // Codes in plain bytes are centred, whether they fill the byte or half of it.
    let middle = match (unsigned, codes.dtype()) {
        (true, _) => 8,
        (false, DType::U8) => 128,
        _ => 0,
    };
    let zeros = match zeros {
        Some(zeros) => zeros.to_i64()?,
        None => vec![middle; scales.len()],
    };
    let pairs = scales.to_f32()?.into_iter().zip(zeros);
    let affines = pairs.map(|(scale, zero)| Affine { scale, zero_point: zero as i32 }).collect();
    dequantized(ctx, codes, &layout, affines)
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let (Some(data), Some(indices)) = (ctx.shape(0), ctx.shape(1)) else {
        return Ok(vec![typed(ctx.dtype(2), None)]);
    };
    let axis = axis_index(ctx.node.int("gather_axis")?.unwrap_or(0), data.len())?;
    let mut data = data.to_vec();
    if is_packed(ctx.node, ctx.dtype(0))?
        && let Some(last) = data.last_mut()
    {
        *last = last.known().and_then(|n| n.checked_mul(2)).map_or(Dim::Unknown, Dim::Known);
    }
    Ok(vec![typed(ctx.dtype(2), Some(replaced::<Dim>(&data, axis, indices)))])
}
