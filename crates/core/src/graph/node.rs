//! Nodes: plain data. What an operator does lives in the operator table of `fewbit-exec`.

use super::{Attr, Graph, ValueId};
use crate::error::{Error, Result};

/// Handle of a node in its [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    pub(super) fn new(index: usize) -> Self {
        NodeId(index as u32)
    }

    /// Position in the arena, for side tables indexed by node.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operator call.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Name given in the file; may be empty or repeated.
    pub name: String,
    /// Operator name, such as `Conv`.
    pub op: String,
    /// Operator domain; empty for the default ONNX domain.
    pub domain: String,
    /// Attributes in file order.
    pub attrs: Vec<(String, Attr)>,
    /// Inputs; `None` where an optional one is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs; `None` where an optional one is left out.
    pub outputs: Vec<Option<ValueId>>,
    /// Free text of the file's author.
    pub doc: String,
    /// What the file says beyond these fields: an encoded `NodeProto`, written back as it came.
    pub carried: Vec<u8>,
}

impl Node {
    /// A node of the default domain.
    pub fn new(op: &str, name: impl Into<String>, inputs: &[ValueId], outputs: &[ValueId]) -> Self {
        Node {
            name: name.into(),
            op: op.to_string(),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: outputs.iter().copied().map(Some).collect(),
            ..Default::default()
        }
    }

    /// Adds an attribute.
    pub fn with(mut self, name: &str, attr: Attr) -> Self {
        self.set_attr(name, attr);
        self
    }

    /// Sets an attribute, replacing one of the same name.
    pub fn set_attr(&mut self, name: &str, attr: Attr) {
        match self.attrs.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => entry.1 = attr,
            None => self.attrs.push((name.to_string(), attr)),
        }
    }

    /// Whether this is the operator `op` of the default domain.
    pub fn is(&self, op: &str) -> bool {
        self.op == op && is_default_domain(&self.domain)
    }

    /// Input `index`, `None` when absent.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// Output `index`, `None` when absent.
    pub fn output(&self, index: usize) -> Option<ValueId> {
        self.outputs.get(index).copied().flatten()
    }

    /// An attribute by name.
    pub fn attr(&self, name: &str) -> Option<&Attr> {
        self.attrs.iter().find(|(n, _)| n == name).map(|(_, a)| a)
    }

    /// An integer attribute, `None` when absent.
    ///
    /// # Errors
    /// When the attribute is of another kind.
    pub fn int(&self, name: &str) -> Result<Option<i64>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Int(v)) => Ok(Some(*v)),
            Some(other) => Err(wrong_kind(name, "int", other)),
        }
    }

    /// A float attribute, `None` when absent.
    ///
    /// # Errors
    /// When the attribute is of another kind.
    pub fn float(&self, name: &str) -> Result<Option<f32>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Float(v)) => Ok(Some(*v)),
            Some(other) => Err(wrong_kind(name, "float", other)),
        }
    }

    /// An integer-list attribute, `None` when absent.
    ///
    /// # Errors
    /// When the attribute is of another kind.
    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Ints(v)) => Ok(Some(v)),
            Some(other) => Err(wrong_kind(name, "ints", other)),
        }
    }

    /// A float-list attribute, `None` when absent.
    ///
    /// # Errors
    /// When the attribute is of another kind.
    pub fn floats(&self, name: &str) -> Result<Option<&[f32]>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Floats(v)) => Ok(Some(v)),
            Some(other) => Err(wrong_kind(name, "floats", other)),
        }
    }

    /// A UTF-8 string attribute, `None` when absent.
    ///
    /// # Errors
    /// When the attribute is of another kind or not UTF-8.
    pub fn string(&self, name: &str) -> Result<Option<&str>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::String(v)) => std::str::from_utf8(v)
                .map(Some)
                .map_err(|_| Error::bad_input("not UTF-8").at(format!("attribute `{name}`"))),
            Some(other) => Err(wrong_kind(name, "string", other)),
        }
    }

    /// A subgraph attribute, `None` when absent.
    ///
    /// # Errors
    /// When the attribute is of another kind.
    pub fn graph(&self, name: &str) -> Result<Option<&Graph>> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Graph(g)) => Ok(Some(g)),
            Some(other) => Err(wrong_kind(name, "graph", other)),
        }
    }
}

/// Whether a domain string names the default ONNX domain.
pub(crate) fn is_default_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn wrong_kind(name: &str, expected: &str, found: &Attr) -> Error {
    Error::bad_input(format!("expected {expected}, found {}", found.kind()))
        .code("FB-3103")
        .at(format!("attribute `{name}`"))
}
