//! Places in one piece of memory for values whose lives are known.

use crate::memory::best_fit;
use std::ops::Range;

/// Buffers begin at multiples of this: a cache line.
const ALIGN: usize = 64;

/// Buffers side by side. One whose value is dead takes the next that fits, as
/// [`Arena`](crate::memory::Arena) does, so that layers of a kind use the same ones in the same part.
/// Threads are to write what they have written before
/// ([`start_in_buffer`](fewbit_kernels::conv::start_in_buffer)): values in planes share buffers
/// with their like alone.
#[derive(Default)]
pub(super) struct Room {
    buffers: Vec<Buffer>,
    free: Vec<usize>,
}

struct Buffer {
    place: Range<usize>,
    /// Whether it is for values in planes.
    planes: bool,
}

impl Room {
    /// The number of a buffer for a value of `len` bytes, in planes or not; `None` where no memory
    /// is so large.
    pub fn take(&mut self, len: usize, planes: bool) -> Option<usize> {
        let room = |&index: &usize| match &self.buffers[index] {
            buffer if buffer.planes == planes => (buffer.place.len(), index),
            _ => (0, index),
        };
        if let Some(index) = best_fit(self.free.iter().map(room), len, 0) {
            return Some(self.free.swap_remove(index));
        }
        let start = self.len().checked_next_multiple_of(ALIGN)?;
        self.buffers.push(Buffer { place: start..start.checked_add(len)?, planes });
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
        self.buffers.last().map_or(0, |last| last.place.end)
    }

    /// The buffers in memory of [`Room::len`] bytes.
    pub fn split<'a>(&self, mut memory: &'a mut [u8]) -> Vec<&'a mut [u8]> {
        let mut start = 0;
        let buffer = |Buffer { place: range, .. }: &Buffer| {
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
        let [large, small] = [1000, 100].map(|len| room.take(len, false).unwrap());
        room.give(large);
        room.give(small);
        // The smallest that fits, but none that is far too large.
        let taken = [90, 90, 400].map(|len| room.take(len, false).unwrap());
        assert_eq!(taken, [small, 2, large]);
        assert_eq!(room.take(usize::MAX - 64, false), None);
        let mut memory = vec![0; room.len()];
        let buffers = room.split(&mut memory);
        assert_eq!(buffers.iter().map(|b| b.len()).collect::<Vec<_>>(), [1000, 100, 90]);
        assert_eq!(buffers[1].as_ptr() as usize - buffers[0].as_ptr() as usize, 1024);
    }

    #[test]
    fn values_in_planes_share_buffers_with_their_like() {
        let mut room = Room::default();
        let mut take = |len, planes| {
            let buffer = room.take(len, planes).unwrap();
            room.give(buffer);
            buffer
        };
        assert_eq!([take(1000, true), take(1000, false)], [0, 1]);
        assert_eq!([take(900, true), take(900, false)], [0, 1]);
    }
}
