//! The executable invariants of a graph.

use super::{Graph, Node, NodeId, ValueId};
use crate::error::{Error, Result};

/// Subgraphs nested deeper than this are refused; real models need two or three levels.
const MAX_DEPTH: usize = 32;

pub(super) fn verify(graph: &Graph, outer: Option<&dyn Fn(&str) -> bool>) -> Result<()> {
    verify_at_depth(graph, outer, 0)
}

fn verify_at_depth(
    graph: &Graph,
    outer: Option<&dyn Fn(&str) -> bool>,
    depth: usize,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(
            Error::bad_input(format!("subgraphs nest deeper than {MAX_DEPTH}")).code("FB-3105")
        );
    }
    let mut defined = Defined::new(graph, outer);
    for (id, node) in graph.nodes() {
        for &value in node.inputs.iter().flatten() {
            defined.require(value, id)?;
        }
        verify_subgraphs(graph, node, &defined, depth).map_err(|e| e.at(graph.label(id)))?;
        for &value in node.outputs.iter().flatten() {
            defined.define(value, id)?;
        }
    }
    for &value in &graph.outputs {
        if !defined.has(value) {
            let name = graph.name_of(value);
            return Err(Error::bad_input(format!("graph output `{name}` is never computed"))
                .code("FB-3106"));
        }
    }
    Ok(())
}

fn verify_subgraphs(graph: &Graph, node: &Node, defined: &Defined, depth: usize) -> Result<()> {
    let visible = |name: &str| match graph.find_value(name) {
        Some(value) => defined.has(value),
        None => defined.outer.is_some_and(|outer| outer(name)),
    };
    for (name, attr) in &node.attrs {
        for inner in attr.graphs() {
            verify_at_depth(inner, Some(&visible), depth + 1)
                .map_err(|e| e.at(format!("attribute `{name}`")))?;
        }
    }
    Ok(())
}

/// Values that have an origin at the current point of the walk.
struct Defined<'a> {
    graph: &'a Graph,
    outer: Option<&'a dyn Fn(&str) -> bool>,
    seen: Vec<bool>,
}

impl<'a> Defined<'a> {
    fn new(graph: &'a Graph, outer: Option<&'a dyn Fn(&str) -> bool>) -> Self {
        let mut seen: Vec<bool> = graph.values.iter().map(|v| v.constant.is_some()).collect();
        for value in &graph.inputs {
            seen[value.index()] = true;
        }
        Defined { graph, outer, seen }
    }

    fn has(&self, value: ValueId) -> bool {
        let name = self.graph.name_of(value);
        self.seen[value.index()] || self.outer.is_some_and(|outer| outer(name))
    }

    fn require(&self, value: ValueId, node: NodeId) -> Result<()> {
        if self.has(value) {
            return Ok(());
        }
        let name = self.graph.name_of(value);
        Err(Error::bad_input(format!("reads `{name}`, which nothing before it defines"))
            .code("FB-3107")
            .at(self.graph.label(node)))
    }

    fn define(&mut self, value: ValueId, node: NodeId) -> Result<()> {
        if std::mem::replace(&mut self.seen[value.index()], true) {
            let name = self.graph.name_of(value);
            return Err(Error::bad_input(format!("defines `{name}`, which is already defined"))
                .code("FB-3102")
                .at(self.graph.label(node)));
        }
        Ok(())
    }
}
