//! Operators into which ONNX Runtime fuses others, written as those again: their weights are packed
//! once, and whatever is known about the parts holds for them.

mod activation;
pub(crate) mod attention;
mod product;

pub(crate) use product::read_order;

use super::analyze::{Fold, analyze_but};
use super::scope::Scope;
use super::weights::deferred;
use fewbit_core::{DType, Graph, Node, Patch, Result, Tensor, ValueId, ValueType};

/// Writes fused operators as what they fuse. Those that say something unknown stay; they report
/// it when they run.
///
/// # Errors
/// When the graph was broken before.
pub(crate) fn write_out(graph: &mut Graph, scope: &Scope) -> Result<()> {
    let patch = written_out(graph, scope, |node| is_product(node) || is_attention(node));
    if patch.is_empty() { Ok(()) } else { patch.apply(graph) }
}

/// The edits that write products with more than a product in them as operators of ONNX.
pub(crate) fn products_patch(graph: &Graph, scope: &Scope) -> Patch {
    written_out(graph, scope, is_product)
}

fn is_product(node: &Node) -> bool {
    let known = ["FusedConv", "FusedGemm", "FusedMatMul", "TransposeMatMul"];
    node.domain == "com.microsoft" && known.contains(&node.op.as_str())
}

fn is_attention(node: &Node) -> bool {
    node.domain == "com.microsoft" && matches!(node.op.as_str(), "Attention" | "QAttention")
}

fn written_out(graph: &Graph, scope: &Scope, wanted: impl Fn(&Node) -> bool) -> Patch {
    let patch = Patch::new(graph);
    if !graph.nodes().any(|(_, node)| wanted(node)) {
        return patch;
    }
    let types = analyze_but(graph, scope, Fold::KeepDequantize, &deferred(graph)).types;
    let mut writer = Writer { patch, types: &types };
    for (id, node) in graph.nodes().filter(|(_, node)| wanted(node)) {
        // What cannot be written otherwise stays as it is.
        let _ = match node.op.as_str() {
            "Attention" => writer.attention(id, node),
            "QAttention" => writer.attention_on_codes(id, node),
            "FusedConv" => writer.convolution(id, node),
            "FusedGemm" => writer.gemm(id, node),
            _ => writer.matrices(id, node),
        };
    }
    writer.patch
}

struct Writer<'a> {
    patch: Patch,
    types: &'a [ValueType],
}

impl Writer<'_> {
    fn ty(&self, value: ValueId) -> &ValueType {
        &self.types[value.index()]
    }

    /// Element type of what a node computes with; that of most models where nothing is known.
    fn dtype(&self, node: &Node) -> DType {
        node.input(0).and_then(|value| self.ty(value).dtype).unwrap_or(DType::F32)
    }

    /// A constant of one number.
    fn number(&mut self, name: &str, dtype: DType, number: f32) -> Option<ValueId> {
        let tensor = Tensor::from_f64(dtype, vec![], &[f64::from(number)]).ok()?;
        Some(self.patch.add_constant(name, tensor))
    }

    /// Adds a node with one new output.
    fn value(&mut self, node: Node) -> ValueId {
        let output = self.patch.add_value("value", ValueType::default());
        self.patch.add_node(Node { outputs: vec![Some(output)], ..node });
        output
    }

    /// Adds a node with the outputs of another one.
    fn last(&mut self, node: Node, of: &Node) {
        self.patch.add_node(Node { outputs: of.outputs.clone(), ..node });
    }
}
