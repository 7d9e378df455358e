//! `Float` mode: activation quantization is skipped.

use fewbit_core::{Graph, Node, NodeId, Patch, Result, Uses, ValueId};

/// Makes every `DequantizeLinear(QuantizeLinear(x))` an identity of `x` and lets its readers read
/// `x` itself. The identity stays for graph outputs and taps of that name.
///
/// # Errors
/// When the graph was broken before.
pub(crate) fn skip_activation_quantization(graph: &mut Graph) -> Result<()> {
    let uses = graph.uses();
    let mut patch = Patch::new(graph);
    for (id, node) in graph.nodes() {
        let Some((source, value)) = dequantized(graph, &uses, node) else { continue };
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
    if !node.is("DequantizeLinear") {
        return None;
    }
    let quantize = graph.node(uses.producer(node.input(0)?)?);
    if !quantize.is("QuantizeLinear") {
        return None;
    }
    let mut source = quantize.input(0)?;
    // A chain of pairs leads back to the first value.
    while let Some(before) = uses.producer(source) {
        match dequantized(graph, uses, graph.node(before)) {
            Some((earlier, _)) => source = earlier,
            None => break,
        }
    }
    Some((source, node.output(0)?))
}

fn redirect(graph: &Graph, patch: &mut Patch, reader: NodeId, from: ValueId, to: ValueId) {
    for (index, &input) in graph.node(reader).inputs.iter().enumerate() {
        if input == Some(from) {
            patch.set_input(reader, index, Some(to));
        }
    }
}
