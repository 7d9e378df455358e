//! What the attributes of a node say.

use super::activation::activations;
use crate::ops::params::size;
use fewbit_core::{Error, Node, Result};
use fewbit_kernels::recurrent::{CellKind, Function};

/// A layer without its weights.
#[derive(Clone)]
pub(super) struct Spec {
    pub kind: CellKind,
    /// Whether weights are codes.
    pub quantized: bool,
    /// For each direction, whether it goes backwards.
    pub reverse: Vec<bool>,
    /// Whether the batch is the first axis of what goes in and out (attribute `layout`).
    pub batch_first: bool,
    /// Those of each direction, one after the other.
    pub functions: Vec<Function>,
    /// The attribute `hidden_size`.
    pub hidden: Option<usize>,
}

impl Spec {
    /// Reads the attributes of a node.
    ///
    /// # Errors
    /// When one is of another kind, or a function unknown.
    pub fn of(node: &Node) -> Result<Spec> {
        let (kind, functions) = kind(node)?;
        let reverse = match node.string("direction")?.unwrap_or("forward") {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => {
                let what = "allowed: forward, reverse, bidirectional";
                return Err(Error::bad_input(format!("direction `{other}`; {what}")));
            }
        };
        Ok(Spec {
            kind,
            quantized: node.op == "DynamicQuantizeLSTM",
            functions: activations(node, functions, reverse.len())?,
            reverse,
            batch_first: node.int("layout")?.unwrap_or(0) != 0,
            hidden: node.int("hidden_size")?.map(|n| size(n, "hidden_size")).transpose()?,
        })
    }

    /// Number of directions.
    pub fn directions(&self) -> usize {
        self.reverse.len()
    }

    /// The functions of a direction.
    pub fn functions_of(&self, direction: usize) -> &[Function] {
        &self.functions[direction * self.kind.functions()..][..self.kind.functions()]
    }
}

/// The kind of cell, and the names of its functions where a node has none.
fn kind(node: &Node) -> Result<(CellKind, &'static [&'static str])> {
    let flag = |name: &str| -> Result<bool> { Ok(node.int(name)?.unwrap_or(0) != 0) };
    Ok(match node.op.as_str() {
        "RNN" => (CellKind::Rnn, &["tanh"]),
        "GRU" => {
            let linear_before_reset = flag("linear_before_reset")?;
            (CellKind::Gru { linear_before_reset }, &["sigmoid", "tanh"])
        }
        _ => (CellKind::Lstm { coupled: flag("input_forget")? }, &["sigmoid", "tanh", "tanh"]),
    })
}
