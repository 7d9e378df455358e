//! What every pass of a build may look at.

use crate::def::{OpDef, OpTable};
use crate::memory::Arena;
use crate::session::Mode;
use fewbit_core::{Error, Graph, Model, Node, Result};
use fewbit_kernels::Ctx;
use std::collections::BTreeMap;

/// Everything around the graph that is being prepared.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub table: &'a OpTable,
    pub opsets: &'a [(String, i64)],
    pub mode: Mode,
    pub kernels: &'a Ctx<'a>,
    /// Buffers for what is computed during the build; its limit bounds folded constants.
    pub arena: &'a Arena,
}

impl Scope<'_> {
    /// Version that the model imports for the domain of `node`.
    pub fn opset(&self, node: &Node) -> i64 {
        opset_of(self.opsets, &node.domain)
    }

    /// The row of a node's operator.
    pub fn def(&self, node: &Node) -> Result<&OpDef> {
        let unknown = || Error::unsupported(format!("operator {} is not known", full_name(node)));
        self.table.of(node).ok_or_else(unknown)
    }
}

fn opset_of(opsets: &[(String, i64)], domain: &str) -> i64 {
    let is_default = |d: &str| d.is_empty() || d == "ai.onnx";
    let same = |d: &str| d == domain || (is_default(d) && is_default(domain));
    opsets.iter().find(|(d, _)| same(d)).map_or(1, |&(_, version)| version)
}

fn full_name(node: &Node) -> String {
    match node.domain.as_str() {
        "" | "ai.onnx" => node.op.clone(),
        domain => format!("{domain}.{}", node.op),
    }
}

/// Refuses a model with operators that nobody can run, naming all of them.
///
/// # Errors
/// When the table lacks an operator of the model, subgraphs included.
pub(crate) fn check_operators(model: &Model, table: &OpTable) -> Result<()> {
    let mut unknown = BTreeMap::new();
    count_unknown(&model.graph, table, &mut unknown);
    if unknown.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = unknown.iter().map(|(name, n)| format!("{name} ({n}x)")).collect();
    Err(Error::unsupported(format!("operators that fewbit cannot run: {}", list.join(", ")))
        .code("FB-4101")
        .hint(hint(unknown.keys())))
}

fn hint<'a>(mut unknown: impl Iterator<Item = &'a String>) -> &'static str {
    // Layouts of one processor, which ONNX Runtime chooses last.
    match unknown.any(|name| name.starts_with("com.microsoft.nchwc.")) {
        true => {
            "ONNX Runtime wrote this file for one kind of processor: save it with graph \
             optimization level ORT_ENABLE_EXTENDED, not ORT_ENABLE_ALL, or take the original"
        }
        false => "add rows for them to the operator table, or export the model without them",
    }
}

fn count_unknown(graph: &Graph, table: &OpTable, unknown: &mut BTreeMap<String, usize>) {
    for (_, node) in graph.nodes() {
        if table.of(node).is_none() {
            *unknown.entry(full_name(node)).or_default() += 1;
        }
        for inner in node.attrs.iter().flat_map(|(_, attr)| attr.graphs()) {
            count_unknown(inner, table, unknown);
        }
    }
}
