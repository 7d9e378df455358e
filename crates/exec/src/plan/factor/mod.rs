//! `Simulate` mode: scales stand behind the sums that they have in common.
//!
//! What a quantized product means, `sum of (s * x) * (t * w)`, is `s * t * sum of x * w`. The sums
//! on the right are integers that `f32` holds exactly, so their order leaves nothing open, and one
//! rounding turns them into codes or numbers. [`factor_scales`] rewrites products that way, in
//! operators of ONNX; `Integer` then has the same numbers to round, and depth cannot make the two
//! part.

mod exact;

use super::integer::codes::{Coded, CodedWeight};
use super::integer::finish::{Codes, Finish};
use super::integer::product::Product;
use super::lower::Lowering;
use super::scope::Scope;
use crate::ops;
use exact::{ExactSums, Part, exact_sums};
use fewbit_core::{
    DType, Graph, Node, NodeId, Patch, Result, ResultExt, Tensor, ValueId, ValueType,
};
use fewbit_kernels::gemm::Clamp;
use std::collections::HashSet;

/// Rewrites each product of codes with constant codes, and the quantization behind it, in exact
/// sums. Products whose sums `f32` cannot hold stay as they are.
///
/// # Errors
/// When a weight contradicts its node.
pub(crate) fn factor_scales(graph: &Graph, types: &[ValueType], scope: &Scope) -> Result<Patch> {
    let lowering = Lowering::new(graph, types, scope);
    let mut rewrite = Rewrite { patch: Patch::new(graph), lowering, taken: HashSet::new() };
    for (id, node) in graph.nodes() {
        rewrite.visit(id, node).at(|| graph.label(id))?;
    }
    Ok(rewrite.patch)
}

struct Rewrite<'a> {
    patch: Patch,
    lowering: Lowering<'a>,
    taken: HashSet<NodeId>,
}

