//! A unique name for every node.

use fewbit_core::{Graph, Patch};
use std::collections::HashSet;

/// Names nameless and repeated nodes after their operator and position: `Conv_3`.
pub(super) fn make_unique(graph: &Graph) -> Patch {
    let mut patch = Patch::new(graph);
    let given: HashSet<&str> = graph.nodes().map(|(_, n)| n.name.as_str()).collect();
    let mut taken = HashSet::new();
    for (position, (id, node)) in graph.nodes().enumerate() {
        if !node.name.is_empty() && taken.insert(node.name.clone()) {
            continue;
        }
        let mut name = format!("{}_{position}", node.op);
        while given.contains(name.as_str()) || taken.contains(&name) {
            name.push('_');
        }
        patch.set_node_name(id, &name);
        taken.insert(name);
    }
    patch
}
