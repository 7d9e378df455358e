//! Memory for packed weights: in huge pages, where it is large and the system has them. So it is
//! touched with few faults when weights are packed, and read with few misses of the TLB after.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::replace;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use crate::scratch::Line;

/// Bytes of a huge page of x86-64, and of AArch64 with pages of 4 KiB.
const HUGE: usize = 2 << 20;

/// Lines one behind the other, as a vector holds them. From the size of a huge page on they begin
/// at the boundary of one.
pub(crate) struct Lines {
    start: NonNull<Line>,
    len: usize,
    capacity: usize,
}

// SAFETY: the lines belong to this value alone, and are plain bytes.
unsafe impl Send for Lines {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for Lines {}

impl Lines {
    /// No lines.
    pub(crate) fn new() -> Lines {
        Lines { start: NonNull::dangling(), len: 0, capacity: 0 }
    }

    /// `len` lines of zeros.
    pub(crate) fn zeros(len: usize) -> Lines {
        let mut lines = Lines::new();
        lines.push(len);
        lines
    }

    /// Makes room for `capacity` lines in all.
    pub(crate) fn reserve(&mut self, capacity: usize) {
        if capacity <= self.capacity {
            return;
        }
        let layout = layout(capacity);
        // SAFETY: the layout is not empty, since the capacity is above another.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start.cast::<Line>()) else { handle_alloc_error(layout) };
        advise(start, layout);
        // SAFETY: both hold the lines that there are; the new ones are nobody else's.
        unsafe { start.copy_from_nonoverlapping(self.start, self.len) };
        *self = Lines { start, len: self.len, capacity };
    }

    /// Adds `count` lines of zeros.
    pub(crate) fn push(&mut self, count: usize) -> &mut [Line] {
        let len = self.len.checked_add(count).expect("lines fit into memory");
        if len > self.capacity {
            self.reserve(len.max(self.capacity.saturating_mul(2)));
        }
        // SAFETY: there is room for `len` lines, of which `self.len` are written.
        unsafe { self.start.add(self.len).write_bytes(0, count) };
        let first = replace(&mut self.len, len);
        &mut self[first..]
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: `len` lines are written, and belong to this value.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above; the reference is the only one.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: `reserve` allocated them so.
            unsafe { dealloc(self.start.as_ptr().cast(), layout(self.capacity)) }
        }
    }
}

fn layout(capacity: usize) -> Layout {
    let lines = Layout::array::<Line>(capacity).expect("lines fit into memory");
    let align = if lines.size() < HUGE { lines.align() } else { HUGE };
    lines.align_to(align).expect("lines fit into memory")
}

/// Asks for huge pages, of those that are whole: a part of one would take memory for nothing. What
/// is allocated again after other use may have small ones already, and keeps them.
#[cfg(target_os = "linux")]
fn advise(start: NonNull<Line>, layout: Layout) {
    let whole = layout.size() / HUGE * HUGE;
    if whole > 0 {
        // SAFETY: these pages are of the allocation, and only their size changes, not what they
        // hold. It is a wish: where the system knows no such pages, all stays as it is.
        unsafe { libc::madvise(start.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_: NonNull<Line>, _: Layout) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(lines: &mut [Line]) -> &mut [u8] {
        bytemuck::cast_slice_mut(lines)
    }

    #[test]
    fn lines_keep_what_they_hold_while_they_grow() {
        let mut lines = Lines::new();
        assert!(lines.is_empty() && lines.push(0).is_empty());
        for size in [1, 3, 40_000, 2, 90_000] {
            let first = lines.len();
            let added = bytes(lines.push(size));
            assert!(added.len() == size * 64 && added.iter().all(|&b| b == 0));
            added.fill(size as u8);
            assert_eq!(lines.len(), first + size);
        }
        let mut rest = bytes(&mut lines);
        for size in [1, 3, 40_000, 2, 90_000] {
            let (part, tail) = rest.split_at_mut(size * 64);
            assert!(part.iter().all(|&b| b == size as u8));
            rest = tail;
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn large_ones_begin_at_a_huge_page() {
        for (len, align) in [(1, 64), (HUGE / 64 - 1, 64), (HUGE / 64, HUGE), (HUGE / 20, HUGE)] {
            let lines = Lines::zeros(len);
            assert!(lines.as_ptr().addr().is_multiple_of(align), "{len} lines");
            assert_eq!(lines.len(), len);
        }
    }
}
