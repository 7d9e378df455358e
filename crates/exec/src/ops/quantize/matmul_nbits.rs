//! ONNX Runtime's `MatMulNBits`: a float matrix times weights of 2, 4 or 8 bits in blocks.
//!
//! Weights are `[N, K / block, block bits / 8]` bytes, first element in the low bits; scales
//! `[N, K / block]`; zero points packed like the weights along each row, or given as floats.

use super::MICROSOFT;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::matmul::float::matmul_f32;
use fewbit_core::codec::unpack_bits;
use fewbit_core::{DType, Dim, Error, Node, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("MatMulNBits", infer, eval).domain(MICROSOFT);

/// The sizes that the attributes declare.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    k: usize,
    n: usize,
    bits: usize,
    block: usize,
}

impl Sizes {
    fn of(node: &Node) -> Result<Sizes> {
        let size = |name: &str, default: Option<i64>| {
            let value = node.int(name)?.or(default).unwrap_or(0);
            match usize::try_from(value) {
                Ok(size @ 1..) if size <= 1 << 31 => Ok(size),
                _ => Err(Error::bad_input(format!("{value} is no size"))
                    .at(format!("attribute `{name}`"))),
            }
        };
        let (k, n) = (size("K", None)?, size("N", None)?);
        let (bits, block) = (size("bits", Some(4))?, size("block_size", None)?);
        if !matches!(bits, 2 | 4 | 8) || !(block * bits).is_multiple_of(8) {
            return Err(Error::unsupported(format!("{bits} bits in blocks of {block}"))
                .hint("weights of 2, 4 and 8 bits in blocks of whole bytes are handled"));
        }
        Ok(Sizes { k, n, bits, block })
    }

    fn blocks(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    fn block_bytes(&self) -> usize {
        self.block * self.bits / 8
    }

    fn codes(&self, bytes: &[u8], count: usize) -> Vec<u8> {
        match self.bits {
            8 => bytes.to_vec(),
            bits => unpack_bits(bytes, bits, false, count).into_iter().map(|c| c as u8).collect(),
        }
    }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let sizes = Sizes::of(ctx.node)?;
    if ctx.opt(4).is_some_and(|g| !g.is_empty()) {
        return Err(Error::unsupported("MatMulNBits with a group index"));
    }
    let input = ctx.input(0)?;
    let weight = dequantized(ctx, sizes)?;
    let mut out = matmul_f32(ctx.kernels, ctx.arena, &input.cast(DType::F32)?, &weight)?;
    if let Some(bias) = ctx.opt(5) {
        let bias = bias.to_f32()?;
        if bias.len() != sizes.n {
            return Err(Error::bad_input(format!("{} biases for {} columns", bias.len(), sizes.n)));
        }
        for row in out.as_mut_slice::<f32>()?.chunks_exact_mut(sizes.n) {
            row.iter_mut().zip(&bias).for_each(|(slot, b)| *slot += b);
        }
    }
    Ok(vec![out.cast(input.dtype())?])
}

/// The weight as numbers, `[K, N]`.
fn dequantized(ctx: &EvalCtx, sizes: Sizes) -> Result<Tensor> {
    let Sizes { k, n, block, .. } = sizes;
    let (packed, scales) = (ctx.input(1)?, ctx.input(2)?.to_f32()?);
    let row_bytes = sizes.blocks() * sizes.block_bytes();
    if n.checked_mul(row_bytes) != Some(packed.len()) || packed.dtype() != DType::U8 {
        return Err(Error::bad_input(format!(
            "weights {packed:?}; u8 codes of {} bytes are expected for K = {k}, N = {n}",
            n.saturating_mul(row_bytes)
        )));
    }
    if scales.len() != n * sizes.blocks() {
        return Err(Error::bad_input(format!(
            "{} scales for {n} columns of {} blocks",
            scales.len(),
            sizes.blocks()
        )));
    }
    let zeros = zero_points(ctx.opt(3), sizes)?;
    let mut weight = ctx.alloc(DType::F32, vec![k, n])?;
    let out = weight.as_mut_slice::<f32>()?;
    for (column, bytes) in packed.bytes().chunks_exact(row_bytes).enumerate() {
        let codes = sizes.codes(bytes, sizes.blocks() * block);
        for (row, &code) in codes.iter().take(k).enumerate() {
            let at = column * sizes.blocks() + row / block;
            out[row * n + column] = (code as f32 - zeros[at]) * scales[at];
        }
    }
    Ok(weight)
}

/// One zero point for each block; the middle code unless given.
fn zero_points(given: Option<&Tensor>, sizes: Sizes) -> Result<Vec<f32>> {
    let count = sizes.n * sizes.blocks();
    let zeros: Vec<f32> = match given {
        None => vec![(1u32 << (sizes.bits - 1)) as f32; count],
        Some(zeros) if zeros.dtype().is_float() => zeros.to_f32()?,
        Some(zeros) => {
            let row_bytes = (sizes.blocks() * sizes.bits).div_ceil(8);
            let rows = zeros.bytes().chunks_exact(row_bytes);
            rows.flat_map(|row| sizes.codes(row, sizes.blocks())).map(f32::from).collect()
        }
    };
    if zeros.len() != count {
        return Err(Error::bad_input(format!("{} zero points for {count} blocks", zeros.len()))
            .code("FB-3222"));
    }
    Ok(zeros)
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let sizes = Sizes::of(ctx.node)?;
    let shape = ctx.shape(0).and_then(|s| s.split_last()).map(|(_, rows)| {
        let mut shape = rows.to_vec();
        shape.push(Dim::Known(sizes.n));
        shape
    });
    Ok(vec![typed(ctx.dtype(0), shape)])
}
