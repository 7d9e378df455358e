//! Functions of one coded tensor that several operators make up, as one table.
//!
//! `x * sigmoid(x)`, a GELU spelled out with `Erf`, activations with quantizations between them:
//! whatever reads nothing but one tensor of 8-bit codes and constant numbers, and ends in codes, is
//! a function of 256 values. Branches that meet again are part of it.

use super::codes::{Coded, coded};
use super::pointwise::{Table, all_values, is_unary, table_step};
use crate::plan::analyze::evaluate;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{DType, Node, NodeId, Tensor, ValueId};
use std::collections::{HashMap, HashSet};

/// The most nodes that one table stands for.
const MOST: usize = 48;

/// The step for `node` and all that belongs to the same function; `None` where it is alone.
pub(super) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Option<Lowered> {
    if !is_function(node) {
        return None;
    }
    let input = node.inputs.iter().flatten().find_map(|&v| coded(lowering, v).ok())?;
    let region = Region::around(lowering, input)?;
    let (nodes, end) = region.ending(lowering, id)?;
    let codes = region.evaluate(lowering, &nodes, end)?;
    let output = lowering.graph.node(end).output(0)?;
    Some(table_step(input, nodes, output, Table::of_codes(&codes)?))
}

/// Whether a node computes each element from the elements at the same place.
fn is_function(node: &Node) -> bool {
    let binary = matches!(node.op.as_str(), "Add" | "Sub" | "Mul" | "Div" | "Min" | "Max" | "Pow");
    let codes = matches!(node.op.as_str(), "QuantizeLinear" | "DequantizeLinear");
    matches!(node.domain.as_str(), "" | "ai.onnx")
        && node.outputs.len() == 1
        && (is_unary(node) || binary || codes)
}

/// The nodes that depend on nothing but one tensor of codes.
struct Region {
    /// What the codes stand for: these values are where the functions begin.
    roots: HashSet<ValueId>,
    input: Coded,
    /// In the order of execution.
    nodes: Vec<NodeId>,
}

impl Region {
    /// Everything that follows from the codes `input`.
    fn around(lowering: &Lowering, input: Coded) -> Option<Region> {
        let readers = lowering.uses.consumers(input.value).iter();
        let same = |value: &ValueId| coded(lowering, *value) == Ok(input);
        let roots: HashSet<ValueId> =
            readers.filter_map(|&r| lowering.graph.node(r).output(0)).filter(same).collect();
        let mut region = Region { roots, input, nodes: Vec::new() };
        let mut derived = region.roots.clone();
        let mut waiting: Vec<ValueId> = derived.iter().copied().collect();
        while let Some(value) = waiting.pop() {
            for &reader in lowering.uses.consumers(value) {
                let known = region.nodes.contains(&reader) || lowering.is_taken(reader);
                if known || !region.admits(lowering, lowering.graph.node(reader), &derived) {
                    continue;
                }
                region.nodes.push(reader);
                let output = lowering.graph.node(reader).output(0)?;
                derived.insert(output);
                waiting.push(output);
                if region.nodes.len() == MOST {
                    return None;
                }
            }
        }
        region.nodes.sort_by_key(|&id| lowering.place(id));
        Some(region)
    }

    /// Whether all that a node reads is derived, or a constant number. (A node with two derived
    /// inputs is looked at again when the second one is known.)
    fn admits(&self, lowering: &Lowering, node: &Node, derived: &HashSet<ValueId>) -> bool {
        let rank = self.roots.iter().find_map(|&root| lowering.ty(root).rank());
        let number = |value: ValueId| {
            let shape = lowering.ty(value).fixed_shape().unwrap_or_default();
            let fits = rank.is_some_and(|rank| shape.len() <= rank);
            fits && shape.iter().all(|&n| n == 1)
                && lowering.constant(value).is_some_and(|c| c.len() == 1)
        };
        is_function(node)
            && node.inputs.iter().flatten().all(|&value| derived.contains(&value) || number(value))
    }

    /// The nodes of the largest function that includes `id`, ends in 8-bit codes, and shows nothing
    /// else to the outside; with the node that it ends at.
    fn ending(&self, lowering: &Lowering, id: NodeId) -> Option<(Vec<NodeId>, NodeId)> {
        let ends = self.nodes.iter().rev().filter(|&&end| {
            let node = lowering.graph.node(end);
            let dtype = node.output(0).and_then(|v| lowering.ty(v).dtype);
            node.is("QuantizeLinear") && matches!(dtype, Some(DType::U8 | DType::I8))
        });
        let found = ends.map(|&end| (self.before(lowering, end), end));
        found
            .filter(|(nodes, end)| nodes.contains(&id) && is_closed(lowering, nodes, *end))
            .max_by_key(|(nodes, _)| nodes.len())
    }

    /// `end` and the nodes of the region that it depends on, in order.
    fn before(&self, lowering: &Lowering, end: NodeId) -> Vec<NodeId> {
        let mut needed = HashSet::from([end]);
        for &id in self.nodes.iter().rev() {
            if needed.contains(&id) {
                let inputs = lowering.graph.node(id).inputs.iter().flatten();
                needed.extend(inputs.filter_map(|&v| lowering.uses.producer(v)));
            }
        }
        self.nodes.iter().copied().filter(|id| needed.contains(id)).collect()
    }

    /// Runs the operators themselves on all 256 codes, so that the table is what `Simulate`
    /// computes, bit for bit.
    fn evaluate(&self, lowering: &Lowering, nodes: &[NodeId], end: NodeId) -> Option<Tensor> {
        let start = all_values(self.input);
        let mut values: HashMap<ValueId, Tensor> =
            self.roots.iter().map(|&root| (root, start.clone())).collect();
        for &id in nodes {
            let node = lowering.graph.node(id);
            let read =
                |value: &ValueId| values.get(value).cloned().or_else(|| lowering.constant(*value));
            let inputs = node.inputs.iter().map(|v| v.as_ref().and_then(read)).collect();
            let output = evaluate(node, lowering.scope, inputs).ok()?.into_iter().next()?;
            if output.len() != 256 {
                return None;
            }
            values.insert(node.output(0)?, output);
        }
        values.remove(&lowering.graph.node(end).output(0)?)
    }
}

/// Whether nobody but `nodes` reads what they compute, up to the result of `end`.
fn is_closed(lowering: &Lowering, nodes: &[NodeId], end: NodeId) -> bool {
    nodes.iter().filter(|&&id| id != end).all(|&id| {
        let output = lowering.graph.node(id).output(0);
        output.is_some_and(|value| {
            let readers = lowering.uses.consumers(value);
            !lowering.uses.is_output(value) && readers.iter().all(|reader| nodes.contains(reader))
        })
    })
}