impl Rewrite<'_> {
    fn visit(&mut self, id: NodeId, node: &Node) -> Result<()> {
        let matched = match node.op.as_str() {
            _ if !matches!(node.domain.as_str(), "" | "ai.onnx") => None,
            "Conv" | "ConvTranspose" => ops::conv::coded(&self.lowering, node)?,
            "MatMul" | "Gemm" => ops::matmul::coded(&self.lowering, node),
            _ => None,
        };
        let Some(found) = matched else { return Ok(()) };
        let Some(sums) = exact_sums(&found)? else { return Ok(()) };
        if self.taken.contains(&id) || found.tail.iter().any(|node| self.taken.contains(node)) {
            return Ok(());
        }
        self.taken.insert(id);
        self.taken.extend(&found.tail);
        self.patch.remove_node(id);
        found.tail.iter().for_each(|&id| self.patch.remove_node(id));
        self.rewrite(node, &found, &sums)
    }

    fn rewrite(&mut self, node: &Node, found: &Product, sums: &ExactSums) -> Result<()> {
        let Coded { value, dtype, affine } = found.input;
        let x = self.differences(value, dtype, affine.zero_point)?;
        let channels = Channels::of(node, &found.weight);
        let mut sum = self.sums(node, x, &sums.low, &channels)?;
        if let Some(high) = &sums.high {
            let high = self.sums(node, x, high, &channels)?;
            sum = self.node("Add", &[sum, high]);
        }
        self.finish(sum, node, found, &channels)
    }

    fn finish(
        &mut self,
        sum: ValueId,
        node: &Node,
        found: &Product,
        channels: &Channels,
    ) -> Result<()> {
        match &found.finish {
            Finish::Codes(codes) => {
                let value = self.with_constant("Mul", sum, channels.tensor(&codes.multiplier)?);
                let value = self.with_residual(value, found.residual, codes)?;
                self.quantize(value, codes, found.output)
            }
            Finish::Float { scale, bias, clamp } => {
                let mut value = self.with_constant("Mul", sum, channels.tensor(scale)?);
                if let Some(bias) = bias {
                    value = self.with_constant("Add", value, channels.tensor(bias)?);
                }
                if let Some(Clamp { lo, hi }) = *clamp {
                    value = self.clamped(value, lo, hi);
                }
                let named = Node::new("Identity", node.name.clone(), &[value], &[found.output]);
                self.patch.add_node(named);
                Ok(())
            }
        }
    }

    fn with_residual(
        &mut self,
        value: ValueId,
        residual: Option<ValueId>,
        codes: &Codes,
    ) -> Result<ValueId> {
        let (Some(residual), Some(addend)) = (residual, codes.residual) else {
            return Ok(value);
        };
        let residual = self.differences(residual, addend.dtype, addend.zero_point)?;
        let residual = self.with_constant("Mul", residual, Tensor::scalar(addend.multiplier));
        Ok(self.node("Add", &[value, residual]))
    }

    /// `q - zero_point`, in float.
    fn differences(&mut self, codes: ValueId, dtype: DType, zero: i32) -> Result<ValueId> {
        let scale = self.patch.add_constant("one", Tensor::scalar(1.0f32));
        let zero = self.patch.add_constant("zero_point", code(dtype, zero)?);
        Ok(self.node("DequantizeLinear", &[codes, scale, zero]))
    }

    fn sums(
        &mut self,
        product: &Node,
        x: ValueId,
        part: &Part,
        channels: &Channels,
    ) -> Result<ValueId> {
        let bias = channels.tensor(&part.bias)?;
        let Some(weight) = &part.weight else {
            return Ok(self.patch.add_constant("bias", bias));
        };
        let weight = self.patch.add_constant("codes", weight.clone());
        let sum = self.patch.add_value("sum", ValueType::default());
        let mut node = Node::new(&product.op, product.name.clone(), &[x, weight], &[sum]);
        node.attrs.clone_from(&product.attrs);
        self.patch.add_node(node);
        let sum = match part.unit {
            1.0 => sum,
            unit => self.with_constant("Mul", sum, Tensor::scalar(unit)),
        };
        Ok(if part.bias.iter().all(|&b| b == 0.0) {
            sum
        } else {
            self.with_constant("Add", sum, bias)
        })
    }

    /// Codes of a number in units of the output's scale. Rounding is monotone, so it may come
    /// after the clamp.
    fn quantize(&mut self, value: ValueId, codes: &Codes, output: ValueId) -> Result<()> {
        let bound = |code: i32| (code - codes.zero_point) as f32;
        let value = self.clamped(value, bound(codes.lo), bound(codes.hi));
        let scale = self.patch.add_constant("one", Tensor::scalar(1.0f32));
        let zero = self.patch.add_constant("zero_point", code(codes.dtype, codes.zero_point)?);
        let node = Node::new("QuantizeLinear", "", &[value, scale, zero], &[output]);
        self.patch.add_node(node);
        Ok(())
    }

    fn clamped(&mut self, value: ValueId, lo: f32, hi: f32) -> ValueId {
        let value = self.with_constant("Max", value, Tensor::scalar(lo));
        self.with_constant("Min", value, Tensor::scalar(hi))
    }

    fn with_constant(&mut self, op: &str, value: ValueId, constant: Tensor) -> ValueId {
        let constant = self.patch.add_constant("constant", constant);
        self.node(op, &[value, constant])
    }

    fn node(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        let output = self.patch.add_value("value", ValueType::default());
        self.patch.add_node(Node::new(op, "", inputs, &[output]));
        output
    }
}

/// A zero point of an 8-bit type.
fn code(dtype: DType, zero: i32) -> Result<Tensor> {
    Tensor::from_f64(dtype, vec![], &[f64::from(zero)])
}

/// The shape that runs along the output channels.
struct Channels {
    trailing: usize,
}

impl Channels {
    fn of(node: &Node, weight: &CodedWeight) -> Self {
        let convolution = matches!(node.op.as_str(), "Conv" | "ConvTranspose");
        Channels { trailing: if convolution { weight.codes.rank() - 2 } else { 0 } }
    }

    fn tensor(&self, values: &[f32]) -> Result<Tensor> {
        let mut shape = vec![values.len()];
        shape.resize(1 + self.trailing, 1);
        Tensor::from_slice(shape, values)
    }
}
