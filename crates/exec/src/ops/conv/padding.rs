//! Zeros that a `Pad` puts around the input of a convolution are padding of its own: exporters of
//! models from TensorFlow write them so.

use crate::ops::shape::pad::border;
use crate::ops::window::{AutoPad, Window};
use crate::plan::lower::Lowering;
use fewbit_core::ValueId;

/// The most zeros on one side; more are left to `Pad`, which refuses what no memory holds.
const MOST: i64 = 1 << 16;

/// The value inside the zeros around `x`, if it has such around its `rank` spatial axes alone, and
/// how many there are before and after each.
pub(super) fn inside_zeros(
    lowering: &Lowering,
    x: ValueId,
    rank: usize,
) -> Option<(ValueId, Vec<(usize, usize)>)> {
    let pad = lowering.graph.node(lowering.uses.producer(x)?);
    let mode = pad.string("mode").ok()?.unwrap_or("constant");
    if !pad.is("Pad") || mode != "constant" {
        return None;
    }
    let constant = |index: usize| match pad.input(index) {
        None => Some(None),
        Some(value) => lowering.graph.constant(value).map(Some),
    };
    let zero = constant(2)?.is_none_or(|fill| fill.to_f32().is_ok_and(|fill| fill == [0.0]));
    let axes = constant(3)?.map(|axes| axes.to_i64()).transpose().ok()?;
    let pads = constant(1)??.to_i64().ok()?;
    let border = border(&pads, axes.as_deref(), rank + 2).ok()?;
    let (outer, spatial) = border.split_at(2);
    let few = |zeros: i64| (0..=MOST).contains(&zeros);
    let fits = spatial.iter().all(|&(before, after)| few(before) && few(after));
    if !zero || !fits || outer != [(0, 0); 2] {
        return None;
    }
    let zeros = spatial.iter().map(|&(before, after)| (before as usize, after as usize));
    Some((pad.input(0)?, zeros.collect()))
}

/// Adds zeros to the padding of a window; `false` where it chooses its padding by the input's size.
pub(super) fn widen(window: &mut Window, zeros: &[(usize, usize)]) -> bool {
    match window.auto_pad {
        AutoPad::Explicit => {}
        AutoPad::Valid => window.auto_pad = AutoPad::Explicit,
        AutoPad::SameUpper | AutoPad::SameLower => return false,
    }
    for (axis, (before, after)) in zeros.iter().enumerate() {
        window.begin[axis] += before;
        window.end[axis] += after;
    }
    true
}
