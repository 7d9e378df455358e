//! New names for everything in a function's body, one set for each call.

use super::subgraphs_mut;
use crate::onnx::schema::{GraphProto, NodeProto};
use std::collections::{HashMap, HashSet};

/// Renames everything in a body.
pub(super) struct Names<'a> {
    /// Names of the body to names of the model.
    pub(super) map: HashMap<String, String>,
    /// Stands before every name that the call does not give.
    pub(super) prefix: String,
    /// Every name of the model so far.
    pub(super) taken: &'a mut HashSet<String>,
}

impl Names<'_> {
    /// Renames one use or definition of a value.
    pub(super) fn slot(&mut self, name: &mut String) {
        if name.is_empty() {
            return;
        }
        if let Some(known) = self.map.get(name) {
            name.clone_from(known);
            return;
        }
        let base = format!("{}{name}", self.prefix);
        let mut fresh = base.clone();
        let mut number = 1;
        while !self.taken.insert(fresh.clone()) {
            fresh = format!("{base}_{number}");
            number += 1;
        }
        self.map.insert(std::mem::replace(name, fresh.clone()), fresh);
    }

    fn option(&mut self, name: &mut Option<String>) {
        if let Some(name) = name {
            self.slot(name);
        }
    }

    /// Renames a node and all that its subgraphs hold.
    pub(super) fn node(&mut self, node: &mut NodeProto) {
        node.input.iter_mut().chain(&mut node.output).for_each(|name| self.slot(name));
        if !node.name().is_empty() {
            node.name = Some(format!("{}{}", self.prefix, node.name()));
        }
        for graph in node.attribute.iter_mut().flat_map(subgraphs_mut) {
            self.graph(graph);
        }
    }

    fn graph(&mut self, graph: &mut GraphProto) {
        graph.initializer.iter_mut().for_each(|tensor| self.option(&mut tensor.name));
        let sparse = graph.sparse_initializer.iter_mut().filter_map(|s| s.values.as_mut());
        sparse.for_each(|tensor| self.option(&mut tensor.name));
        let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        infos.for_each(|info| self.option(&mut info.name));
        let notes = graph.quantization_annotation.iter_mut();
        notes.for_each(|note| self.option(&mut note.tensor_name));
        graph.node.iter_mut().for_each(|node| self.node(node));
    }
}
