//! Products with weights in the block formats of language models:
//! `MatMul(x, Transpose(DequantizeBlocks(constant)))`.
//!
//! The constant holds one row per output, as the files do. Where `x` is quantized in blocks too,
//! the integer kernels run; otherwise each panel of weights is decoded when it is needed, and the
//! bits are those of a product with decoded weights.

use super::float::output_shape;
use crate::ops::quantize::dequantize_blocks::block_type;
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use crate::plan::weights::is_blocks;
use fewbit_core::codec::block::BlockType;
use fewbit_core::{DType, Node, NodeId, Result, Tensor, ValueId};
use fewbit_kernels::blocks::{
    Format, Half, PackedBlocks, PackedHalves, matmul_blocks, matmul_blocks_f32, matmul_halves,
};

/// A constant weight: `n` rows of `k` elements.
struct Weight {
    ty: BlockType,
    bytes: Tensor,
    n: usize,
    k: usize,
}

fn producer<'a>(lowering: &Lowering<'a>, value: Option<ValueId>) -> Option<&'a Node> {
    Some(lowering.graph.node(lowering.uses.producer(value?)?))
}

/// What a node turns into `f32`, and how it is stored.
fn decoded(node: &Node) -> Option<(BlockType, ValueId)> {
    let ty = match node.int("output_dtype") {
        Ok(None | Some(0 | 1)) if is_blocks(node, "DequantizeBlocks") => block_type(node).ok()?,
        _ => return None,
    };
    Some((ty, node.input(0)?))
}

/// A weight of 16-bit floats that a node turns into `f32`.
fn widened(lowering: &Lowering, node: &Node) -> Option<(BlockType, Tensor)> {
    let tensor = lowering.graph.constant(node.input(0)?)?;
    let to = node.int("to").ok()??;
    let ty = match tensor.dtype() {
        DType::F16 => BlockType::F16,
        DType::BF16 => BlockType::BF16,
        _ => return None,
    };
    (node.is("Cast") && to == i64::from(DType::F32.to_onnx())).then(|| (ty, tensor.clone()))
}

/// The weight of a product, if it is one of ours.
fn weight(lowering: &Lowering, node: &Node) -> Option<Weight> {
    let transpose = producer(lowering, node.input(1)).filter(|_| node.is("MatMul"))?;
    let swapped = matches!(transpose.ints("perm"), Ok(None | Some([1, 0])));
    if !transpose.is("Transpose") || !swapped {
        return None;
    }
    let decoder = producer(lowering, transpose.input(0))?;
    let (ty, bytes) = match decoded(decoder) {
        Some((ty, value)) => (ty, lowering.graph.constant(value)?.clone()),
        None => widened(lowering, decoder)?,
    };
    let [n, row] = *bytes.shape() else { return None };
    let k = if bytes.dtype() == DType::U8 { ty.row_elements(row).ok()? } else { row };
    (n > 0 && k > 0).then_some(Weight { ty, bytes, n, k })
}

fn step(id: NodeId, node: &Node, kernel: impl Kernel + 'static, input: ValueId) -> Option<Lowered> {
    let output = node.output(0)?;
    Some(Lowered::new(vec![id], Box::new(kernel), vec![Some(input)], output, Rule::Default))
}

/// The step for a product of quantized activations.
pub(super) fn lower_integer(lowering: &Lowering, id: NodeId, node: &Node) -> Option<Lowered> {
    let (ty, codes) = decoded(producer(lowering, node.input(0))?)?;
    // Codes from elsewhere may be -128, which the kernels do not take.
    if !is_blocks(producer(lowering, Some(codes))?, "QuantizeBlocks") {
        return None;
    }
    let weight = weight(lowering, node)?;
    let format = Format::named(weight.ty.name()).filter(|_| ty == BlockType::Q8_0)?;
    let kernel = IntegerBlocks { weights: weight.packed(lowering, format) };
    step(id, node, kernel, codes).map(|step| Lowered { integer: true, ..step })
}

