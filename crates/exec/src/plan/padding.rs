//! Zeros that a `Pad` puts around the input of a convolution are padding of its own: exporters of
//! models from TensorFlow write them so. So are those around the input of an average pool, which
//! PyTorch writes.
//!
//! Between the `Pad` and its reader a value may be quantized as it was before: the zeros have a
//! code, and the codes of all others stay.

use super::integer::codes::{coded, limits, quantizer};
use super::lower::Lowering;
use super::scope::Scope;
use crate::ops::shape::pad::border;
use crate::ops::window::{AutoPad, Window};
use fewbit_core::{Attr, Graph, Node, Patch, Result, ValueId, ValueType};

/// The most zeros on one side; more are left to `Pad`, which refuses what no memory holds.
const MOST: i64 = 1 << 16;

/// Moves zeros into the nodes that read them.
///
/// # Errors
/// When the graph was broken before.
pub(crate) fn take_zeros(graph: &mut Graph, types: &[ValueType], scope: &Scope) -> Result<()> {
    let lowering = Lowering::new(graph, types, scope);
    let mut patch = Patch::new(graph);
    for (id, node) in graph.nodes() {
        let Some((value, pads)) = widened(&lowering, node) else { continue };
        patch.set_input(id, 0, Some(value));
        patch.set_attr(id, "pads", Attr::Ints(pads));
        patch.set_attr(id, "auto_pad", Attr::String("NOTSET".into()));
        if node.is("AveragePool") {
            patch.set_attr(id, "count_include_pad", Attr::Int(1));
        }
    }
    if patch.is_empty() {
        return Ok(());
    }
    patch.apply(graph)?;
    Patch::remove_dead(graph)
}

/// What a node reads inside of zeros, and its attribute `pads` with them.
fn widened(lowering: &Lowering, node: &Node) -> Option<(ValueId, Vec<i64>)> {
    let rank = lowering.ty(node.input(0)?).rank()?.checked_sub(2)?;
    let window = window(lowering, node).filter(|window| window.rank() == rank)?;
    let (value, zeros) = inside_zeros(lowering, node.input(0)?, rank)?;
    let own = match window.auto_pad {
        AutoPad::Explicit => [window.begin, window.end],
        AutoPad::Valid => [vec![0; rank], vec![0; rank]],
        AutoPad::SameUpper | AutoPad::SameLower => return None,
    };
    let counted = node.int("count_include_pad").ok()?.unwrap_or(0) != 0;
    if node.is("AveragePool") && !counted && own.iter().flatten().any(|&n| n != 0) {
        return None;
    }
    let own = own.iter().flatten().map(|&n| i64::try_from(n).ok());
    let more = zeros.iter().map(|z| z.0).chain(zeros.iter().map(|z| z.1));
    let pads = own.zip(more).map(|(own, more)| own?.checked_add(more)).collect::<Option<_>>()?;
    Some((value, pads))
}

/// The window of a node that could take zeros for padding.
fn window(lowering: &Lowering, node: &Node) -> Option<Window> {
    match node.op.as_str() {
        _ if !matches!(node.domain.as_str(), "" | "ai.onnx") => None,
        "Conv" => {
            let weight = lowering.ty(node.input(1)?).fixed_shape()?;
            Window::new(node, weight.get(2..)?).ok()
        }
        "AveragePool" => Window::of_pool(node).ok().filter(|window| !window.ceil),
        _ => None,
    }
}

/// The value inside the zeros around `x`, if it has such around its `rank` spatial axes alone, and
/// how many there are before and after each.
fn inside_zeros(
    lowering: &Lowering,
    x: ValueId,
    rank: usize,
) -> Option<(ValueId, Vec<(i64, i64)>)> {
    let padded = before_pair(lowering, x).unwrap_or(x);
    let pad = lowering.graph.node(lowering.uses.producer(padded)?);
    let mode = pad.string("mode").ok()?.unwrap_or("constant");
    if !pad.is("Pad") || mode != "constant" {
        return None;
    }
    let constant = |index: usize| match pad.input(index) {
        None => Some(None),
        Some(value) => lowering.constant(value).map(Some),
    };
    let zero = constant(2)?.is_none_or(|fill| fill.to_f32().is_ok_and(|fill| fill == [0.0]));
    let axes = constant(3)?.map(|axes| axes.to_i64()).transpose().ok()?;
    let pads = constant(1)??.to_i64().ok()?;
    let border = border(&pads, axes.as_deref(), rank + 2).ok()?;
    let (outer, zeros) = border.split_at(2);
    let few = |zeros: i64| (0..=MOST).contains(&zeros);
    let fits = zeros.iter().all(|&(before, after)| few(before) && few(after));
    let value = pad.input(0)?;
    if padded != x && !same_codes(lowering, value, x) {
        return None;
    }
    (zero && fits && outer == [(0, 0); 2]).then(|| (value, zeros.to_vec()))
}

/// What a quantization and a dequantization before `x` read.
fn before_pair(lowering: &Lowering, x: ValueId) -> Option<ValueId> {
    let codes = coded(lowering, x).ok()?;
    let quantize = lowering.graph.node(lowering.uses.producer(codes.value)?);
    quantize.is("QuantizeLinear").then(|| quantize.input(0))?
}

/// Whether `before` is dequantized as `after` is quantized and dequantized, so that its codes stay.
fn same_codes(lowering: &Lowering, before: ValueId, after: ValueId) -> bool {
    let (Ok(before), Ok(after)) = (coded(lowering, before), coded(lowering, after)) else {
        return false;
    };
    let producer = lowering.uses.producer(after.value).map(|id| lowering.graph.node(id));
    let Some(Ok((dtype, quantizer))) = producer.map(|node| quantizer(lowering, node)) else {
        return false;
    };
    let (min, max) = limits(dtype);
    let stays = |code: i32| quantizer.code(before.affine.dequantize(code)) == code;
    (before.dtype, before.affine) == (after.dtype, after.affine)
        && before.dtype == dtype
        && quantizer.affine() == after.affine
        && (min..=max).all(stays)
}
