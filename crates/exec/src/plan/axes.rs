//! What a node says about axes, for values that lie `[N,...,C]`: attributes are rewritten when the
//! order is chosen, inputs when they are read.

use super::kernel::Inputs;
use super::lower::Lowering;
use super::permute::{axis_in_last, order_last};
use crate::eval::axis_index;
use fewbit_core::{Attr, Node, Result, Tensor};

/// Whether a reduction computes the same from `[N,...,C]` values, in the same order, and its result
/// lies in that order too.
pub(crate) fn reduces_in_any_order(lowering: &Lowering, node: &Node) -> bool {
    reduced_axes(lowering, node).is_some_and(|(axes, keep)| {
        let (channels, places) = (axes.contains(&1), axes.iter().any(|&axis| axis > 1));
        // Channels would be the last axis of a sum and not the first one; and without them or the
        // batch, what is left has another first axis.
        if keep { !(channels && places) } else { !channels && !axes.contains(&0) }
    })
}

/// The axes that a reduction names, and whether it keeps them.
pub(crate) fn reduced_axes(lowering: &Lowering, node: &Node) -> Option<(Vec<usize>, bool)> {
    let rank = lowering.ty(node.input(0)?).rank()?;
    let axes = match (node.ints("axes").ok()?, node.input(1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(axes)) => lowering.graph.constant(axes)?.to_i64().ok()?,
        (None, None) => return None,
    };
    let axes: Option<Vec<usize>> = axes.iter().map(|&a| axis_index(a, rank).ok()).collect();
    let keep = node.int("keepdims").ok()?.unwrap_or(1) != 0;
    axes.filter(|axes| !axes.is_empty()).map(|axes| (axes, keep))
}

/// Rewrites the attributes of a node that reads `[N,...,C]` values of rank `rank`.
pub(crate) fn move_attributes(node: &mut Node, rank: usize) {
    let default = match node.op.as_str() {
        "Concat" => None,
        "QuantizeLinear" | "DequantizeLinear" => Some(1),
        "Split" => Some(0),
        "Pad" => {
            for name in ["pads", "paddings"] {
                if let Ok(Some(pads)) = node.ints(name) {
                    let pads = moved_pads(pads);
                    node.set_attr(name, Attr::Ints(pads));
                }
            }
            return;
        }
        "Slice" => {
            return move_axes(node, rank, node.ints("starts").ok().flatten().map(<[i64]>::len));
        }
        op if op.starts_with("Reduce") => return move_axes(node, rank, None),
        _ => return,
    };
    let axis = match node.attr("axis") {
        Some(Attr::Int(axis)) => Some(*axis),
        _ => default,
    };
    if let Some(axis) = axis {
        node.set_attr("axis", Attr::Int(moved(axis, rank)));
    }
}

/// Rewrites the attribute `axes`; where it is missing, it means the first `count` ones.
fn move_axes(node: &mut Node, rank: usize, count: Option<usize>) {
    let axes = match (node.ints("axes"), count) {
        (Ok(Some(axes)), _) => axes.to_vec(),
        (Ok(None), Some(count)) => (0..count as i64).collect(),
        _ => return,
    };
    let axes = axes.into_iter().map(|axis| moved(axis, rank)).collect();
    node.set_attr("axes", Attr::Ints(axes));
}

/// The same for axes among the inputs of a node.
///
/// # Errors
/// When they are no integers.
pub(crate) fn move_inputs(node: &Node, inputs: &mut Inputs, rank: usize) -> Result<()> {
    let given = |inputs: &Inputs, index: usize| {
        inputs.get(index).and_then(Option::as_ref).map(Tensor::to_i64).transpose()
    };
    let (index, axes) = match node.op.as_str() {
        "Slice" => match (given(inputs, 3)?, given(inputs, 1)?) {
            (Some(axes), _) => (3, axes),
            (None, Some(starts)) => (3, (0..starts.len() as i64).collect()),
            (None, None) => return Ok(()),
        },
        "Pad" => match (given(inputs, 3)?, given(inputs, 1)?) {
            (Some(axes), _) => (3, axes),
            (None, Some(pads)) => {
                inputs[1] = Some(Tensor::vector(&moved_pads(&pads)));
                return Ok(());
            }
            (None, None) => return Ok(()),
        },
        op if op.starts_with("Reduce") => match given(inputs, 1)? {
            Some(axes) => (1, axes),
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    let axes: Vec<i64> = axes.into_iter().map(|axis| moved(axis, rank)).collect();
    inputs.resize(inputs.len().max(index + 1), None);
    inputs[index] = Some(Tensor::vector(&axes));
    Ok(())
}

/// An axis of `[N,C,...]` in `[N,...,C]`; one that lies outside stays, to be reported.
fn moved(axis: i64, rank: usize) -> i64 {
    axis_index(axis, rank).map_or(axis, |axis| axis_in_last(axis, rank) as i64)
}

/// Elements before all axes, then those after them.
fn moved_pads(pads: &[i64]) -> Vec<i64> {
    let (before, after) = pads.split_at(pads.len() / 2);
    [order_last(before), order_last(after)].concat()
}
