//! Memory for packed weights: cut one behind the other from huge pages, where the system has them.
//! So it is touched with few faults when weights are packed, and read with few misses of the TLB.

mod open;
mod region;

use std::mem::replace;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use crate::scratch::Line;
use region::Region;

/// Lines one behind the other, as a vector holds them.
pub(crate) struct Lines {
    /// `None` where the capacity is 0.
    region: Option<Arc<Region>>,
    start: NonNull<Line>,
    len: usize,
    capacity: usize,
    /// Lines from here on are zero: nobody has written them.
    clean: usize,
}

// SAFETY: the lines belong to this value alone, and are plain bytes.
unsafe impl Send for Lines {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for Lines {}

impl Lines {
    /// No lines.
    pub(crate) fn new() -> Lines {
        Lines { region: None, start: NonNull::dangling(), len: 0, capacity: 0, clean: 0 }
    }

    /// `len` lines of zeros.
    pub(crate) fn zeros(len: usize) -> Lines {
        let mut lines = Lines::new();
        lines.push(len);
        lines
    }

    /// Makes room for `capacity` lines in all.
    pub(crate) fn reserve(&mut self, capacity: usize) {
        if capacity > self.capacity {
            let mut room = open::cut(capacity);
            room.push(self.len).copy_from_slice(self);
            *self = room;
        }
    }

    /// Adds `count` lines of zeros.
    pub(crate) fn push(&mut self, count: usize) -> &mut [Line] {
        let len = self.len.checked_add(count).expect("lines fit into memory");
        if len > self.capacity {
            self.reserve(len.max(self.capacity.saturating_mul(2)));
        }
        let written = self.clean.clamp(self.len, len) - self.len;
        // SAFETY: there is room for `len` lines, of which `self.len` are in use.
        unsafe { self.start.add(self.len).write_bytes(0, written) };
        self.clean = self.clean.max(len);
        let first = replace(&mut self.len, len);
        &mut self[first..]
    }

    /// Gives back what was reserved and is not used, where others can have it.
    #[cfg(any(target_arch = "x86_64", test))]
    pub(crate) fn fit(&mut self) {
        if open::give_back(self, self.len) {
            self.capacity = self.len;
        }
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
        open::give_back(self, 0);
    }
}

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
        for len in [open::SHARED, open::SHARED + 1] {
            let mut lines = Lines::new();
            lines.reserve(len);
            lines.push(3);
            assert!(lines.as_ptr().addr().is_multiple_of(region::HUGE), "{len} lines");
        }
    }

    #[test]
    fn what_was_cut_last_is_used_again_and_zero_again() {
        let kept = Lines::zeros(10);
        let first = {
            let mut lines = Lines::zeros(20);
            bytes(&mut lines).fill(1);
            lines.as_ptr()
        };
        let mut again = Lines::new();
        again.reserve(50);
        assert!(bytes(again.push(5)).iter().all(|&b| b == 0));
        bytes(&mut again).fill(2);
        again.fit();
        let mut next = Lines::zeros(30);
        assert_eq!((again.as_ptr(), next.as_ptr()), (first, first.wrapping_add(5)));
        assert!(bytes(&mut next).iter().all(|&b| b == 0));
        // Not the last: nobody gets what may lie before others.
        drop(again);
        assert_eq!(Lines::zeros(3).as_ptr(), first.wrapping_add(35));
        assert_eq!(first, kept.as_ptr().wrapping_add(10));
    }

    #[test]
    fn memory_without_lines_is_used_anew() {
        let (mut first, second) = (Lines::zeros(5000), Lines::zeros(10));
        bytes(&mut first).fill(1);
        let start = first.as_ptr();
        drop(first);
        drop(second);
        let mut third = Lines::zeros(5000);
        assert_eq!(third.as_ptr(), start);
        assert!(bytes(&mut third).iter().all(|&b| b == 0));
    }

    #[test]
    fn much_that_is_given_back_is_zero_again() {
        let _first_region = Lines::zeros(8000);
        for size in [100_000, 150_000, 70_001] {
            let mut lines = Lines::zeros(size);
            assert!(bytes(&mut lines).iter().all(|&b| b == 0), "{size} lines");
            bytes(&mut lines).fill(1);
        }
    }

    #[test]
    fn lines_outlive_their_thread_and_may_be_dropped_by_another() {
        let worker = std::thread::spawn(|| {
            let mut all: Vec<Lines> = (0..300).map(|_| Lines::zeros(1000)).collect();
            for (i, lines) in all.iter_mut().enumerate() {
                bytes(lines).fill(i as u8);
            }
            all
        });
        let mut all = worker.join().expect("lines are cut");
        for (i, lines) in all.iter_mut().enumerate() {
            assert!(bytes(lines).iter().all(|&b| b == i as u8), "{i}");
        }
        let here = Lines::zeros(1000);
        drop(all);
        assert!(bytes(&mut Lines::zeros(1000)).iter().all(|&b| b == 0));
        assert_eq!(here.len(), 1000);
    }
}
