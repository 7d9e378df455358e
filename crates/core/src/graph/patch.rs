//! Edits of a graph, applied and verified as one.

use super::{Attr, Graph, Node, NodeId, ValueId, ValueType};
use crate::error::Result;
use crate::tensor::Tensor;
use std::collections::HashSet;

/// A list of edits. Passes return patches; nothing else edits a graph.
///
/// Ids of new values are valid in later edits of the same patch and, once it is applied,
/// in the graph. A patch belongs to the graph state it was made from.
#[derive(Debug)]
pub struct Patch {
    next_value: usize,
    next_node: usize,
    taken: HashSet<String>,
    edits: Vec<Edit>,
}

#[derive(Debug)]
enum Edit {
    AddValue(String, ValueType, Option<Tensor>),
    SetConstant(ValueId, Tensor),
    SetType(ValueId, ValueType),
    AddNode(Node),
    RemoveNode(NodeId),
    SetInput(NodeId, usize, Option<ValueId>),
    SetOutput(NodeId, usize, Option<ValueId>),
    SetAttr(NodeId, String, Attr),
    SetNodeName(NodeId, String),
    ReplaceReads(ValueId, ValueId),
    ReplaceUses(ValueId, ValueId),
    SetGraphInputs(Vec<ValueId>),
}

