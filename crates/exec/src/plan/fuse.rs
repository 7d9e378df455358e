//! What can follow a matrix product within the same kernel: batch normalization, a residual,
//! an activation.

use super::lower::Lowering;
use crate::session::Mode;
use fewbit_core::{DType, Dim, Node, NodeId, Tensor, ValueId, ValueType};
use fewbit_kernels::gemm::Clamp;

/// The nodes after a product that its epilogue takes over.
#[derive(Default)]
pub(crate) struct Tail {
    pub nodes: Vec<NodeId>,
    pub residual: Option<ValueId>,
    pub clamp: Option<Clamp>,
    /// Output of the last node taken over.
    pub output: Option<ValueId>,
}

/// Finds a residual addition (where `residual` allows one) and a clamping activation after
/// `node`. The order is that of the kernels: `clamp((sum + bias) + residual)`.
pub(crate) fn tail(lowering: &Lowering, node: &Node, residual: bool) -> Tail {
    let mut tail = Tail::default();
    let mut last = node;
    if let Some((id, add)) = lowering.sole_reader(last).filter(|_| residual)
        && let Some(other) = residual_of(lowering, last, add)
    {
        tail.take(id, add);
        tail.residual = Some(other);
        last = add;
    }
    if let Some((id, next)) = lowering.sole_reader(last)
        && let Some(clamp) = clamp_of(lowering, next)
    {
        tail.take(id, next);
        tail.clamp = Some(clamp);
    }
    tail
}

impl Tail {
    fn take(&mut self, id: NodeId, node: &Node) {
        self.nodes.push(id);
        self.output = node.output(0);
    }
}

/// The other operand of an addition, when it is as large as the output.
fn residual_of(lowering: &Lowering, node: &Node, add: &Node) -> Option<ValueId> {
    let output = node.output(0)?;
    if !add.is("Add") || add.inputs.len() != 2 {
        return None;
    }
    let other = match (add.input(0)?, add.input(1)?) {
        (a, b) if a == output && b != output => b,
        (a, b) if b == output && a != output => a,
        _ => return None,
    };
    let same = same_shape(lowering.ty(other), lowering.ty(output));
    let dynamic = lowering.graph.constant(other).is_none();
    (same && dynamic && lowering.ty(other).dtype == Some(DType::F32)).then_some(other)
}

/// Whether two values surely have one shape. Sizes of equal names are equal; between unknown ones
/// a broadcast cannot be excluded.
pub(crate) fn same_shape(a: &ValueType, b: &ValueType) -> bool {
    let (Some(a), Some(b)) = (&a.shape, &b.shape) else { return false };
    a == b && !a.contains(&Dim::Unknown)
}

/// The range a node clamps its input to.
pub(crate) fn clamp_of(lowering: &Lowering, node: &Node) -> Option<Clamp> {
    if node.is("Relu") {
        return Some(Clamp::RELU);
    }
    if !node.is("Clip") {
        return None;
    }
    let bound = |index: usize, name: &str, default: f32| match node.input(index) {
        Some(value) => scalar(&lowering.constant(value)?),
        None => Some(node.float(name).ok()?.unwrap_or(default)),
    };
    let (lo, hi) = (bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?);
    (lo <= hi).then_some(Clamp { lo, hi })
}

/// The number in a tensor of one f32.
pub(crate) fn scalar(tensor: &Tensor) -> Option<f32> {
    match (tensor.dtype(), tensor.len()) {
        (DType::F32, 1) => tensor.to_f32().ok()?.first().copied(),
        _ => None,
    }
}

/// A batch normalization with constant parameters that follows `node`: its id, the scale and the
/// shift of each channel, and its output. Only `Float` may re-associate the product.
pub(crate) fn batch_norm(
    lowering: &Lowering,
    node: &Node,
) -> Option<(NodeId, Vec<f32>, Vec<f32>, ValueId)> {
    let (id, norm) = lowering.sole_reader(node)?;
    if lowering.scope.mode != Mode::Float || !norm.is("BatchNormalization") {
        return None;
    }
    if norm.input(0) != node.output(0) || norm.outputs.iter().flatten().count() != 1 {
        return None;
    }
    let training = norm.int("training_mode").ok()?.unwrap_or(0);
    let epsilon = norm.float("epsilon").ok()?.unwrap_or(1e-5);
    let parameter = |index| {
        let tensor = lowering.constant(norm.input(index)?)?;
        (tensor.dtype() == DType::F32).then(|| tensor.to_f32().ok()).flatten()
    };
    let (gamma, beta) = (parameter(1)?, parameter(2)?);
    let (mean, variance) = (parameter(3)?, parameter(4)?);
    let channels = gamma.len();
    let equal = [&beta, &mean, &variance].iter().all(|p| p.len() == channels);
    if training != 0 || !equal || lowering.channels(node)? != channels {
        return None;
    }
    let scale: Vec<f32> =
        gamma.iter().zip(&variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
    let shift = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
    Some((id, scale, shift, norm.output(0)?))
}
