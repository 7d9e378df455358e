//! What follows exact sums whose scale is computed: how products are written whose inputs are
//! quantized while the model runs.

use crate::plan::fuse::clamp_of;
use crate::plan::lower::Lowering;
use fewbit_core::{DType, Error, Node, NodeId, Result, Tensor, ValueId};
use fewbit_kernels::gemm::Clamp;

/// `Cast` to f32, `Mul` by scales, and maybe `Add` of a constant and a clamp.
pub(crate) struct Scaled {
    pub nodes: Vec<NodeId>,
    pub scale: ValueId,
    pub bias: Option<Vec<f32>>,
    pub clamp: Option<Clamp>,
    pub output: ValueId,
}

/// The addition of a bias: it, one number for each channel, and what it gives.
pub(crate) type Addition = (NodeId, Vec<f32>, ValueId);

impl Scaled {
    /// What stands behind the sums of `node`, if it is that. `scales` says which shapes of scales
    /// will do, `bias` finds the addition behind a node.
    pub fn behind(
        lowering: &Lowering,
        node: &Node,
        scales: impl Fn(&[usize]) -> bool,
        bias: impl Fn(&Node) -> Option<Addition>,
    ) -> Option<Scaled> {
        let (cast, casting) = lowering.sole_reader(node).filter(|(_, next)| next.is("Cast"))?;
        let float = i64::from(DType::F32.to_onnx());
        casting.int("to").ok().flatten().filter(|&to| to == float)?;
        let (mul, scaling) = lowering.sole_reader(casting).filter(|(_, next)| next.is("Mul"))?;
        let scale = other(scaling, casting.output(0)?)?;
        let ty = lowering.ty(scale);
        if ty.dtype != Some(DType::F32) || !scales(&ty.fixed_shape()?) {
            return None;
        }
        let mut found = Scaled {
            nodes: vec![cast, mul],
            scale,
            bias: None,
            clamp: None,
            output: scaling.output(0)?,
        };
        let mut last = scaling;
        if let Some((add, bias, output)) = bias(last) {
            last = lowering.graph.node(add);
            found.nodes.push(add);
            (found.bias, found.output) = (Some(bias), output);
        }
        if let Some((id, next)) = lowering.sole_reader(last)
            && let (Some(clamp), Some(output)) = (clamp_of(lowering, next), next.output(0))
        {
            found.nodes.push(id);
            (found.clamp, found.output) = (Some(clamp), output);
        }
        Some(found)
    }
}

/// The input of a node of two that is not `value`.
pub(crate) fn other(node: &Node, value: ValueId) -> Option<ValueId> {
    node.inputs.iter().flatten().copied().find(|&input| input != value)
}

/// Whether a shape is that of a single number.
pub(crate) fn is_number(shape: &[usize]) -> bool {
    matches!(shape, [] | [1])
}

/// The zero point that codes of type `dtype` have in this run.
///
/// # Errors
/// When it is not one code of that type.
pub(crate) fn zero_point(zero: Option<&Tensor>, dtype: DType) -> Result<i32> {
    let Some(tensor) = zero else { return Ok(0) };
    match tensor.to_i64()?[..] {
        [zero] if tensor.dtype() == dtype => Ok(zero as i32),
        _ => Err(Error::bad_input(format!("a zero point {tensor:?} for codes of type {dtype}"))),
    }
}

/// The scales of this run, one for each of `channels`.
///
/// # Errors
/// When their number is another one.
pub(crate) fn scales(tensor: &Tensor, channels: usize) -> Result<Vec<f32>> {
    let scales = tensor.to_f32()?;
    match scales[..] {
        [only] => Ok(vec![only; channels]),
        _ if scales.len() == channels => Ok(scales),
        _ => Err(Error::bad_input(format!("{} scales for {channels} columns", scales.len()))),
    }
}
