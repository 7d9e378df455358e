//! What is added to the scores of attention: the mask, the causal triangle, the padding.

use crate::eval::EvalCtx;
use crate::ops::broadcast::{broadcast_shapes, broadcast_strides};
use fewbit_core::{DType, Error, Result, Tensor};
use std::ops::Range;

/// The terms of one attention, combined row by row.
pub(super) struct Bias {
    mask: Option<Mask>,
    /// Rows of the past, if later keys are hidden.
    causal: Option<usize>,
    /// Valid keys of each sample.
    valid: Option<Vec<usize>>,
}

/// A mask in its additive form, `[batch, heads, rows, len]` up to broadcasting.
struct Mask {
    values: Vec<f32>,
    strides: Vec<usize>,
    len: usize,
}

impl Bias {
    /// Reads mask (input 3), `is_causal` and valid lengths (input 6) for scores of `shape`,
    /// `[batch, heads, rows, keys]`, of which `past` keys come from the cache.
    ///
    /// # Errors
    /// When the mask or the lengths do not fit the scores.
    pub fn new(ctx: &EvalCtx, shape: [usize; 4], past: usize) -> Result<Bias> {
        let mask = ctx.opt(3).map(|mask| Mask::new(mask, shape)).transpose()?;
        let causal = (ctx.int("is_causal", 0)? != 0).then_some(past);
        let valid = ctx.opt(6).map(|lengths| valid_lengths(lengths, shape[0])).transpose()?;
        Ok(Bias { mask, causal, valid })
    }

    /// Keys, of `total`, beyond which every key is hidden from every query by the valid lengths.
    /// Nothing is cut where some sample has no valid key at all: its rows become NaN.
    pub fn reach(&self, total: usize) -> usize {
        let Some(valid) = &self.valid else { return total };
        match (valid.iter().min(), valid.iter().max()) {
            (Some(&least), Some(&most)) if least > 0 => most.min(total),
            _ => total,
        }
    }

    /// Keys beyond which every key is hidden from every query of a block; `None` where nothing is
    /// known, or a row sees no key at all and becomes NaN.
    pub fn reach_of(&self, batch: usize, rows: &Range<usize>) -> Option<usize> {
        let causal = self.causal.map(|past| past.saturating_add(rows.end));
        let mask = self.mask.as_ref().and_then(|mask| mask.reach_of(batch, rows));
        match (causal, mask) {
            (Some(causal), Some(mask)) => Some(causal.min(mask)),
            (causal, mask) => causal.or(mask),
        }
    }

    /// Adds the terms to one row of scores.
    pub fn add_to(&self, scores: &mut [f32], [batch, head, row]: [usize; 3]) {
        if let Some(mask) = &self.mask {
            mask.add_to(scores, [batch, head, row]);
        }
        let hide = |scores: &mut [f32], from: usize| {
            scores.iter_mut().skip(from).for_each(|s| *s += f32::NEG_INFINITY);
        };
        if let Some(past) = self.causal {
            hide(scores, past.saturating_add(row + 1));
        }
        if let Some(valid) = &self.valid {
            hide(scores, valid[batch]);
        }
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
        let [of_batch, of_head, of_row] = self.strides[..] else { return None };
        if of_head != 0 {
            return None;
        }
        let mut reach = 0;
        for row in rows.clone() {
            let values = &self.values[(batch * of_batch + row * of_row) * self.len..][..self.len];
            let last = values.iter().rposition(|&v| v != f32::NEG_INFINITY)?;
            reach = reach.max(last + 1);
        }
        Some(reach)
    }

    /// Keys behind the end of the mask are hidden.
    fn add_to(&self, scores: &mut [f32], at: [usize; 3]) {
        let row: usize = self.strides.iter().zip(at).map(|(s, i)| s * i).sum();
        let values = &self.values[row * self.len..][..self.len];
        let (masked, behind) = scores.split_at_mut(self.len.min(scores.len()));
        masked.iter_mut().zip(values).for_each(|(s, m)| *s += m);
        behind.iter_mut().for_each(|s| *s += f32::NEG_INFINITY);
    }
}

fn valid_lengths(lengths: &Tensor, batch: usize) -> Result<Vec<usize>> {
    let lengths = lengths.to_i64()?;
    if lengths.len() != batch {
        return Err(Error::bad_input(format!("{} lengths for {batch} samples", lengths.len())));
    }
    Ok(lengths.into_iter().map(|n| usize::try_from(n).unwrap_or(0)).collect())
}
