//! Attributes of a node.

use super::Graph;
use crate::tensor::Tensor;

/// The value of an attribute (ONNX `AttributeProto`).
#[derive(Clone, Debug)]
pub enum Attr {
    /// A number.
    Float(f32),
    /// An integer.
    Int(i64),
    /// Bytes, usually UTF-8.
    String(Vec<u8>),
    /// A tensor.
    Tensor(Tensor),
    /// A subgraph (`If`, `Loop`, `Scan`).
    Graph(Box<Graph>),
    /// Numbers.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// Byte strings.
    Strings(Vec<Vec<u8>>),
    /// Tensors.
    Tensors(Vec<Tensor>),
    /// Subgraphs.
    Graphs(Vec<Graph>),
    /// An encoded `AttributeProto` of another kind, carried from file to file.
    Opaque(Vec<u8>),
}

impl Attr {
    /// Subgraphs held by this attribute.
    pub fn graphs(&self) -> &[Graph] {
        match self {
            Attr::Graph(graph) => std::slice::from_ref(graph),
            Attr::Graphs(graphs) => graphs,
            _ => &[],
        }
    }

    /// Subgraphs held by this attribute, for editing.
    pub(super) fn graphs_mut(&mut self) -> &mut [Graph] {
        match self {
            Attr::Graph(graph) => std::slice::from_mut(graph),
            Attr::Graphs(graphs) => graphs,
            _ => &mut [],
        }
    }

    /// Name of the kind, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Attr::Float(_) => "float",
            Attr::Int(_) => "int",
            Attr::String(_) => "string",
            Attr::Tensor(_) => "tensor",
            Attr::Graph(_) => "graph",
            Attr::Floats(_) => "floats",
            Attr::Ints(_) => "ints",
            Attr::Strings(_) => "strings",
            Attr::Tensors(_) => "tensors",
            Attr::Graphs(_) => "graphs",
            Attr::Opaque(_) => "opaque",
        }
    }
}
