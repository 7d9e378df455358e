//! Who reads the output of an `Identity` reads its input: exporters put one before a weight or a
//! bias that several nodes share, and what stands around a product is found behind it.

use fewbit_core::{Graph, Patch, Result, ValueId};
use std::collections::HashMap;

/// Redirects the readers. The nodes stay for graph outputs, taps and subgraphs.
///
/// # Errors
/// When the graph was broken before.
pub(crate) fn skip_identities(graph: &mut Graph) -> Result<()> {
    let mut patch = Patch::new(graph);
    // Nodes stand in order, so the source of a chain is known when its end comes.
    let mut sources: HashMap<ValueId, ValueId> = HashMap::new();
    for (_, node) in graph.nodes().filter(|(_, node)| node.is("Identity")) {
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { continue };
        let source = sources.get(&input).copied().unwrap_or(input);
        sources.insert(output, source);
        patch.replace_reads(output, source);
    }
    if patch.is_empty() {
        return Ok(());
    }
    patch.apply(graph)?;
    Patch::remove_dead(graph)
}
