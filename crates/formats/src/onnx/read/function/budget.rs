//! How far the functions of one file may expand, so that a few lines cannot fill the memory.

use super::subgraphs;
use crate::limits::{MAX_INLINE_GROWTH, MAX_INLINED_BYTES, MAX_INLINED_NODES};
use crate::onnx::schema::{AttributeProto, FunctionProto, GraphProto, NodeProto};
use fewbit_core::{Error, Result};
use prost::Message;

/// Nodes (those of subgraphs too) and encoded bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Size {
    nodes: usize,
    bytes: usize,
}

/// Names in a node and its subgraphs, each of which gets a prefix.
fn count_names(node: &NodeProto) -> usize {
    let inner = node.attribute.iter().flat_map(subgraphs).map(|g| {
        let values = g.input.len() + g.output.len() + g.initializer.len() + g.value_info.len();
        values + g.node.iter().map(count_names).sum::<usize>()
    });
    1 + node.input.len() + node.output.len() + inner.sum::<usize>()
}

impl Size {
    /// What one call of a function adds before its attributes are put in.
    pub(super) fn of_body(function: &FunctionProto, prefix: &str) -> Size {
        let names: usize = function.node.iter().map(count_names).sum();
        let bytes: usize = function.node.iter().map(Message::encoded_len).sum();
        Size {
            nodes: function.node.iter().map(count_nodes).sum(),
            bytes: bytes.saturating_add(names.saturating_mul(prefix.len())),
        }
    }

    /// What a value in the place of an attribute reference adds.
    pub(super) fn of_attribute(attribute: &AttributeProto) -> Size {
        Size {
            nodes: subgraphs(attribute)
                .map(|g| g.node.iter().map(count_nodes).sum::<usize>())
                .sum(),
            bytes: attribute.encoded_len(),
        }
    }
}

fn count_nodes(node: &NodeProto) -> usize {
    let inner = node.attribute.iter().flat_map(subgraphs).flat_map(|g| &g.node);
    1 + inner.map(count_nodes).sum::<usize>()
}

/// What is left of the allowance.
pub(super) struct Budget(Size);

impl Budget {
    /// The allowance of a file: some for every file, and more the more stands in it.
    pub(super) fn new(graph: &GraphProto, functions: &[FunctionProto]) -> Budget {
        let stored: Vec<Size> = functions.iter().map(|f| Size::of_body(f, "")).collect();
        let nodes = graph.node.len() + stored.iter().map(|s| s.nodes).sum::<usize>();
        let bytes: usize = stored.iter().map(|s| s.bytes).sum();
        let grow = |free: usize, stored: usize| {
            free.saturating_add(stored.saturating_mul(MAX_INLINE_GROWTH))
        };
        Budget(Size {
            nodes: grow(MAX_INLINED_NODES, nodes),
            bytes: grow(MAX_INLINED_BYTES, bytes),
        })
    }

    /// Takes `size` from what is left, before the memory for it is.
    pub(super) fn take(&mut self, size: Size) -> Result<()> {
        let nodes = self.0.nodes.checked_sub(size.nodes);
        let bytes = self.0.bytes.checked_sub(size.bytes);
        if let (Some(nodes), Some(bytes)) = (nodes, bytes) {
            self.0 = Size { nodes, bytes };
            return Ok(());
        }
        Err(Error::unsupported("the functions expand to far more than stands in the file")
            .code("FB-4107")
            .hint("a sound model with functions this deep can be inlined with onnx.inliner"))
    }
}
