//! `Integer` mode: signed activations become unsigned where the instructions want that.
//!
//! `vpdpbusd` and `vpmaddubsw` multiply unsigned bytes with signed ones, so a kernel turns each
//! signed activation it reads into its unsigned form. [`make_unsigned`] has it written that way:
//! 128 is added to the codes and to their zero point, in the graph, so that what they stand for,
//! every rounding and every bound stay as they are.

use super::codes::{coded, quantizer};
use crate::plan::lower::Lowering;
use crate::plan::scope::Scope;
use fewbit_core::{Attr, DType, Graph, Node, NodeId, Patch, Result, Tensor, ValueId, ValueType};
use std::collections::{HashMap, HashSet};

/// Rewrites the codes that only this graph sees; tells whether there were any.
///
/// # Errors
/// When the graph was broken before.
pub(crate) fn make_unsigned(graph: &mut Graph, types: &[ValueType], scope: &Scope) -> Result<bool> {
    if !scope.kernels.isa.wants_unsigned() {
        return Ok(false);
    }
    let lowering = Lowering::new(graph, types, scope);
    let found = signed(&lowering);
    if found.is_empty() {
        return Ok(false);
    }
    let patch = rewrite(&lowering, &Groups::of(&lowering, found).kept());
    let changes = !patch.is_empty();
    patch.apply(graph)?;
    Ok(changes)
}

/// Signed codes with one zero point, made by a quantization and read by dequantizations alone.
fn signed(lowering: &Lowering) -> HashMap<ValueId, i32> {
    let codes = |node: &Node| {
        let (dtype, quantizer) = quantizer(lowering, node).ok()?;
        let value = node.output(0).filter(|_| dtype == DType::I8)?;
        let zero = quantizer.affine().zero_point;
        readers(lowering, value).all(|read| read == Some(zero)).then_some((value, zero))
    };
    let hidden = |value: &ValueId| !lowering.uses.is_output(*value);
    let found = lowering.graph.nodes().filter_map(|(_, node)| codes(node));
    found.filter(|(value, _)| hidden(value)).collect()
}

/// What each reader of `value` takes off as its zero point, if it is a dequantization.
fn readers(lowering: &Lowering, value: ValueId) -> impl Iterator<Item = Option<i32>> {
    lowering.uses.consumers(value).iter().map(move |&id| {
        let codes = coded(lowering, lowering.graph.node(id).output(0)?).ok()?;
        (codes.value == value && codes.dtype == DType::I8).then_some(codes.affine.zero_point)
    })
}

/// Codes that one step reads and writes, which have one type.
struct Groups {
    zeros: HashMap<ValueId, i32>,
    /// A step towards the value that stands for the group.
    parent: HashMap<ValueId, ValueId>,
    /// Values whose group stays as it is.
    blocked: Vec<ValueId>,
}

impl Groups {
    fn of(lowering: &Lowering, zeros: HashMap<ValueId, i32>) -> Self {
        let mut groups = Groups { zeros, parent: HashMap::new(), blocked: Vec::new() };
        for (_, node) in lowering.graph.nodes() {
            match is_product(node) {
                // The right side of a product is the signed one.
                true => groups.blocked.extend(inputs(lowering, node).skip(1).flatten()),
                false => groups.join(lowering, node),
            }
        }
        groups
    }

    /// Joins what a node reads and what its results are quantized to.
    fn join(&mut self, lowering: &Lowering, node: &Node) {
        if matches!(node.op.as_str(), "QuantizeLinear" | "DequantizeLinear") {
            return;
        }
        let output = super::codes::target(lowering, node).ok().map(|target| target.output);
        let all: Vec<ValueId> = inputs(lowering, node).flatten().chain(output).collect();
        if all.iter().any(|value| !self.zeros.contains_key(value)) {
            self.blocked.extend(&all);
        }
        for pair in all.windows(2) {
            let (a, b) = (self.root(pair[0]), self.root(pair[1]));
            if a != b {
                self.parent.insert(a, b);
            }
        }
    }

    fn root(&self, mut value: ValueId) -> ValueId {
        while let Some(&next) = self.parent.get(&value) {
            value = next;
        }
        value
    }

    /// The codes, with their zero points, of groups of which none is blocked.
    fn kept(mut self) -> HashMap<ValueId, i32> {
        let blocked: HashSet<ValueId> =
            self.blocked.iter().map(|&value| self.root(value)).collect();
        let mut zeros = std::mem::take(&mut self.zeros);
        zeros.retain(|&value, _| !blocked.contains(&self.root(value)));
        zeros
    }
}

fn is_product(node: &Node) -> bool {
    matches!(node.op.as_str(), "Conv" | "ConvTranspose" | "MatMul" | "Gemm")
}

/// The codes behind each input of a node.
fn inputs(lowering: &Lowering, node: &Node) -> impl Iterator<Item = Option<ValueId>> {
    node.inputs.iter().map(|&value| coded(lowering, value?).ok().map(|codes| codes.value))
}

fn rewrite(lowering: &Lowering, zeros: &HashMap<ValueId, i32>) -> Patch {
    let graph = lowering.graph;
    let mut patch = Patch::new(graph);
    let mut constants = HashMap::new();
    for (id, node) in graph.nodes() {
        let value = match node.op.as_str() {
            "QuantizeLinear" => node.output(0),
            "DequantizeLinear" => node.input(0),
            _ => None,
        };
        let Some(zero) = value.and_then(|value| zeros.get(&value)) else { continue };
        let constant = *constants.entry(*zero).or_insert_with(|| {
            patch.add_constant("zero_point", Tensor::scalar((zero + 128) as u8))
        });
        patch.set_input(id, 2, Some(constant));
        set_output_type(&mut patch, id, node);
    }
    patch
}

/// A `QuantizeLinear` may say its type in an attribute, too.
fn set_output_type(patch: &mut Patch, id: NodeId, node: &Node) {
    if node.is("QuantizeLinear") && node.attr("output_dtype").is_some() {
        patch.set_attr(id, "output_dtype", Attr::Int(i64::from(DType::U8.to_onnx())));
    }
}

#[cfg(test)]
mod tests;
