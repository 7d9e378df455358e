//! Back to the operator set and IR version that runtimes read: exporters stamp the newest ones of
//! their `onnx` package, whatever the model uses, and a runtime that does not know the number
//! refuses the file.

use fewbit_core::{Graph, Model};

/// The newest operator set that ONNX Runtime 1.32 reads.
const READ: i64 = 26;

/// The newest IR version that it reads. Those after it add types that fewbit has not.
const IR_READ: i64 = 13;

/// Operators that came after [`READ`], or take or mean something else since (ONNX "Changelog.md").
/// Those that only take 6-bit floats now, which fewbit has not, or fewer types, are not among them.
const NEWER: &[&str] = &[
    "BitShift",
    "CausalConvWithState",
    "Celu",
    "Compress",
    "Einsum",
    "LinearAttention",
    "Mod",
    "OneHot",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "Range",
    "ReverseSequence",
    "SpaceToDepth",
    "SwiGLU",
    "Unique",
];

/// Stamps the operator set and the IR version that runtimes read, where the model says the same
/// with them.
pub(super) fn lower(model: &mut Model) {
    model.ir_version = model.ir_version.min(IR_READ);
    if model.opset() > READ && !has_newer(&model.graph) {
        model.set_opset(super::default_domain(model), READ);
    }
}

fn has_newer(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| {
        let inner = node.attrs.iter().flat_map(|(_, attr)| attr.graphs());
        NEWER.iter().any(|op| node.is(op)) || inner.into_iter().any(has_newer)
    })
}
