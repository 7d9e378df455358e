//! Convolutions as prepared steps: weights packed once, with what follows them in one kernel.

use super::float::{FloatConv, FloatConvKernel};
use super::float_transposed::FloatTransposed;
use super::geometry::Geometry;
use super::transposed::Transposed;
use crate::plan::fuse::{batch_norm, tail};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{DType, Node, NodeId, Result, Tensor};
use fewbit_kernels::gemm::Clamp;

/// The step for a convolution with constant weights; `None` leaves it to the plain evaluation.
///
/// # Errors
/// When the weight contradicts the node.
pub(crate) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Option<Lowered>> {
    let (Some(x), Some(w), Some(y)) = (node.input(0), node.input(1), node.output(0)) else {
        return Ok(None);
    };
    if lowering.ty(x).dtype != Some(DType::F32) {
        return Ok(None);
    }
    let bias = match node.input(2) {
        None => None,
        Some(b) => match lowering.constant(b) {
            Some(bias) => Some(bias.to_f32()?),
            None => return Ok(None),
        },
    };
    let (constant, fits) = (lowering.constant(w), |w: &Tensor| {
        w.dtype() == DType::F32 && lowering.ty(x).rank() == Some(w.rank())
    });
    let computed = constant.is_none();
    let Some(weight) = constant.or_else(|| lowering.stored(w)).filter(fits) else {
        return Ok(None);
    };
    let mut nodes = vec![id];
    let mut output = y;
    let mut parts = Parts { weight, scale: None, bias };
    if let Some((norm, scale, shift, value)) = batch_norm(lowering, node) {
        nodes.push(norm);
        output = value;
        parts.fold(scale, shift);
    }
    let last = nodes.last().copied().unwrap_or(id);
    let transposed = node.op == "ConvTranspose";
    let tail = tail(lowering, lowering.graph.node(last), !transposed);
    nodes.extend(&tail.nodes);
    output = tail.output.unwrap_or(output);
    let mut inputs = vec![Some(x)];
    inputs.extend(tail.residual.map(Some));
    let (shape, clamp, rule) = (parts.weight.shape(), tail.clamp, Rule::Last { output: true });
    let step = match transposed {
        true => {
            let shape = Transposed::new(node, shape)?;
            let pack = move || parts.transposed(shape, clamp);
            Lowered::packed(nodes, pack, inputs, output, rule)
        }
        false => {
            let geometry = Geometry::of_conv(node, shape)?;
            let pack = move || Ok(FloatConvKernel(parts.conv(geometry, clamp)?));
            Lowered::packed(nodes, pack, inputs, output, rule)
        }
    };
    Ok(Some(if computed { step.at_once()? } else { step }))
}

/// Weights of a convolution, with a batch normalization folded in.
struct Parts {
    weight: Tensor,
    scale: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
}

impl Parts {
    fn fold(&mut self, scale: Vec<f32>, shift: Vec<f32>) {
        let bias = self.bias.take().unwrap_or_else(|| vec![0.0; scale.len()]);
        let moved = bias.iter().zip(&scale).zip(&shift).map(|((b, s), t)| b * s + t);
        self.bias = Some(moved.collect());
        self.scale = Some(scale);
    }

    fn conv(self, geometry: Geometry, clamp: Option<Clamp>) -> Result<FloatConv> {
        let (weights, scale) = (self.weight.bytes(), self.scale.as_deref());
        let mut conv = FloatConv::new(geometry, weights, scale, self.bias)?;
        conv.clamp = clamp;
        self.weight.release();
        Ok(conv)
    }

    fn transposed(self, shape: Transposed, clamp: Option<Clamp>) -> Result<FloatTransposed> {
        let (weights, scale) = (self.weight.bytes(), self.scale.as_deref());
        let conv = FloatTransposed::new(shape, weights, scale, self.bias.as_deref(), clamp)?;
        self.weight.release();
        Ok(conv)
    }
}
