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

    /// Keys beyond which every key is hidden from every query of a block.
    pub fn reach_of(&self, batch: usize, rows: &Range<usize>) -> usize {
        // A later query sees as far as an earlier one, or further.
        let visible = rows.end.checked_sub(1).map_or(0, |last| self.visible.of(batch, last).end);
        let mask = self.mask.as_ref().and_then(|mask| mask.reach_of(batch, rows));
        mask.map_or(visible, |mask| mask.min(visible))
    }

    /// Adds the terms to one row of scores.
    pub fn add_to(&self, scores: &mut [f32], at: [usize; 3]) {
        if let Some(mask) = &self.mask {
            mask.add_to(scores, at);
        }
        let Range { start, end } = self.seen(scores.len(), at);
        let hide = |scores: &mut [f32]| scores.iter_mut().for_each(|s| *s += f32::NEG_INFINITY);
        hide(&mut scores[..start]);
        hide(&mut scores[end..]);
    }

    /// Whether a row sees none of the first `keys` keys.
    pub fn hides(&self, keys: usize, at: [usize; 3]) -> bool {
        let mut seen = self.seen(keys, at);
        match &self.mask {
            None => seen.is_empty(),
            Some(mask) => {
                let row = mask.row(at);
                !seen.any(|key| row.get(key).is_some_and(|&value| value != f32::NEG_INFINITY))
            }
        }
    }

    fn seen(&self, keys: usize, [batch, _, row]: [usize; 3]) -> Range<usize> {
        let Range { start, end } = self.visible.of(batch, row);
        start.min(keys)..end.min(keys)
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

    /// As [`Bias::reach_of`], for a mask that is the same for all heads.
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
    fn add_to(&self, scores: &mut [f32], at: [usize; 3]) {
        let (masked, behind) = scores.split_at_mut(self.len.min(scores.len()));
        masked.iter_mut().zip(self.row(at)).for_each(|(s, m)| *s += m);
        behind.iter_mut().for_each(|s| *s += f32::NEG_INFINITY);
    }
}
