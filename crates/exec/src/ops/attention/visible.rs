//! Which keys a query may see by where both stand: up to its own position, within a window around
//! it, and before the padding.

use crate::eval::EvalCtx;
use fewbit_core::{Error, Result, Tensor};
use std::ops::Range;

/// The keys between two bounds that move with the query.
pub(super) struct Visible {
    /// Queries and keys.
    rows: usize,
    keys: usize,
    /// Keys of the node's own cache, if it has one.
    past: Option<usize>,
    /// Keys before and behind the position of a query that it sees; `None` without such a bound.
    before: Option<i64>,
    behind: Option<i64>,
    /// Valid keys of each sample.
    valid: Option<Vec<usize>>,
}

impl Visible {
    /// Reads `is_causal`, the sizes of the window and the valid lengths (input 6) for scores of
    /// `shape`, `[batch, heads, rows, keys]`, of which `past` keys come from the node's own cache,
    /// if it has one.
    ///
    /// # Errors
    /// When an attribute or a length makes no sense.
    pub fn new(ctx: &EvalCtx, shape: [usize; 4], past: Option<usize>) -> Result<Visible> {
        let [batch, _, rows, keys] = shape;
        let valid = ctx.opt(6).map(|lengths| valid_lengths(lengths, batch)).transpose()?;
        let causal = (ctx.int("is_causal", 0)? != 0).then_some(0);
        let right = window(ctx, "right_window_size")?;
        Ok(Visible {
            rows,
            keys,
            past,
            before: window(ctx, "left_window_size")?,
            behind: causal.into_iter().chain(right).min(),
            valid,
        })
    }

    /// The keys that query `row` of a sample may see.
    pub fn of(&self, batch: usize, row: usize) -> Range<usize> {
        let at = self.first(batch).saturating_add(position(row));
        let valid = self.valid.as_ref().map_or(self.keys, |valid| valid[batch].min(self.keys));
        let bound = |at: i64| usize::try_from(at).unwrap_or(0).min(valid);
        let end = self.behind.map_or(valid, |behind| bound(at.saturating_add(behind + 1)));
        let start = self.before.map_or(0, |before| bound(at.saturating_sub(before)));
        start.min(end)..end
    }

    /// The position among the keys of a sample's first query. Where the cache is the caller's, the
    /// queries stand for its last valid keys, however many those are: positions may begin before
    /// the first key.
    fn first(&self, batch: usize) -> i64 {
        match (self.past, &self.valid) {
            (None, Some(valid)) => position(valid[batch]) - position(self.rows),
            (past, _) => position(past.unwrap_or(0)),
        }
    }
}

/// Lengths of tensors are far from the bounds of either type.
fn position(at: usize) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX / 2)
}

/// A side of the window; -1 is none.
fn window(ctx: &EvalCtx, name: &str) -> Result<Option<i64>> {
    match ctx.int(name, -1)? {
        -1 => Ok(None),
        // More than any tensor has.
        size @ 0.. => Ok(Some(size.min(i64::MAX / 2))),
        size => Err(Error::bad_input(format!("{size} is neither -1 nor a number of keys"))
            .at(format!("attribute `{name}`"))),
    }
}

fn valid_lengths(lengths: &Tensor, batch: usize) -> Result<Vec<usize>> {
    let lengths = lengths.to_i64()?;
    if lengths.len() != batch {
        return Err(Error::bad_input(format!("{} lengths for {batch} samples", lengths.len())));
    }
    Ok(lengths.into_iter().map(|n| usize::try_from(n).unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible(before: Option<i64>, behind: Option<i64>, past: usize) -> Visible {
        Visible { rows: 4, keys: 6, past: Some(past), before, behind, valid: None }
    }

    #[test]
    fn queries_see_what_is_near_them() {
        let seen = |visible: Visible| [0, 1, 3, 9].map(|row| visible.of(0, row));
        assert_eq!(seen(visible(None, None, 0)), [0..6, 0..6, 0..6, 0..6]);
        assert_eq!(seen(visible(None, Some(0), 2)), [0..3, 0..4, 0..6, 0..6]);
        assert_eq!(seen(visible(Some(1), Some(1), 0)), [0..2, 0..3, 2..5, 6..6]);
        assert_eq!(seen(visible(Some(0), None, 1)), [1..6, 2..6, 4..6, 6..6]);
    }

    #[test]
    fn queries_before_the_first_valid_key_see_none() {
        let valid = Some(vec![2, 5]);
        let visible = Visible { past: None, valid, ..visible(None, Some(0), 0) };
        assert_eq!([0, 1, 2, 3].map(|row| visible.of(0, row)), [0..0, 0..0, 0..1, 0..2]);
        assert_eq!([0, 1, 2, 3].map(|row| visible.of(1, row)), [0..2, 0..3, 0..4, 0..5]);
    }
}
