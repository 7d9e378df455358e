//! What is added to the scores of attention: the mask, and what hides keys from queries.

use super::visible::Visible;
use crate::eval::EvalCtx;
use crate::ops::broadcast::{broadcast_shapes, broadcast_strides};
use fewbit_core::{DType, Error, Result, Tensor};
use std::ops::Range;

/// The terms of one attention, combined row by row.
pub(super) struct Bias {
    mask: Option<Mask>,
    visible: Visible,
}

/// A mask in its additive form, `[batch, heads, rows, len]` up to broadcasting.
struct Mask {
    values: Vec<f32>,
    strides: Vec<usize>,
    len: usize,
}

impl Bias {
    /// Reads mask (input 3), and what [`Visible::new`] reads, for scores of `shape`,
    /// `[batch, heads, rows, keys]`, of which `past` keys come from the node's own cache.
    ///
    /// # Errors
    /// When mask, lengths or attributes do not fit the scores.
    pub fn new(ctx: &EvalCtx, shape: [usize; 4], past: Option<usize>) -> Result<Bias> {
        let mask = ctx.opt(3).map(|mask| Mask::new(mask, shape)).transpose()?;
        Ok(Bias { mask, visible: Visible::new(ctx, shape, past)? })
    }

    /// The keys of which a block of queries may see some; all others are hidden from each of it.
    ///
    /// To leave hidden keys out changes no bit: lanes of sums are joined by halves, so that it does
    /// not matter which one comes first, and a weight of 0 adds nothing.
    pub fn keys_of(&self, batch: usize, rows: &Range<usize>) -> Range<usize> {
        // A later query sees as far as an earlier one, or further, on either side.
        let last = rows.end.saturating_sub(1);
        let start = self.visible.of(batch, rows.start).start;
        let end = self.visible.of(batch, last).end;
        let mask = self.mask.as_ref().and_then(|mask| mask.reach_of(batch, rows));
        let end = mask.map_or(end, |mask| mask.min(end));
        start.min(end)..end
    }

    /// Adds the terms to one row of scores, those of keys from `first` on.
    pub fn add_to(&self, scores: &mut [f32], first: usize, at: [usize; 3]) {
        if let Some(mask) = &self.mask {
            mask.add_to(scores, first, at);
        }
        let Range { start, end } = self.seen(first..first + scores.len(), at);
        let hide = |scores: &mut [f32]| scores.iter_mut().for_each(|s| *s += f32::NEG_INFINITY);
        hide(&mut scores[..start - first]);
        hide(&mut scores[end - first..]);
    }

    /// Whether a row sees none of some keys.
    pub fn hides(&self, keys: Range<usize>, at: [usize; 3]) -> bool {
        let mut seen = self.seen(keys, at);
        match &self.mask {
            None => seen.is_empty(),
            Some(mask) => {
                let row = mask.row(at);
                !seen.any(|key| row.get(key).is_some_and(|&value| value != f32::NEG_INFINITY))
            }
        }
    }

    /// Those of some keys that a row may see, whatever the mask.
    fn seen(&self, keys: Range<usize>, [batch, _, row]: [usize; 3]) -> Range<usize> {
        let Range { start, end } = self.visible.of(batch, row);
        start.clamp(keys.start, keys.end)..end.clamp(keys.start, keys.end)
    }
}

impl Mask {
    fn new(mask: &Tensor, shape: [usize; 4]) -> Result<Mask> {
        let values = match mask.dtype() {
            DType::Bool => {
                let keep = mask.cow::<u8>()?;
                keep.iter().map(|&k| if k != 0 { 0.0 } else { f32::NEG_INFINITY }).collect()
            }
            _ => mask.to_f32()?,
        };
        let Some((&len, front)) = mask.shape().split_last() else {
            return Err(Error::bad_input("the attention mask is a scalar"));
        };
        if len > shape[3] || broadcast_shapes(&[front, &shape[..3]])? != shape[..3] {
            return Err(Error::bad_input(format!(
                "an attention mask of shape {:?} does not fit scores of shape {shape:?}",
                mask.shape()
            )));
        }
        let strides = broadcast_strides(front, &shape[..3]);
        Ok(Mask { values, strides, len })
    }

    /// Keys behind which every key is hidden from every query of a block, for a mask that is the
    /// same for all heads.
    fn reach_of(&self, batch: usize, rows: &Range<usize>) -> Option<usize> {
        let [_, of_head, _] = self.strides[..] else { return None };
        let last = |row| self.row([batch, 0, row]).iter().rposition(|&v| v != f32::NEG_INFINITY);
        let reach = || rows.clone().filter_map(last).max().map_or(0, |last| last + 1);
        (of_head == 0).then(reach)
    }

    /// The values of a row.
    fn row(&self, at: [usize; 3]) -> &[f32] {
        let row: usize = self.strides.iter().zip(at).map(|(s, i)| s * i).sum();
        &self.values[row * self.len..][..self.len]
    }

    /// Keys behind the end of the mask are hidden.
    fn add_to(&self, scores: &mut [f32], first: usize, at: [usize; 3]) {
        let values = self.row(at).get(first..).unwrap_or_default();
        let (masked, behind) = scores.split_at_mut(values.len().min(scores.len()));
        masked.iter_mut().zip(values).for_each(|(s, m)| *s += m);
        behind.iter_mut().for_each(|s| *s += f32::NEG_INFINITY);
    }
}
