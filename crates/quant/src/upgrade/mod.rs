//! Bringing a model to an operator set in which quantized operators can be written, and which runtimes
//! read.
//!
//! `DequantizeLinear` has axes since operator set 13, blocks and 4-bit types since 21. Each rule
//! rewrites one operator at the version where its meaning or its signature changed
//! (ONNX "Operators.md", the version list of each operator).

mod attributes;
mod lower;
mod resize;
mod softmax;

use fewbit_core::{Error, Graph, Model, Node, NodeId, Patch, Result, ResultExt};

/// Rewrites one node in a patch.
type Rewrite = fn(&Graph, &mut Patch, NodeId, &Node) -> Result<()>;

/// An operator whose meaning or signature changed.
struct Rule {
    op: &'static str,
    /// First operator set with the new form.
    since: i64,
    rewrite: Rewrite,
}

const fn rule(op: &'static str, since: i64, rewrite: Rewrite) -> Rule {
    Rule { op, since, rewrite }
}

const RULES: &[Rule] = &[
    rule("BatchNormalization", 9, attributes::batch_norm),
    rule("Slice", 10, attributes::slice),
    rule("TopK", 10, attributes::top_k),
    rule("Upsample", 10, resize::from_upsample),
    rule("Resize", 11, resize::from_version_10),
    rule("Clip", 11, attributes::clip),
    rule("Pad", 11, attributes::pad),
    rule("Scatter", 11, attributes::scatter),
    rule("Dropout", 12, attributes::dropout),
    rule("Squeeze", 13, attributes::axes),
    rule("Unsqueeze", 13, attributes::axes),
    rule("ReduceSum", 13, attributes::axes),
    rule("Split", 13, attributes::split),
    rule("Softmax", 13, softmax::flattened),
    rule("LogSoftmax", 13, softmax::flattened),
    rule("Hardmax", 13, softmax::flattened),
    rule("RoiAlign", 16, attributes::roi_align),
    rule("ReduceL1", 18, attributes::axes),
    rule("ReduceL2", 18, attributes::axes),
    rule("ReduceLogSum", 18, attributes::axes),
    rule("ReduceLogSumExp", 18, attributes::axes),
    rule("ReduceMax", 18, attributes::axes),
    rule("ReduceMean", 18, attributes::axes),
    rule("ReduceMin", 18, attributes::axes),
    rule("ReduceProd", 18, attributes::axes),
    rule("ReduceSumSquare", 18, attributes::axes),
    rule("Split", 18, attributes::split_count),
    rule("GridSample", 20, attributes::grid_sample),
    rule("DFT", 20, refuse),
    rule("GroupNormalization", 21, refuse),
];

fn refuse(_: &Graph, _: &mut Patch, _: NodeId, node: &Node) -> Result<()> {
    Err(Error::unsupported(format!(
        "{} cannot be brought to the operator set that quantization needs",
        node.op
    ))
    .code("FB-4301")
    .hint("export the model with operator set 21 or later"))
}

/// The model at operator set `version` or later. One that is there already keeps its operators; it
/// is stamped with the newest operator set that runtimes read, where it says the same there.
///
/// # Errors
/// When an operator has no rewrite, or a subgraph would need one.
pub fn upgrade(model: &Model, version: i64) -> Result<Model> {
    let mut upgraded = model.clone();
    lower::lower(&mut upgraded);
    let from = model.opset();
    if from >= version {
        return Ok(upgraded);
    }
    refuse_subgraphs(&model.graph, from, version)?;
    for rule in RULES.iter().filter(|r| from < r.since && r.since <= version) {
        let graph = &mut upgraded.graph;
        let mut patch = Patch::new(graph);
        for (id, node) in graph.nodes().filter(|(_, n)| n.is(rule.op)) {
            (rule.rewrite)(graph, &mut patch, id, node).at(|| graph.label(id))?;
        }
        patch.apply(graph)?;
    }
    upgraded.set_opset(default_domain(&upgraded), version);
    upgraded.ir_version = upgraded.ir_version.max(ir_version_for(version));
    Ok(upgraded)
}

/// What the model calls the default domain.
fn default_domain(model: &Model) -> &'static str {
    if model.opsets.iter().any(|(d, _)| d == "ai.onnx") { "ai.onnx" } else { "" }
}

/// The IR version that came with an operator set (ONNX "Versioning.md").
fn ir_version_for(opset: i64) -> i64 {
    match opset {
        ..=10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        _ => 10,
    }
}

fn refuse_subgraphs(graph: &Graph, from: i64, version: i64) -> Result<()> {
    let changes =
        |n: &Node| RULES.iter().any(|r| n.is(r.op) && from < r.since && r.since <= version);
    for (id, node) in graph.nodes() {
        for inner in node.attrs.iter().flat_map(|(_, a)| a.graphs()) {
            if inner.nodes().any(|(_, n)| changes(n)) {
                return Err(Error::unsupported(
                    "its subgraph uses operators of an old operator set",
                )
                .code("FB-4302")
                .at(graph.label(id))
                .hint(format!("export the model with operator set {version} or later")));
            }
            refuse_subgraphs(inner, from, version)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
