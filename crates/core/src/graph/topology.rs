//! Who makes a value, who reads it, and in which order nodes can run.

use super::{Graph, Node, NodeId, ValueId};
use crate::error::{Error, Result};
use std::collections::HashSet;

/// Index of producers and consumers of a graph at one moment; build it anew after a patch.
#[derive(Clone, Debug)]
pub struct Uses {
    producer: Vec<Option<NodeId>>,
    consumers: Vec<Vec<NodeId>>,
    is_output: Vec<bool>,
}

impl Uses {
    /// Indexes `graph`. Captures by subgraphs count as uses.
    pub fn new(graph: &Graph) -> Self {
        let count = graph.values.len();
        let mut uses = Uses {
            producer: vec![None; count],
            consumers: vec![Vec::new(); count],
            is_output: vec![false; count],
        };
        for (id, node) in graph.nodes() {
            for value in graph.all_inputs(node) {
                uses.consumers[value.index()].push(id);
            }
            for value in node.outputs.iter().flatten() {
                uses.producer[value.index()] = Some(id);
            }
        }
        for value in &graph.outputs {
            uses.is_output[value.index()] = true;
        }
        uses
    }

    /// The node that makes a value; `None` for inputs and constants.
    pub fn producer(&self, value: ValueId) -> Option<NodeId> {
        self.producer[value.index()]
    }

    /// Nodes that read a value, once for each input slot.
    pub fn consumers(&self, value: ValueId) -> &[NodeId] {
        &self.consumers[value.index()]
    }

    /// Whether the value is an output of the graph.
    pub fn is_output(&self, value: ValueId) -> bool {
        self.is_output[value.index()]
    }

    /// The one reader of a value that is no graph output; `None` otherwise.
    pub fn sole_consumer(&self, value: ValueId) -> Option<NodeId> {
        match self.consumers(value) {
            [one] if !self.is_output(value) => Some(*one),
            _ => None,
        }
    }
}

/// Names a graph uses but does not define.
pub(super) fn captures(graph: &Graph) -> Vec<&str> {
    let mut defined: HashSet<ValueId> = graph.inputs.iter().copied().collect();
    defined.extend(graph.nodes().flat_map(|(_, n)| n.outputs.iter().flatten().copied()));
    let is_free = |v: &ValueId| !defined.contains(v) && graph.constant(*v).is_none();
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    let mut add = |name| {
        if seen.insert(name) {
            names.push(name);
        }
    };
    for (_, node) in graph.nodes() {
        let free = node.inputs.iter().flatten().filter(|v| is_free(v));
        free.for_each(|&v| add(graph.name_of(v)));
        for inner in node.attrs.iter().flat_map(|(_, a)| a.graphs()) {
            for name in captures(inner) {
                if graph.find_value(name).is_none_or(|v| is_free(&v)) {
                    add(name);
                }
            }
        }
    }
    graph.outputs.iter().filter(|v| is_free(v)).for_each(|&v| add(graph.name_of(v)));
    names
}

pub(super) fn all_inputs(graph: &Graph, node: &Node) -> Vec<ValueId> {
    let mut values: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
    for inner in node.attrs.iter().flat_map(|(_, a)| a.graphs()) {
        values.extend(captures(inner).into_iter().filter_map(|name| graph.find_value(name)));
    }
    values
}

/// A stable topological order: among the nodes that can run, the one that stood first goes first.
pub(super) fn sorted(graph: &Graph) -> Result<Vec<NodeId>> {
    let uses = graph.uses();
    let slots = graph.nodes.len();
    let mut missing = vec![0usize; slots];
    let mut position = vec![usize::MAX; slots];
    let mut ready = std::collections::BTreeSet::new();
    for (place, (id, node)) in graph.nodes().enumerate() {
        let inputs = graph.all_inputs(node);
        missing[id.index()] = inputs.iter().filter(|&&v| uses.producer(v).is_some()).count();
        position[id.index()] = place;
        if missing[id.index()] == 0 {
            ready.insert((place, id));
        }
    }
    let mut order = Vec::with_capacity(graph.order.len());
    while let Some((_, id)) = ready.pop_first() {
        order.push(id);
        let outputs = graph.node(id).outputs.iter().flatten();
        for &consumer in outputs.flat_map(|&v| uses.consumers(v)) {
            let left = &mut missing[consumer.index()];
            *left -= 1;
            if *left == 0 {
                ready.insert((position[consumer.index()], consumer));
            }
        }
    }
    if order.len() == graph.order.len() {
        return Ok(order);
    }
    let done: HashSet<NodeId> = order.into_iter().collect();
    let stuck = graph.order.iter().find(|id| !done.contains(id)).copied();
    let place = stuck.map_or_else(String::new, |id| graph.label(id));
    Err(Error::bad_input("the graph has a cycle").code("FB-3104").at(place))
}