/// The step for a product of float activations; `None` for formats without kernels.
pub(super) fn lower_float(lowering: &Lowering, id: NodeId, node: &Node) -> Option<Lowered> {
    let (x, weight) = (node.input(0)?, weight(lowering, node)?);
    if lowering.ty(x).dtype != Some(DType::F32) || lowering.ty(x).rank().is_none_or(|r| r < 1) {
        return None;
    }
    let half = match weight.ty {
        BlockType::F16 => Half::F16,
        BlockType::BF16 => Half::BF16,
        other => {
            let format = Format::named(other.name())?;
            return step(id, node, FloatBlocks(weight.packed(lowering, format)), x);
        }
    };
    step(id, node, FloatHalves(weight.halves(lowering, half)), x)
}

impl Weight {
    fn packed(&self, lowering: &Lowering, format: Format) -> PackedBlocks {
        let pool = lowering.scope.kernels.pool;
        let packed = PackedBlocks::new(pool, format, self.n, self.k, self.bytes.bytes());
        self.bytes.release();
        packed
    }

    fn halves(&self, lowering: &Lowering, half: Half) -> PackedHalves {
        let pool = lowering.scope.kernels.pool;
        let packed = PackedHalves::new(pool, half, self.n, self.k, self.bytes.bytes());
        self.bytes.release();
        packed
    }
}

/// `[x]` in blocks of `Q8_0`.
struct IntegerBlocks {
    weights: PackedBlocks,
}

impl Kernel for IntegerBlocks {
    fn name(&self) -> String {
        format!("matmul_{}_int8", self.weights.format().name())
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let (n, k) = (self.weights.n(), self.weights.k());
        let shape = output_shape(x.shape(), BlockType::Q8_0.row_bytes(k)?, n, false)?;
        let mut output = ctx.arena.tensor(DType::F32, shape)?;
        let out = output.as_mut_slice::<f32>()?;
        matmul_blocks(*ctx.kernels, x.bytes(), &self.weights, out);
        Ok(vec![output])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        macs(outputs, self.weights.k())
    }
}

/// `[x]` in `f32`, weights decoded panel by panel.
struct FloatBlocks(PackedBlocks);

impl Kernel for FloatBlocks {
    fn name(&self) -> String {
        format!("matmul_{}_f32", self.0.format().name())
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let multiply =
            |x: &[f32], out: &mut [f32]| matmul_blocks_f32(*ctx.kernels, x, &self.0, out);
        run_float(ctx, inputs, self.0.k(), self.0.n(), multiply)
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        macs(outputs, self.0.k())
    }
}

/// `[x]` in `f32`, weights of 16-bit floats.
struct FloatHalves(PackedHalves);

impl Kernel for FloatHalves {
    fn name(&self) -> String {
        "matmul_half_f32".to_string()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let multiply = |x: &[f32], out: &mut [f32]| matmul_halves(*ctx.kernels, x, &self.0, out);
        run_float(ctx, inputs, self.0.k(), self.0.n(), multiply)
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        macs(outputs, self.0.k())
    }
}

fn macs(outputs: &[Tensor], k: usize) -> u64 {
    let outputs = outputs.first().map_or(0, Tensor::len);
    (outputs as u64).saturating_mul(k as u64)
}

fn run_float(
    ctx: &RunCtx,
    inputs: &Inputs,
    k: usize,
    n: usize,
    multiply: impl FnOnce(&[f32], &mut [f32]),
) -> Result<Vec<Tensor>> {
    let x = required(inputs, 0)?;
    let shape = output_shape(x.shape(), k, n, false)?;
    let mut output = ctx.arena.tensor(DType::F32, shape)?;
    multiply(&x.cow::<f32>()?, output.as_mut_slice::<f32>()?);
    Ok(vec![output])
}
