//! Places in one piece of memory for values whose lives are known.

use crate::memory::best_fit;
use std::ops::Range;

/// Buffers begin at multiples of this: a cache line.
const ALIGN: usize = 64;

/// Buffers side by side. One whose value is dead takes the next that fits, as
/// [`Arena`](crate::memory::Arena) does, so that layers of a kind use the same ones in the same part.
#[derive(Default)]
pub(super) struct Room {
    buffers: Vec<Range<usize>>,
    free: Vec<usize>,
}

impl Room {
    /// The number of a buffer for a value of `len` bytes; `None` where no memory is so large.
    pub fn take(&mut self, len: usize) -> Option<usize> {
        let free = self.free.iter().map(|&buffer| (self.buffers[buffer].len(), buffer));
        if let Some(index) = best_fit(free, len, 0) {
            return Some(self.free.swap_remove(index));
        }
        let start = self.len().checked_next_multiple_of(ALIGN)?;
        self.buffers.push(start..start.checked_add(len)?);
        Some(self.buffers.len() - 1)
    }

    /// Takes a buffer back whose value is dead.
    pub fn give(&mut self, buffer: usize) {
        self.free.push(buffer);
    }

    /// Number of buffers.
    pub fn count(&self) -> usize {
        self.buffers.len()
    }

    /// Bytes of all buffers.
    pub fn len(&self) -> usize {
        self.buffers.last().map_or(0, |last| last.end)
    }

    /// The buffers in memory of [`Room::len`] bytes.
    pub fn split<'a>(&self, mut memory: &'a mut [u8]) -> Vec<&'a mut [u8]> {
        let mut start = 0;
        let buffer = |range: &Range<usize>| {
            let rest = std::mem::take(&mut memory).split_at_mut(range.start - start).1;
            let (buffer, rest) = rest.split_at_mut(range.len());
            (memory, start) = (rest, range.end);
            buffer
        };
        self.buffers.iter().map(buffer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_buffers_are_used_again_by_values_of_their_size() {
        let mut room = Room::default();
        let [large, small] = [1000, 100].map(|len| room.take(len).unwrap());
        room.give(large);
        room.give(small);
        // The smallest that fits, but none that is far too large.
        let taken = [90, 90, 400].map(|len| room.take(len).unwrap());
        assert_eq!(taken, [small, 2, large]);
        assert_eq!(room.take(usize::MAX - 64), None);
        let mut memory = vec![0; room.len()];
        let buffers = room.split(&mut memory);
        assert_eq!(buffers.iter().map(|b| b.len()).collect::<Vec<_>>(), [1000, 100, 90]);
        assert_eq!(buffers[1].as_ptr() as usize - buffers[0].as_ptr() as usize, 1024);
    }
}
