//! `Float` mode: activation quantization is skipped.

use super::weights::is_blocks;
use fewbit_core::{Graph, Node, NodeId, Patch, Result, Uses, ValueId};
use std::collections::HashMap;

/// Makes every `DequantizeLinear(QuantizeLinear(x))`, and every such pair on blocks, an identity
/// of `x` and lets its readers read `x` itself. The identity stays for graph outputs and taps of
/// that name.
///
/// # Errors
/// When the graph was broken before.
pub(crate) fn skip_activation_quantization(graph: &mut Graph) -> Result<()> {
    let uses = graph.uses();
    let mut patch = Patch::new(graph);
    // Nodes stand in order, so the source of a chain of pairs is known when its end comes.
    let mut sources = HashMap::new();
    for (id, node) in graph.nodes() {
        let Some((source, value)) = dequantized(graph, &uses, node) else { continue };
        let source = sources.get(&source).copied().unwrap_or(source);
        sources.insert(value, source);
        for &reader in uses.consumers(value) {
            redirect(graph, &mut patch, reader, value, source);
        }
        patch.remove_node(id);
        let name = node.name.clone();
        patch.add_node(Node::new("Identity", name, &[source], &[value]));
    }
    patch.apply(graph)?;
    Patch::remove_dead(graph)
}

/// The value before quantization and the value after dequantization.
fn dequantized(graph: &Graph, uses: &Uses, node: &Node) -> Option<(ValueId, ValueId)> {
    let blocks = is_blocks(node, "DequantizeBlocks");
    if !node.is("DequantizeLinear") && !blocks {
        return None;
    }
    let quantize = graph.node(uses.producer(node.input(0)?)?);
    let fits = match blocks {
        true => is_blocks(quantize, "QuantizeBlocks"),
        false => quantize.is("QuantizeLinear"),
    };
    Some((quantize.input(0).filter(|_| fits)?, node.output(0)?))
}

fn redirect(graph: &Graph, patch: &mut Patch, reader: NodeId, from: ValueId, to: ValueId) {
    for (index, &input) in graph.node(reader).inputs.iter().enumerate() {
        if input == Some(from) {
            patch.set_input(reader, index, Some(to));
        }
    }
}
