//! Weights that nodes turn into those of a product or a convolution: a conversion, a decoder of blocks, a
//! transposition. They are computed while the product packs them, one at a time, not before: all
//! of a language model in `f32` would be several times its file.

use super::analyze::evaluate;
use super::lower::Lowering;
use super::scope::Scope;
use crate::memory::Arena;
use fewbit_core::{Graph, Node, NodeId, Tensor, ValueId};
use std::collections::{HashMap, HashSet};

/// Longest chain of such nodes; real ones have two.
const MAX_CHAIN: usize = 4;

/// Nodes that only turn a constant into the right operand of products.
pub(crate) fn deferred(graph: &Graph) -> HashSet<NodeId> {
    let uses = graph.uses();
    let mut depth: HashMap<ValueId, usize> = HashMap::new();
    let mut found: Vec<(NodeId, ValueId)> = Vec::new();
    for (id, node) in graph.nodes() {
        let Some((input, output)) = turns(node) else { continue };
        let below = match graph.constant(input) {
            Some(_) => Some(0),
            None => depth.get(&input).copied(),
        };
        if let Some(below) = below.filter(|&d| d < MAX_CHAIN) {
            depth.insert(output, below + 1);
            found.push((id, output));
        }
    }
    let mut kept = HashSet::new();
    for (id, output) in found.into_iter().rev() {
        let only_products = uses
            .consumers(output)
            .iter()
            .all(|&user| kept.contains(&user) || multiplies(graph, user, output));
        if only_products && !graph.outputs().contains(&output) && !uses.consumers(output).is_empty()
        {
            kept.insert(id);
        }
    }
    kept
}

/// Input and output of a node that turns one tensor into another.
fn turns(node: &Node) -> Option<(ValueId, ValueId)> {
    let known = node.is("Cast") || node.is("Transpose") || is_blocks(node, "DequantizeBlocks");
    (known && node.inputs.len() == 1).then_some(())?;
    Some((node.input(0)?, node.output(0)?))
}

/// Whether this is one of fewbit's operators on blocks.
pub(crate) fn is_blocks(node: &Node, op: &str) -> bool {
    node.domain == "ai.fewbit" && node.op == op
}

fn multiplies(graph: &Graph, user: NodeId, value: ValueId) -> bool {
    let node = graph.node(user);
    let known = ["MatMul", "Gemm", "Conv", "ConvTranspose"].iter().any(|op| node.is(op));
    let reads = |v: &&Option<ValueId>| **v == Some(value);
    known && node.input(1) == Some(value) && node.inputs.iter().filter(reads).count() == 1
}

impl Lowering<'_> {
    /// The constant right operand of a product, and whether it is to be read transposed.
    pub(crate) fn operand(&self, value: ValueId) -> Option<(Tensor, bool)> {
        let Some(producer) = self.deferred_producer(value) else {
            return Some((self.constant(value)?, false));
        };
        if self.graph.node(producer).is("Transpose") && self.ty(value).rank() == Some(2) {
            let node = self.graph.node(producer);
            let swaps = match node.ints("perm") {
                Ok(perm) => perm.is_none_or(|perm| perm == [1, 0]),
                Err(_) => false,
            };
            if swaps {
                return Some((self.stored(node.input(0)?)?, true));
            }
        }
        Some((self.stored(value)?, false))
    }

    /// A constant, or what deferred nodes make of one; nothing is kept.
    pub(crate) fn stored(&self, value: ValueId) -> Option<Tensor> {
        if let Some(tensor) = self.graph.constant(value) {
            return Some(tensor.clone());
        }
        let node = self.graph.node(self.deferred_producer(value)?);
        let input = self.stored(node.input(0)?)?;
        // The sizes follow from the stored bytes, so the limit on folded constants is not needed.
        let arena = Arena::new();
        let scope = Scope { arena: &arena, ..*self.scope };
        let made = evaluate(node, &scope, vec![Some(input.clone())]).ok()?.into_iter().next();
        input.release();
        made
    }

    fn deferred_producer(&self, value: ValueId) -> Option<NodeId> {
        self.uses.producer(value).filter(|id| self.deferred.contains(id))
    }
}
