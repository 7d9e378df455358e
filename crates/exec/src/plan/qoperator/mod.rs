//! Operators on codes, written as what they mean.
//!
//! `QLinearConv`, ONNX Runtime's `QLinearAdd` and their like are a dequantization, an operator and a
//! quantization in one node. [`spell_out`] makes three of them, so that every pass behind it knows
//! one form of a quantized network. The codes stay codes in every mode: tools leave out a ReLU whose
//! work the range of the codes does, so `Float` must not look past them.

mod meaning;
mod site;

pub(crate) use meaning::is_qoperator;

use super::scope::Scope;
use fewbit_core::{Attr, Graph, Node, NodeId, Patch, Tensor, ValueId, ValueType};
use meaning::Meaning;
use site::{Coding, Operand};

/// Replaces each operator on codes whose scales are constant and of which three nodes can say the
/// same; the others keep their own evaluation.
pub(crate) fn spell_out(graph: &Graph, types: &[ValueType], scope: &Scope) -> Patch {
    let mut rewrite = Rewrite { graph, patch: Patch::new(graph) };
    for (id, node) in graph.nodes() {
        if let [Some(output)] = node.outputs[..]
            && let Some(meaning) = Meaning::of(graph, types, scope, node)
        {
            rewrite.replace(id, node, meaning, output);
        }
    }
    rewrite.patch
}

struct Rewrite<'a> {
    graph: &'a Graph,
    patch: Patch,
}

impl Rewrite<'_> {
    fn replace(&mut self, id: NodeId, node: &Node, meaning: Meaning, output: ValueId) {
        let Meaning { op, attrs, operands, coding } = meaning;
        self.patch.remove_node(id);
        let inputs: Vec<ValueId> =
            operands.into_iter().map(|operand| self.dequantized(node, operand)).collect();
        let result = match coding {
            None => output,
            Some(coding) => self.quantized(node, output, coding),
        };
        let plain = Node::new(op, node.name.clone(), &inputs, &[result]);
        self.patch.add_node(Node { attrs, ..plain });
    }

    /// The numbers of an operand.
    fn dequantized(&mut self, node: &Node, operand: Operand) -> ValueId {
        let Operand { codes, coding, axis } = operand;
        let (scale, zero) = self.constants(codes, coding);
        let name = format!("{}_dequantized", self.graph.name_of(codes));
        let numbers = self.patch.add_value(&name, ValueType::default());
        let inputs: Vec<ValueId> = [Some(codes), Some(scale), zero].into_iter().flatten().collect();
        let dequantize = Node::new("DequantizeLinear", named(node, "dq"), &inputs, &[numbers]);
        self.patch.add_node(dequantize.with("axis", Attr::Int(axis as i64)));
        numbers
    }

    /// The numbers that become the codes `output`.
    fn quantized(&mut self, node: &Node, output: ValueId, coding: Coding) -> ValueId {
        let (scale, zero) = self.constants(output, coding);
        let name = format!("{}_numbers", self.graph.name_of(output));
        let numbers = self.patch.add_value(&name, ValueType::default());
        let inputs: Vec<ValueId> =
            [Some(numbers), Some(scale), zero].into_iter().flatten().collect();
        self.patch.add_node(Node::new("QuantizeLinear", named(node, "q"), &inputs, &[output]));
        numbers
    }

    fn constants(&mut self, codes: ValueId, coding: Coding) -> (ValueId, Option<ValueId>) {
        let name = self.graph.name_of(codes);
        let mut add =
            |what: &str, tensor: Tensor| self.patch.add_constant(&format!("{name}_{what}"), tensor);
        (add("scale", coding.scale), coding.zero_point.map(|zero| add("zero_point", zero)))
    }
}

/// The name of a node that stands beside `node`; none where that has none.
fn named(node: &Node, what: &str) -> String {
    match node.name.as_str() {
        "" => String::new(),
        name => format!("{name}_{what}"),
    }
}
