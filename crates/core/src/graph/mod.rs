//! The graph: nodes as plain data, values and constants in arenas.
//!
//! A graph is built once (by a reader or a [`Graph`] under construction) and from then on
//! edited only through a [`Patch`], which is applied and verified as one.

mod attr;
mod node;
mod patch;
mod print;
mod topology;
mod value;
mod verify;

pub use attr::Attr;
pub use node::{Node, NodeId};
pub use patch::Patch;
pub use topology::Uses;
pub use value::{Dim, Value, ValueId, ValueType};

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::collections::HashMap;

/// A directed acyclic graph of ONNX operators.
///
/// Invariants, checked by [`verify`](Graph::verify): value names are unique; every value has
/// at most one origin (graph input, constant or node output); nodes stand in topological order.
/// A value without any origin is allowed in subgraphs only: it is captured from the outer
/// graph by name.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Name of the graph, as in the file.
    pub name: String,
    /// Free text of the file's author.
    pub doc: String,
    /// What the file says beyond these fields: an encoded `GraphProto`, written back as it came.
    pub carried: Vec<u8>,
    values: Vec<Value>,
    names: HashMap<String, ValueId>,
    nodes: Vec<Option<Node>>,
    order: Vec<NodeId>,
    inputs: Vec<ValueId>,
    outputs: Vec<ValueId>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph { name: name.into(), ..Default::default() }
    }

    /// Adds a value that does not exist yet.
    ///
    /// # Errors
    /// When the name is empty or taken.
    pub fn add_value(&mut self, name: impl Into<String>, ty: ValueType) -> Result<ValueId> {
        let name = name.into();
        if name.is_empty() {
            return Err(Error::bad_input("a value has an empty name").code("FB-3101"));
        }
        if self.names.contains_key(&name) {
            return Err(
                Error::bad_input(format!("value `{name}` is defined twice")).code("FB-3102")
            );
        }
        let id = ValueId::new(self.values.len());
        self.names.insert(name.clone(), id);
        self.values.push(Value { name, ty, constant: None, carried: Vec::new() });
        Ok(id)
    }

    /// The value of that name, added without a type when there is none yet.
    ///
    /// # Errors
    /// When the name is empty.
    pub fn value_named_or_new(&mut self, name: &str) -> Result<ValueId> {
        match self.names.get(name) {
            Some(&id) => Ok(id),
            None => self.add_value(name, ValueType::default()),
        }
    }

    /// Adds a constant (an ONNX initializer).
    ///
    /// # Errors
    /// When the name is empty or taken.
    pub fn add_constant(&mut self, name: impl Into<String>, tensor: Tensor) -> Result<ValueId> {
        let id = self.add_value(name, ValueType::of(&tensor))?;
        self.values[id.index()].constant = Some(tensor);
        Ok(id)
    }

    /// Makes an existing value constant.
    pub fn set_constant(&mut self, id: ValueId, tensor: Tensor) {
        let value = &mut self.values[id.index()];
        value.ty = ValueType::of(&tensor);
        value.constant = Some(tensor);
    }

    /// Sets what is known about the type of a value.
    pub fn set_type(&mut self, id: ValueId, ty: ValueType) {
        self.values[id.index()].ty = ty;
    }

    /// Sets what the file says of a value beyond its type and tensor, still encoded.
    pub fn set_carried(&mut self, id: ValueId, encoded: Vec<u8>) {
        self.values[id.index()].carried = encoded;
    }

    /// Appends a node. Its inputs must stand before it; [`verify`](Graph::verify) checks that.
    pub fn add_node(&mut self, node: Node) -> NodeId {
        let id = NodeId::new(self.nodes.len());
        self.nodes.push(Some(node));
        self.order.push(id);
        id
    }

    /// Declares a graph input. A constant that is also an input is a default value.
    pub fn add_input(&mut self, id: ValueId) {
        self.inputs.push(id);
    }

    /// Declares a graph output.
    pub fn add_output(&mut self, id: ValueId) {
        self.outputs.push(id);
    }

    /// Inputs in declaration order, constants with a default value included.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// Inputs the caller must give: those without a default value.
    pub fn required_inputs(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.inputs.iter().copied().filter(|&v| self.value(v).constant.is_none())
    }

    /// Outputs in declaration order.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// A value of this graph.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// Name of a value.
    pub fn name_of(&self, id: ValueId) -> &str {
        &self.value(id).name
    }

    /// The tensor of a constant value.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.value(id).constant.as_ref()
    }

    /// Looks a value up by name.
    pub fn find_value(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// All value ids, used or not.
    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.values.len()).map(ValueId::new)
    }

    /// A node of this graph.
    ///
    /// # Panics
    /// When the node was removed; ids of removed nodes are not kept by careful callers.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.index()].as_ref().expect("the node was removed")
    }

    /// Nodes in topological order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> + '_ {
        self.order.iter().map(|&id| (id, self.node(id)))
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.order.len()
    }

    /// A label for messages: `node 12 Conv "conv1"`.
    pub fn label(&self, id: NodeId) -> String {
        let node = self.node(id);
        format!("node {} {} \"{}\"", id.index(), node.op, node.name)
    }

    /// Builds the index of producers and consumers.
    pub fn uses(&self) -> Uses {
        Uses::new(self)
    }

    /// Names that this graph takes from an outer one, nested subgraphs included.
    pub fn captures(&self) -> Vec<&str> {
        topology::captures(self)
    }

    /// Values a node reads: its inputs, then what its subgraphs capture from this graph.
    pub fn all_inputs(&self, node: &Node) -> Vec<ValueId> {
        topology::all_inputs(self, node)
    }

    /// Checks the invariants of a top-level graph, or of a subgraph when `outer` is given
    /// (which says whether an outer graph has a value of that name).
    ///
    /// # Errors
    /// The first broken invariant, with the node or value it concerns.
    pub fn verify(&self, outer: Option<&dyn Fn(&str) -> bool>) -> Result<()> {
        verify::verify(self, outer)
    }

    /// Brings nodes into a stable topological order.
    ///
    /// # Errors
    /// When the graph has a cycle.
    pub fn sort(&mut self) -> Result<()> {
        self.order = topology::sorted(self)?;
        Ok(())
    }
}

