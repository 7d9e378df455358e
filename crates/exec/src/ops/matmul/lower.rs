//! Products with constant weights as prepared steps.

use super::float::FloatMatMulKernel;
use crate::plan::fuse::tail;
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{DType, Node, NodeId, Result, Tensor, ValueId};
use fewbit_kernels::gemm::PackedF32;

/// The step for a product with a constant right operand; `None` leaves it to the plain evaluation.
///
/// # Errors
/// When the weight contradicts the node.
pub(crate) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Option<Lowered>> {
    if let Some(step) = super::blocks::lower_float(lowering, id, node) {
        return Ok(Some(step));
    }
    let (Some(a), Some(b), Some(y)) = (node.input(0), node.input(1), node.output(0)) else {
        return Ok(None);
    };
    if lowering.ty(a).dtype != Some(DType::F32) || lowering.ty(a).rank().is_none_or(|r| r < 1) {
        return Ok(None);
    }
    let operand = lowering.operand(b).and_then(|(w, turned)| Operand::new(node, w, turned));
    let Some(operand) = operand else { return Ok(None) };
    let mut nodes = vec![id];
    let mut output = y;
    let bias = match bias(lowering, node, operand.n) {
        Bias::None => None,
        Bias::Own(bias) => Some(bias),
        Bias::Added(add, bias, value) => {
            nodes.push(add);
            output = value;
            Some(bias)
        }
        Bias::Dynamic => return Ok(None),
    };
    let last = nodes.last().copied().unwrap_or(id);
    let tail = tail(lowering, lowering.graph.node(last), true);
    nodes.extend(&tail.nodes);
    output = tail.output.unwrap_or(output);
    let mut inputs = vec![Some(a)];
    inputs.extend(tail.residual.map(Some));
    let (clamp, matrix_only) = (tail.clamp, node.is("Gemm"));
    let pack =
        move || Ok(FloatMatMulKernel { weights: operand.packed(), bias, clamp, matrix_only });
    let step = Lowered::packed(nodes, pack, inputs, output, Rule::Default);
    Ok(Some(if lowering.graph.constant(b).is_none() { step.at_once()? } else { step }))
}

/// The right operand as one matrix of `k` rows and `n` columns.
struct Operand {
    weight: Tensor,
    k: usize,
    n: usize,
    /// Whether it lies transposed.
    turned: bool,
}

impl Operand {
    /// `None` for batches and other types.
    fn new(node: &Node, weight: Tensor, turned: bool) -> Option<Operand> {
        let [rows, cols] = *weight.shape() else { return None };
        if weight.dtype() != DType::F32 || rows == 0 || cols == 0 {
            return None;
        }
        let mut turned = turned;
        if node.is("Gemm") {
            let alpha = node.float("alpha").ok()?.unwrap_or(1.0);
            if alpha != 1.0 || node.int("transA").ok()?.unwrap_or(0) != 0 {
                return None;
            }
            turned ^= node.int("transB").ok()?.unwrap_or(0) != 0;
        }
        let (k, n) = if turned { (cols, rows) } else { (rows, cols) };
        Some(Operand { weight, k, n, turned })
    }

    fn packed(&self) -> PackedF32 {
        let values = self.weight.bytes();
        let packed = match self.turned {
            true => PackedF32::of_bytes_transposed(self.k, self.n, values),
            false => PackedF32::of_bytes(self.k, self.n, values),
        };
        self.weight.release();
        packed
    }
}

/// Where the bias of a product comes from.
enum Bias {
    None,
    /// Input C of `Gemm`.
    Own(Vec<f32>),
    /// An addition that follows.
    Added(NodeId, Vec<f32>, ValueId),
    /// C is computed or is no row: the kernel cannot add it.
    Dynamic,
}

fn bias(lowering: &Lowering, node: &Node, n: usize) -> Bias {
    if let Some(c) = node.input(2).filter(|_| node.is("Gemm")) {
        let beta = node.float("beta").ok().flatten().unwrap_or(1.0);
        return match lowering.constant(c).and_then(|c| row(&c, n)) {
            Some(bias) => Bias::Own(bias.iter().map(|v| beta * v).collect()),
            None => Bias::Dynamic,
        };
    }
    match added(lowering, node, n) {
        Some((id, bias, output)) => Bias::Added(id, bias, output),
        None => Bias::None,
    }
}

/// The addition of a constant row of `n` behind a node: it, the row, and what it gives.
pub(super) fn added(
    lowering: &Lowering,
    node: &Node,
    n: usize,
) -> Option<(NodeId, Vec<f32>, ValueId)> {
    let (id, add) = lowering.sole_reader(node)?;
    if !add.is("Add") || lowering.ty(node.output(0)?).rank()? < 2 {
        return None;
    }
    let other = add.inputs.iter().flatten().find(|&&v| Some(v) != node.output(0))?;
    let bias = row(&lowering.constant(*other)?, n)?;
    Some((id, bias, add.output(0)?))
}

/// A constant that is added to each row: `[n]` or `[1,n]`, or one number.
fn row(tensor: &Tensor, n: usize) -> Option<Vec<f32>> {
    let lead = tensor.shape().iter().rev().skip(1).all(|&d| d == 1);
    if tensor.dtype() != DType::F32 || !lead || tensor.rank() > 2 {
        return None;
    }
    let values = tensor.to_f32().ok()?;
    match values.len() {
        1 => Some(vec![values[0]; n]),
        len if len == n => Some(values),
        _ => None,
    }
}
