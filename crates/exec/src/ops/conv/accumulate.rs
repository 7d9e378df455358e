//! `ConvInteger` with a constant weight, and the scale, the bias and the clamp behind it: what
//! convolutions are written as whose inputs are quantized while the model runs.

use super::geometry::Geometry;
use crate::plan::integer::finish::int8;
use crate::plan::integer::operands::{Weight, codes_of_a_run};
use crate::plan::integer::product::weight_zero;
use crate::plan::integer::scaled::{Addition, Scaled, is_number, other, scales, zero_point};
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{DType, Error, Node, NodeId, Result, Tensor};
use fewbit_kernels::conv::{ConvInput, PackedConvI8, conv2d_i8};
use fewbit_kernels::gemm::{Clamp, Dequantize, Output};

/// The step for such a convolution; `None` leaves it to the plain evaluation.
///
/// # Errors
/// When attributes and weight contradict each other.
pub(crate) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Option<Lowered>> {
    let channels = |shape: &[usize]| shape.first().copied();
    let (Some(x), Some(dtype), Some(weight)) =
        (node.input(0), codes_of_a_run(lowering, node), Weight::of(lowering, node, channels)?)
    else {
        return Ok(None);
    };
    let rank = weight.codes.rank();
    if lowering.ty(x).rank() != Some(rank) || !(3..=4).contains(&rank) {
        return Ok(None);
    }
    let geometry = Geometry::of_conv(node, weight.codes.shape())?;
    let channels = geometry.out_c;
    let bias = |node: &Node| added(lowering, node, channels, rank);
    let Some(scaled) = Scaled::behind(lowering, node, is_number, bias) else { return Ok(None) };
    let Scaled { nodes: tail, scale, bias, clamp, output } = scaled;
    let isa = lowering.scope.kernels.isa;
    let pack = move || {
        let codes = int8(&weight.codes, weight.codes.dtype())?;
        let zeros = weight_zero(&weight.zeros);
        let weights = PackedConvI8::new(isa, &geometry.packing(), codes, zeros);
        weight.codes.release();
        Ok(Accumulated { geometry, weights, dtype, bias, clamp })
    };
    let nodes = std::iter::once(id).chain(tail).collect();
    let inputs = vec![Some(x), node.input(2), Some(scale)];
    let mut step = Lowered::packed(nodes, pack, inputs, output, Rule::Last { output: true });
    step.integer = true;
    Ok(Some(step))
}

/// The addition of a constant number for each channel behind a node of rank `rank`.
fn added(lowering: &Lowering, node: &Node, channels: usize, rank: usize) -> Option<Addition> {
    let (id, add) = lowering.sole_reader(node).filter(|(_, next)| next.is("Add"))?;
    let bias = lowering.constant(other(add, node.output(0)?)?)?;
    let along = bias.rank().checked_sub(rank - 1)?;
    let fits = bias.dtype() == DType::F32 && bias.len() == channels && bias.rank() <= rank;
    (fits && bias.shape()[along] == channels).then_some((id, bias.to_f32().ok()?, add.output(0)?))
}

/// The prepared step: `[x, zero point, scale]`, `x` channels-last.
struct Accumulated {
    geometry: Geometry,
    weights: PackedConvI8,
    dtype: DType,
    bias: Option<Vec<f32>>,
    clamp: Option<Clamp>,
}

impl Kernel for Accumulated {
    fn name(&self) -> String {
        "conv_i8_f32".to_string()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        if x.dtype() != self.dtype {
            return Err(Error::bad_input(format!("codes of {} for {}", x.dtype(), self.dtype)));
        }
        let (pads, shape) = self.geometry.of_input(x.shape())?;
        let mut output = ctx.arena.tensor(DType::F32, shape)?;
        if output.is_empty() {
            return Ok(vec![output]);
        }
        let zero = inputs.get(1).and_then(Option::as_ref);
        let input =
            ConvInput { values: int8(x, self.dtype)?, zero_point: zero_point(zero, self.dtype)? };
        let scale = scales(required(inputs, 2)?, self.geometry.out_c)?;
        let to = Dequantize { scale: &scale, bias: self.bias.as_deref(), clamp: self.clamp };
        let plane = self.geometry.plane(x.shape()[0], &x.shape()[1..x.rank() - 1], &pads);
        let out = Output::F32(output.as_mut_slice()?, to);
        conv2d_i8(*ctx.kernels, &plane, input, &self.weights, out);
        Ok(vec![output])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        self.geometry.macs(outputs.first().map_or(0, Tensor::len))
    }
}