impl Patch {
    /// An empty patch against the present state of `graph`.
    pub fn new(graph: &Graph) -> Self {
        Patch {
            next_value: graph.values.len(),
            next_node: graph.nodes.len(),
            taken: graph.names.keys().cloned().collect(),
            edits: Vec::new(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Adds a value; the name gets a number appended when it is taken.
    pub fn add_value(&mut self, name: &str, ty: ValueType) -> ValueId {
        self.push_value(name, ty, None)
    }

    /// Adds a constant; the name gets a number appended when it is taken.
    pub fn add_constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.push_value(name, ValueType::of(&tensor), Some(tensor))
    }

    fn push_value(&mut self, name: &str, ty: ValueType, constant: Option<Tensor>) -> ValueId {
        let name = fresh(&mut self.taken, name);
        self.edits.push(Edit::AddValue(name, ty, constant));
        self.next_value += 1;
        ValueId::new(self.next_value - 1)
    }

    /// Replaces (or makes) the tensor of a value.
    pub fn set_constant(&mut self, value: ValueId, tensor: Tensor) {
        self.edits.push(Edit::SetConstant(value, tensor));
    }

    /// Sets what is known of a value's type.
    pub fn set_type(&mut self, value: ValueId, ty: ValueType) {
        self.edits.push(Edit::SetType(value, ty));
    }

    /// Adds a node; its place follows from its inputs. Its name, where it has one, gets a number
    /// appended when another node of the edited graph has it.
    pub fn add_node(&mut self, node: Node) -> NodeId {
        self.edits.push(Edit::AddNode(node));
        self.next_node += 1;
        NodeId::new(self.next_node - 1)
    }

    /// Removes a node. Its outputs lose their origin, so their uses must go too.
    pub fn remove_node(&mut self, node: NodeId) {
        self.edits.push(Edit::RemoveNode(node));
    }

    /// Redirects one input of a node.
    pub fn set_input(&mut self, node: NodeId, index: usize, value: Option<ValueId>) {
        self.edits.push(Edit::SetInput(node, index, value));
    }

    /// Redirects one output of a node.
    pub fn set_output(&mut self, node: NodeId, index: usize, value: Option<ValueId>) {
        self.edits.push(Edit::SetOutput(node, index, value));
    }

    /// Sets an attribute.
    pub fn set_attr(&mut self, node: NodeId, name: &str, attr: Attr) {
        self.edits.push(Edit::SetAttr(node, name.to_string(), attr));
    }

    /// Renames a node.
    pub fn set_node_name(&mut self, node: NodeId, name: &str) {
        self.edits.push(Edit::SetNodeName(node, name.to_string()));
    }

    /// Makes every reader of `old` (nodes, subgraphs, graph outputs) read `new` instead,
    /// as of the edits before this one.
    ///
    /// A graph output changes its name that way; where names are a contract, keep the
    /// output value and redirect its producer instead.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        self.edits.push(Edit::ReplaceUses(old, new));
    }

    /// Makes every node that reads `old` read `new` instead, as of the edits before this one.
    /// Graph outputs stay.
    pub fn replace_reads(&mut self, old: ValueId, new: ValueId) {
        self.edits.push(Edit::ReplaceReads(old, new));
    }

    /// Replaces the list of graph inputs.
    pub fn set_graph_inputs(&mut self, inputs: Vec<ValueId>) {
        self.edits.push(Edit::SetGraphInputs(inputs));
    }

    /// Applies all edits, or none: on error the graph is as before.
    ///
    /// # Errors
    /// When the edited graph has a cycle or breaks another invariant.
    pub fn apply(self, graph: &mut Graph) -> Result<()> {
        let mut edited = graph.clone();
        for edit in self.edits {
            apply_edit(&mut edited, edit)?;
        }
        name_apart(&mut edited, graph.nodes.len());
        edited.sort()?;
        edited.verify(None)?;
        *graph = edited;
        Ok(())
    }

    /// Removes nodes whose outputs nobody reads, and forgets constants nobody reads.
    ///
    /// # Errors
    /// When the graph was broken before.
    pub fn remove_dead(graph: &mut Graph) -> Result<()> {
        let mut live: HashSet<ValueId> = graph.outputs.iter().copied().collect();
        let order: Vec<NodeId> = graph.order.clone();
        for &id in order.iter().rev() {
            let node = graph.node(id);
            if node.outputs.iter().flatten().any(|v| live.contains(v)) {
                live.extend(graph.all_inputs(node));
            } else {
                remove_node(graph, id);
            }
        }
        let inputs: HashSet<ValueId> = graph.inputs.iter().copied().collect();
        for id in graph.value_ids() {
            if !live.contains(&id) && !inputs.contains(&id) {
                graph.values[id.index()].constant = None;
            }
        }
        graph.verify(None)
    }
}

/// `base`, with a number appended where it is taken; it is taken from then on.
fn fresh(taken: &mut HashSet<String>, base: &str) -> String {
    let mut name = base.to_string();
    let mut number = 1;
    while !taken.insert(name.clone()) {
        name = format!("{base}_{number}");
        number += 1;
    }
    name
}

/// Gives the nodes from `first` on names that no other node has: ONNX Runtime refuses a file with
/// two `DequantizeLinear` of one name.
fn name_apart(graph: &mut Graph, first: usize) {
    let (old, new) = graph.nodes.split_at_mut(first);
    let mut taken: HashSet<String> = old.iter().flatten().map(|node| node.name.clone()).collect();
    for node in new.iter_mut().flatten().filter(|node| !node.name.is_empty()) {
        node.name = fresh(&mut taken, &node.name);
    }
}

fn apply_edit(graph: &mut Graph, edit: Edit) -> Result<()> {
    match edit {
        Edit::AddValue(name, ty, constant) => {
            let id = graph.add_value(name, ty)?;
            graph.values[id.index()].constant = constant;
        }
        Edit::SetConstant(value, tensor) => graph.set_constant(value, tensor),
        Edit::SetType(value, ty) => graph.set_type(value, ty),
        Edit::AddNode(node) => {
            graph.add_node(node);
        }
        Edit::RemoveNode(id) => remove_node(graph, id),
        Edit::SetInput(id, index, value) => set_slot(&mut node_mut(graph, id).inputs, index, value),
        Edit::SetOutput(id, index, value) => {
            set_slot(&mut node_mut(graph, id).outputs, index, value)
        }
        Edit::SetAttr(id, name, attr) => node_mut(graph, id).set_attr(&name, attr),
        Edit::SetNodeName(id, name) => node_mut(graph, id).name = name,
        Edit::ReplaceReads(old, new) => replace_reads(graph, old, new),
        Edit::ReplaceUses(old, new) => {
            replace_reads(graph, old, new);
            graph.outputs.iter_mut().filter(|v| **v == old).for_each(|v| *v = new);
        }
        Edit::SetGraphInputs(inputs) => graph.inputs = inputs,
    }
    Ok(())
}

fn node_mut(graph: &mut Graph, id: NodeId) -> &mut Node {
    graph.nodes[id.index()].as_mut().expect("the node was removed")
}

fn remove_node(graph: &mut Graph, id: NodeId) {
    graph.nodes[id.index()] = None;
    graph.order.retain(|&other| other != id);
}

fn set_slot(slots: &mut Vec<Option<ValueId>>, index: usize, value: Option<ValueId>) {
    if slots.len() <= index {
        slots.resize(index + 1, None);
    }
    slots[index] = value;
}

fn replace_reads(graph: &mut Graph, old: ValueId, new: ValueId) {
    let (old_name, new_name) = (graph.name_of(old).to_string(), graph.name_of(new).to_string());
    for node in graph.nodes.iter_mut().flatten() {
        node.inputs.iter_mut().filter(|v| **v == Some(old)).for_each(|v| *v = Some(new));
        for inner in node.attrs.iter_mut().flat_map(|(_, a)| a.graphs_mut()) {
            rename_capture(inner, &old_name, &new_name);
        }
    }
}

fn rename_capture(graph: &mut Graph, old: &str, new: &str) {
    if !graph.captures().contains(&old) {
        return;
    }
    if let Some(id) = graph.names.remove(old) {
        graph.values[id.index()].name = new.to_string();
        graph.names.insert(new.to_string(), id);
    }
    for node in graph.nodes.iter_mut().flatten() {
        for inner in node.attrs.iter_mut().flat_map(|(_, a)| a.graphs_mut()) {
            rename_capture(inner, old, new);
        }
    }
}