/// A graph with what the file says around it.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The main graph.
    pub graph: Graph,
    /// Version of each operator domain in use; the default ONNX domain is the empty string.
    pub opsets: Vec<(String, i64)>,
    /// ONNX IR version of the file.
    pub ir_version: i64,
    /// Program that wrote the file, and its version.
    pub producer: (String, String),
    /// Model namespace and version, as in the file.
    pub domain: String,
    /// Version given by the model's author.
    pub model_version: i64,
    /// Free text of the file's author.
    pub doc: String,
    /// Key-value pairs of the file.
    pub metadata: Vec<(String, String)>,
    /// What the file says beyond these fields: an encoded `ModelProto`, written back as it came.
    pub carried: Vec<u8>,
}

impl Model {
    /// Version of the default ONNX domain.
    pub fn opset(&self) -> i64 {
        self.opset_of("")
    }

    /// Version of a domain; 1 when the model does not import it.
    pub fn opset_of(&self, domain: &str) -> i64 {
        let same = |d: &str| d == domain || (domain.is_empty() && d == "ai.onnx");
        self.opsets.iter().find(|(d, _)| same(d)).map_or(1, |&(_, v)| v)
    }

    /// Sets (or adds) the version of a domain.
    pub fn set_opset(&mut self, domain: &str, version: i64) {
        match self.opsets.iter_mut().find(|(d, _)| d == domain) {
            Some(entry) => entry.1 = version,
            None => self.opsets.push((domain.to_string(), version)),
        }
    }
}

#[cfg(test)]
mod tests;
