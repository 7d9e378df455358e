//! `MatMulInteger` with a constant matrix, and the scales, the bias and the clamp behind it: what
//! products are written as whose inputs are quantized while the model runs.

use super::float::output_shape;
use super::lower::added;
use crate::plan::integer::finish::int8;
use crate::plan::integer::operands::{Weight, codes_of_a_run};
use crate::plan::integer::product::weight_zero;
use crate::plan::integer::scaled::{Scaled, is_number, scales, zero_point};
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{DType, Node, NodeId, Result, Tensor};
use fewbit_kernels::gemm::{Clamp, Dequantize, Matrix, Output, PackedI8, gemm_i8};

/// The step for such a product; `None` leaves it to the plain evaluation.
///
/// # Errors
/// When the zero points contradict the weight.
pub(crate) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Option<Lowered>> {
    let (Some(a), Some(y)) = (node.input(0), node.output(0)) else { return Ok(None) };
    let columns = |shape: &[usize]| <[usize; 2]>::try_from(shape).ok().map(|[_, n]| n);
    let (Some(dtype), Some(weight), true) = (
        codes_of_a_run(lowering, node),
        Weight::of(lowering, node, columns)?,
        lowering.ty(a).rank().is_some_and(|rank| rank > 1),
    ) else {
        return Ok(None);
    };
    let mut nodes = vec![id];
    let mut inputs = vec![Some(a), node.input(2)];
    let (mut output, mut bias, mut clamp) = (y, None, None);
    let n = weight.zeros.len();
    let fits = |shape: &[usize]| is_number(shape) || shape == [n];
    let scaled = Scaled::behind(lowering, node, fits, |node| added(lowering, node, n));
    let is_scaled = scaled.is_some();
    if let Some(scaled) = scaled {
        nodes.extend(scaled.nodes);
        inputs.push(Some(scaled.scale));
        (output, bias, clamp) = (scaled.output, scaled.bias, scaled.clamp);
    }
    let isa = lowering.scope.kernels.isa;
    let pack = move || {
        let zero = weight_zero(&weight.zeros);
        let codes = int8(&weight.codes, weight.codes.dtype())?;
        let weights = PackedI8::new(isa, weight.codes.len() / n, n, codes, zero);
        weight.codes.release();
        Ok(Accumulated { weights, dtype, is_scaled, bias, clamp })
    };
    let mut step = Lowered::packed(nodes, pack, inputs, output, Rule::Default);
    step.integer = true;
    Ok(Some(step))
}

/// The prepared step: `[a, zero point]`, and scales where it `is_scaled`.
struct Accumulated {
    weights: PackedI8,
    dtype: DType,
    is_scaled: bool,
    bias: Option<Vec<f32>>,
    clamp: Option<Clamp>,
}

impl Kernel for Accumulated {
    fn name(&self) -> String {
        format!("gemm_i8_{}", if self.is_scaled { "f32" } else { "i32" })
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let a = required(inputs, 0)?;
        let (k, n) = (self.weights.k(), self.weights.n());
        let shape = output_shape(a.shape(), k, n, false)?;
        let zero = zero_point(inputs.get(1).and_then(Option::as_ref), self.dtype)?;
        let left = Matrix { data: int8(a, self.dtype)?, stride: k };
        let rows = a.len() / k;
        if !self.is_scaled {
            let mut output = ctx.arena.tensor(DType::I32, shape)?;
            let data = Output::I32(output.as_mut_slice()?);
            gemm_i8(*ctx.kernels, rows, left, zero, &self.weights, Matrix { data, stride: n });
            return Ok(vec![output]);
        }
        let scale = scales(required(inputs, 2)?, n)?;
        let to = Dequantize { scale: &scale, bias: self.bias.as_deref(), clamp: self.clamp };
        let mut output = ctx.arena.tensor(DType::F32, shape)?;
        let data = Output::F32(output.as_mut_slice()?, to);
        gemm_i8(*ctx.kernels, rows, left, zero, &self.weights, Matrix { data, stride: n });
        Ok(vec![output])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        let outputs = outputs.first().map_or(0, Tensor::len);
        (outputs as u64).saturating_mul(self.weights.k() as u64)
    }
}
