//! Rows of A times a few panels of B at a time: both stay in the second-level cache, and tiles go
//! along the rows, so that results are written, and what is added to them is read, where the
//! memory has them side by side. What comes next is asked for meanwhile.

use std::ops::Range;

use super::driver::Finish;
use super::kernel::{Ahead, Factors, FloatKernel, NR, Stream};
use super::parts::{Left, LeftParts, Task, cut};

/// The most panels of a block.
const MOST: usize = 32;

/// The least elements of k of a tile that asks for what comes next while it is computed.
const LEAST: usize = 64;

/// One part of k of a task.
pub(super) struct Blocks<'a, K, R> {
    pub(super) task: &'a Task<'a, K, R>,
    pub(super) left: &'a Left<'a>,
    /// The part, and its elements.
    pub(super) index: usize,
    pub(super) k: Range<usize>,
}

impl<K: FloatKernel, R: LeftParts> Blocks<'_, K, R> {
    /// Adds the products of all panels to their sums; finishes them after the last part. The
    /// scratch has as many rows as the part.
    ///
    /// # Safety
    /// The CPU has `K::LEVEL`, and the kernel [`FloatKernel::last`]; each row of A holds `k.len()`
    /// elements; nobody else stores to these outputs.
    #[inline(always)]
    pub(super) unsafe fn run(&self, scratch: &mut [[f32; NR]], sums: &mut [[f32; NR]]) {
        let (right, panels) = (self.task.right, self.task.panels.clone());
        let many = if right.is_ready() { self.many() } else { 1 };
        for first in panels.clone().step_by(many) {
            let count = many.min(panels.end - first);
            if count == 1 {
                let b = right.part(first, self.k.clone(), scratch);
                // SAFETY: the caller's promise.
                unsafe { self.block(first, &[b], many, sums) }
                continue;
            }
            let mut block: [&[[f32; NR]]; MOST] = [&[]; MOST];
            for (i, b) in block[..count].iter_mut().enumerate() {
                *b = right.part(first + i, self.k.clone(), &mut []);
            }
            // SAFETY: the caller's promise.
            unsafe { self.block(first, &block[..count], many, sums) }
        }
    }

    /// Panels of a block.
    fn many(&self) -> usize {
        (K::B_BYTES / (self.k.len().max(1) * size_of::<[f32; NR]>())).clamp(1, MOST)
    }

    /// All rows times the panels from `first` on; `many` panels further, the next block has its
    /// own.
    ///
    /// # Safety
    /// As [`Blocks::run`].
    #[inline(always)]
    unsafe fn block(
        &self,
        first: usize,
        block: &[&[[f32; NR]]],
        many: usize,
        sums: &mut [[f32; NR]],
    ) {
        let (count, sums_len) = (self.left.count, self.task.sums_len());
        let tiles = count.div_ceil(K::rows(count));
        for (t, rows) in cut::<K>(0..count).enumerate() {
            for (i, b) in block.iter().enumerate() {
                assert!(b.len() >= self.k.len(), "a panel of B is too short");
                let panel = first + i;
                let mut ahead = Ahead::nothing(b.as_ptr().cast());
                if self.k.len() >= LEAST {
                    ahead.b = match t {
                        0 if i + 1 < block.len() || tiles == 1 => {
                            self.right_ahead(panel + 1, 0..1, 1)
                        }
                        0 => ahead.b,
                        _ => self.right_ahead(panel + many, t - 1..t, tiles - 1),
                    };
                    if first == self.task.panels.start {
                        ahead.a = self.left_ahead(rows.end, block.len(), i);
                    }
                }
                let at = (panel - self.task.panels.start) * sums_len;
                let sums = if self.task.cut.count() == 1 { &mut [][..] } else { &mut sums[at..] };
                // SAFETY: the caller's promise.
                unsafe { self.tile(rows.clone(), panel, b, ahead, sums) }
            }
        }
    }

    /// One tile.
    ///
    /// # Safety
    /// As [`Blocks::run`]; the rows are there; the panel has `k.len()` elements.
    #[inline(always)]
    unsafe fn tile(
        &self,
        rows: Range<usize>,
        panel: usize,
        b: &[[f32; NR]],
        mut ahead: Ahead,
        sums: &mut [[f32; NR]],
    ) {
        let (first, last) = (self.k.start == 0, self.k.end == self.task.cut.k);
        let Left { data, stride: lda, first: above, count } = *self.left;
        let (finish, b) = (*self.task.finish, b.as_ptr().cast());
        let (a, groups) = (data.as_ptr().wrapping_add(rows.start * lda), self.k.len());
        let factors = |ahead| Factors { rows: rows.len(), groups, a, lda, b, ahead };
        if !last {
            if let Some(next) = sums.get(rows.end) {
                (ahead.out, ahead.stride) = ([next.as_ptr(); 2], NR);
            }
            let Some(tile) = sums[rows.start..].first_chunk_mut() else {
                panic!("a tile begins behind its sums")
            };
            // SAFETY: the caller's promise.
            return unsafe { K::part(factors(ahead), first, tile) };
        }
        let col = panel * NR;
        let width = NR.min(self.task.right.size().1 - col);
        let at = (above + rows.start, col);
        if rows.start == 0 {
            finish.ahead(at.0, col, rows.len());
        }
        if rows.end < count && groups < LEAST {
            finish.ahead(above + rows.end, col, rows.len().min(count - rows.end));
        } else if rows.end < count {
            let next = finish.place(above + rows.end, col, width, 1);
            ahead.out = [next.out.cast_const(), next.residual.unwrap_or(next.out)];
            ahead.stride = next.stride;
        }
        let columns = finish.columns(col, width);
        let sums = if first { None } else { Some(&sums[rows.clone()]) };
        // SAFETY: the caller's promise.
        unsafe { K::last(factors(ahead), sums, (&finish, &columns), at, width) }
    }

    /// The part `share` of `shares` of a panel; behind the last panel, that of the next part of k.
    fn right_ahead(&self, panel: usize, share: Range<usize>, shares: usize) -> Stream {
        let Task { right, cut, panels, .. } = self.task;
        let bytes = match panel < panels.end {
            true => right.bytes(panel, self.k.clone()),
            false if self.index + 1 < cut.count() => {
                let panel = panels.start + (panel - panels.end) % panels.len();
                right.bytes(panel, cut.part(self.index + 1))
            }
            false => &[],
        };
        let bytes = &bytes[bytes.len() * share.start / shares..bytes.len() * share.end / shares];
        Stream::new(bytes.as_ptr(), bytes.len(), self.k.len() / Ahead::EVERY)
    }

    /// The part `share` of `shares` of the rows of A from `row` on that make a tile, where they lie
    /// one behind the other.
    fn left_ahead(&self, row: usize, shares: usize, share: usize) -> Stream {
        let Left { data, stride, .. } = *self.left;
        let len = if stride == self.k.len() { K::MR * stride * size_of::<f32>() } else { 0 };
        let from = data.as_ptr().wrapping_add(row * stride).cast::<u8>();
        let from = from.wrapping_add(len * share / shares);
        Stream::new(from, len / shares, self.k.len() / Ahead::EVERY)
    }
}
