//! Nodes that hand their input on: `Identity`, and `Dropout` outside training.

use fewbit_core::{Graph, Patch};

/// Removes them. One whose result is a graph output stays, since output names are a contract.
pub(super) fn remove(graph: &Graph) -> Patch {
    let mut patch = Patch::new(graph);
    let uses = graph.uses();
    for (id, node) in graph.nodes() {
        let (Some(input), Some(output)) = (node.input(0), node.output(0)) else {
            continue;
        };
        let mask_used =
            node.output(1).is_some_and(|m| !uses.consumers(m).is_empty() || uses.is_output(m));
        let trains = node.input(2).is_some();
        let idle = node.is("Identity") || (node.is("Dropout") && !mask_used && !trains);
        if idle && !uses.is_output(output) && graph.constant(input).is_none() {
            patch.replace_uses(output, input);
            patch.remove_node(id);
        }
    }
    patch
}
