//! The float model made ready for quantization, without changing what it computes.
//!
//! Old operator sets are brought to 13, products that ONNX Runtime fused with others are taken apart,
//! constants are folded, means over planes become pools, batch normalization moves into the weights
//! before it, nodes that do nothing go, and every node gets a name of its own, so that plans can
//! speak of it.

mod batch_norm;
mod equalize;
mod gemm;
mod means;
mod names;
mod no_ops;

pub use equalize::equalize;

use fewbit_core::{Model, Patch, Result};

/// Oldest operator set with per-axis `DequantizeLinear`.
const LEAST_OPSET: i64 = 13;

/// Prepares a model. Plans and statistics refer to the result, not to the file's graph.
///
/// # Errors
/// When the model is broken or a constant subgraph cannot be evaluated.
pub fn prepare(model: &Model) -> Result<Model> {
    let mut model = crate::upgrade::upgrade(model, LEAST_OPSET)?;
    let table = fewbit_exec::OpTable::standard();
    fewbit_exec::write_fused_products(&model, &table).apply(&mut model.graph)?;
    let folded = fewbit_exec::fold_constants(&model, &table);
    folded.apply(&mut model.graph)?;
    means::to_pools(&model)?.apply(&mut model.graph)?;
    let graph = &mut model.graph;
    default_inputs(graph).apply(graph)?;
    no_ops::remove(graph).apply(graph)?;
    batch_norm::fold(graph)?.apply(graph)?;
    gemm::fold_factors(graph)?.apply(graph)?;
    names::make_unique(graph).apply(graph)?;
    Patch::remove_dead(graph)?;
    Ok(model)
}

/// Weights that old files also declare as inputs are weights, not inputs.
fn default_inputs(graph: &fewbit_core::Graph) -> Patch {
    let mut patch = Patch::new(graph);
    let required: Vec<_> = graph.required_inputs().collect();
    if required.len() < graph.inputs().len() {
        patch.set_graph_inputs(required);
    }
    patch
}

#[cfg(test)]
mod tests;
