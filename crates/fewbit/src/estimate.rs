//! How much memory work will take, before it starts.

use crate::weights;
use fewbit_core::{DType, Graph, Model, Result, ValueId, ValueType};
use fewbit_exec::{OpTable, infer_types};
use std::collections::HashMap;

/// What a process of this kind takes without any model: code, stacks, buffers of files.
const BASE_BYTES: u64 = 24 << 20;

/// Memory that work on a model will take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The constants: as they are in the file, packed for the kernels, and written anew.
    pub weights: u64,
    /// Activations that are alive at once, for all samples in flight.
    pub activations: u64,
    /// Everything together.
    pub total: u64,
}

/// Estimates the peak memory of running a model on `in_flight` samples at once; `shapes` fixes
/// open dimensions of inputs, others count as 1.
///
/// # Errors
/// When a shape is given for something that is no input.
pub fn estimate(
    model: &Model,
    shapes: &[(String, Vec<usize>)],
    in_flight: usize,
) -> Result<Estimate> {
    let types = infer_types(model, &OpTable::standard(), shapes)?;
    let constants = weights::count(&model.graph).bytes;
    let weights = constants.saturating_mul(3);
    let activations = peak(&model.graph, &types).saturating_mul(in_flight.max(1) as u64);
    let total = BASE_BYTES.saturating_add(weights).saturating_add(activations);
    Ok(Estimate { weights, activations, total })
}

/// Largest sum of values that are alive at once, walking the nodes in order.
fn peak(graph: &Graph, types: &[ValueType]) -> u64 {
    let mut readers: HashMap<ValueId, usize> = HashMap::new();
    for (_, node) in graph.nodes() {
        for value in graph.all_inputs(node) {
            *readers.entry(value).or_default() += 1;
        }
    }
    let size = |v: ValueId| if graph.constant(v).is_some() { 0 } else { bytes(&types[v.index()]) };
    let mut alive: u64 = graph.required_inputs().map(size).fold(0, u64::saturating_add);
    let mut most = alive;
    for (_, node) in graph.nodes() {
        let outputs = node.outputs.iter().flatten().map(|&v| size(v));
        alive = outputs.fold(alive, u64::saturating_add);
        most = most.max(alive);
        for value in graph.all_inputs(node) {
            let left = readers.get_mut(&value);
            if let Some(left) = left.filter(|left| **left > 0) {
                *left -= 1;
                let dead = *left == 0 && !graph.outputs().contains(&value);
                alive = alive.saturating_sub(if dead { size(value) } else { 0 });
            }
        }
    }
    most
}

/// Bytes of a value; open dimensions count as 1.
fn bytes(ty: &ValueType) -> u64 {
    let Some(shape) = &ty.shape else {
        return 0;
    };
    let elements = shape
        .iter()
        .map(|d| d.known().unwrap_or(1) as u64)
        .fold(1u64, |product, d| product.saturating_mul(d));
    elements.saturating_mul(ty.dtype.unwrap_or(DType::F32).bits() as u64) / 8
}
