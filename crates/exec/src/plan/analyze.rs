//! One walk over a graph that derives types and computes what does not depend on inputs.

use super::scope::Scope;
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use fewbit_core::{Graph, Node, NodeId, Patch, Result, Tensor, ValueId, ValueType, element_count};
use std::collections::HashSet;

/// What is known of each value, indexed by value.
pub(crate) struct Analysis {
    pub types: Vec<ValueType>,
    pub constants: Vec<Option<Tensor>>,
}

/// Which nodes of constants are computed ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fold {
    /// All.
    All,
    /// All but dequantization, so that low-bit weights stay low-bit.
    KeepDequantize,
}

/// Operators whose result is another one on each run.
const RANDOM: [&str; 6] = [
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
];

/// Larger results are left to the run: a file of a hundred bytes can ask for terabytes.
pub(crate) const MAX_FOLDED_BYTES: usize = 64 << 20;

/// Derives types and constants. What cannot be derived is left as the file declares it; a node
/// that contradicts itself is reported when it runs.
pub(crate) fn analyze(graph: &Graph, scope: &Scope, fold: Fold) -> Analysis {
    analyze_but(graph, scope, fold, &HashSet::new())
}

/// As [`analyze`]; the `deferred` nodes are not computed, whatever their inputs.
pub(crate) fn analyze_but(
    graph: &Graph,
    scope: &Scope,
    fold: Fold,
    deferred: &HashSet<NodeId>,
) -> Analysis {
    let mut found = Analysis {
        types: graph.value_ids().map(|v| graph.value(v).ty.clone()).collect(),
        constants: graph.value_ids().map(|v| graph.constant(v).cloned()).collect(),
    };
    for (id, node) in graph.nodes() {
        found.visit(node, scope, (!deferred.contains(&id)).then_some(fold));
    }
    found
}

impl Analysis {
    fn visit(&mut self, node: &Node, scope: &Scope, fold: Option<Fold>) {
        let Ok(types) = self.infer(node, scope) else { return };
        for (value, ty) in node.outputs.iter().zip(types) {
            if let Some(value) = value {
                merge(&mut self.types[value.index()], ty);
            }
        }
        let Some(outputs) = fold.and_then(|fold| self.fold(node, scope, fold)) else { return };
        for (value, tensor) in node.outputs.iter().zip(outputs) {
            if let Some(value) = value {
                self.types[value.index()] = ValueType::of(&tensor);
                self.constants[value.index()] = Some(tensor);
            }
        }
    }

    fn infer(&self, node: &Node, scope: &Scope) -> Result<Vec<ValueType>> {
        let ty = |v: &Option<ValueId>| v.map(|v| self.types[v.index()].clone());
        let constant = |v: &Option<ValueId>| self.constants[(*v)?.index()].as_ref();
        (scope.def(node)?.infer)(&InferCtx {
            node,
            opset: scope.opset(node),
            inputs: node.inputs.iter().map(ty).collect(),
            constants: node.inputs.iter().map(constant).collect(),
        })
    }

    fn fold(&self, node: &Node, scope: &Scope, fold: Fold) -> Option<Vec<Tensor>> {
        if let Some(shape) = self.known_shape(node) {
            return Some(vec![shape]);
        }
        let known = |v: &Option<ValueId>| v.is_none_or(|v| self.constants[v.index()].is_some());
        if !node.inputs.iter().all(known) || !may_fold(node, fold) || self.too_large(node) {
            return None;
        }
        let input = |v: &Option<ValueId>| self.constants[(*v)?.index()].clone();
        let inputs = node.inputs.iter().map(input).collect();
        evaluate(node, scope, inputs).ok()
    }

    fn too_large(&self, node: &Node) -> bool {
        let bytes = |v: &ValueId| {
            let ty = &self.types[v.index()];
            ty.dtype?.bytes_for(element_count(&ty.fixed_shape()?)?)
        };
        node.outputs.iter().flatten().filter_map(bytes).any(|n| n > MAX_FOLDED_BYTES)
    }

    /// `Shape` of a value whose dimensions are all fixed.
    fn known_shape(&self, node: &Node) -> Option<Tensor> {
        if !node.is("Shape") {
            return None;
        }
        let shape = self.types[node.input(0)?.index()].fixed_shape()?;
        let rank = shape.len() as i64;
        let clamp = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank);
        let start = clamp(node.int("start").ok()?.unwrap_or(0));
        let end = clamp(node.int("end").ok()?.unwrap_or(rank)).max(start);
        let dims: Vec<i64> =
            shape[start as usize..end as usize].iter().map(|&d| d as i64).collect();
        Some(Tensor::vector(&dims))
    }
}

/// Computes a node of constants.
pub(crate) fn evaluate(
    node: &Node,
    scope: &Scope,
    inputs: Vec<Option<Tensor>>,
) -> Result<Vec<Tensor>> {
    (scope.def(node)?.eval)(&mut EvalCtx {
        node,
        opset: scope.opset(node),
        kernels: scope.kernels,
        arena: scope.arena,
        subgraphs: None,
        inputs,
    })
}

fn may_fold(node: &Node, fold: Fold) -> bool {
    let has_graph = node.attrs.iter().any(|(_, attr)| !attr.graphs().is_empty());
    let kept = fold == Fold::KeepDequantize && node.is("DequantizeLinear");
    let random = RANDOM.contains(&node.op.as_str()) || node.op == "Dropout";
    !has_graph && !kept && !random && !node.outputs.is_empty()
}

/// Keeps what is known, takes what is new.
fn merge(known: &mut ValueType, found: ValueType) {
    known.dtype = found.dtype.or(known.dtype);
    if let Some(shape) = found.shape {
        let old = known.shape.take().filter(|old| old.len() == shape.len());
        known.shape = Some(match old {
            None => shape,
            Some(old) => shape
                .into_iter()
                .zip(old)
                .map(|(new, old)| if new == fewbit_core::Dim::Unknown { old } else { new })
                .collect(),
        });
    }
}

/// The edits that replace nodes of constants by their results, and note derived types.
pub(crate) fn fold_patch(graph: &Graph, analysis: &Analysis) -> Patch {
    let mut patch = Patch::new(graph);
    for (id, node) in graph.nodes() {
        let constant = |v: &ValueId| analysis.constants[v.index()].is_some();
        if node.outputs.is_empty() || !node.outputs.iter().flatten().all(constant) {
            continue;
        }
        patch.remove_node(id);
        for &value in node.outputs.iter().flatten() {
            if let Some(tensor) = &analysis.constants[value.index()] {
                patch.set_constant(value, tensor.clone());
            }
        }
    }
    patch
}
