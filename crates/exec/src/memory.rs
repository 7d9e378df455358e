//! Buffers of activations, recycled as soon as their last reader is done.

use fewbit_core::{
    AlignedBytes, DType, Error, Result, SharedBytes, Tensor, UniqueBytes, element_count,
};
use std::sync::{Mutex, MutexGuard};

/// A pool of free buffers. A session gives every dead activation back, so that its peak is
/// what is alive at once, not the sum of all layers.
///
/// Buffers also come in that were made elsewhere (inputs of the caller, results of operators that
/// allocate themselves), and sizes change from run to run. So a buffer that nobody has wanted
/// for a while is freed: what the pool holds does not grow with the number of runs.
#[derive(Default)]
pub struct Arena {
    free: Mutex<Free>,
    limit: Option<usize>,
}

/// Free buffers, the one recycled last at the end.
#[derive(Default)]
struct Free {
    buffers: Vec<(UniqueBytes, u64)>,
    /// Tensors handed out so far; the second part of a buffer is this number when it came back.
    clock: u64,
    patience: u64,
}

/// A buffer waits for at least this many tensors.
const LEAST_PATIENCE: u64 = 64;

impl Arena {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pool that refuses tensors of more than `bytes` bytes.
    pub fn with_limit(bytes: usize) -> Self {
        Arena { limit: Some(bytes), ..Self::default() }
    }

    /// An empty pool for programs of `steps` steps: a buffer that is not wanted for two runs goes.
    pub fn for_program(steps: usize) -> Self {
        let free = Free { patience: 2 * steps as u64, ..Free::default() };
        Arena { free: Mutex::new(free), limit: None }
    }

    /// Bytes of all free buffers.
    pub fn bytes(&self) -> usize {
        self.lock().buffers.iter().map(|(bytes, _)| bytes.capacity()).sum()
    }

    /// A tensor of unspecified content: the smallest free buffer that fits, or a new one.
    ///
    /// # Errors
    /// When the size overflows or exceeds the limit for one tensor.
    pub fn tensor(&self, dtype: DType, shape: Vec<usize>) -> Result<Tensor> {
        let Some(len) = element_count(&shape).and_then(|n| dtype.bytes_for(n)) else {
            return Err(Error::bad_input(format!(
                "a {dtype} tensor of shape {shape:?} has no representable size"
            )));
        };
        if self.limit.is_some_and(|limit| len > limit) {
            return Err(Error::resource(format!("a tensor of {len} bytes is over the limit here")));
        }
        let reused = self.lock().take(len);
        let bytes = match reused {
            Some(mut bytes) => {
                bytes.reuse(len);
                SharedBytes::from(bytes)
            }
            None => AlignedBytes::try_zeroed(len)?.into(),
        };
        Tensor::from_bytes(dtype, shape, bytes)
    }

    /// Takes back the buffer of a dead tensor, if nobody else holds it.
    pub fn recycle(&self, tensor: Tensor) {
        let Some(bytes) = tensor.into_unique_bytes() else { return };
        let unwanted = self.lock().give(bytes);
        // Freed here, after the lock is gone.
        drop(unwanted);
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Free {
    /// The smallest buffer that fits; among equals the first one in memory, so that the others age,
    /// and that layers of a kind use the same ones for the same things: what threads have in their
    /// caches depends on who read and wrote a buffer before.
    fn take(&mut self, len: usize) -> Option<UniqueBytes> {
        self.clock += 1;
        let free = self.buffers.iter().map(|(bytes, _)| (bytes.capacity(), bytes.address()));
        let index = best_fit(free, len, 1 << 16)?;
        Some(self.buffers.remove(index).0)
    }

    /// Keeps a buffer; returns those that have waited for too long.
    fn give(&mut self, bytes: UniqueBytes) -> Vec<(UniqueBytes, u64)> {
        let patience = self.patience.max(LEAST_PATIENCE);
        let oldest = self.clock.saturating_sub(patience);
        let unwanted = self.buffers.iter().take_while(|(_, since)| *since < oldest).count();
        self.buffers.push((bytes, self.clock));
        self.buffers.drain(..unwanted).collect()
    }
}

/// Of buffers given by size and place, the smallest that `len` bytes fit in, the first in memory
/// among equals. One of more than `small` bytes that is many times too large is left alone: it would
/// be missing where a big value comes.
pub(crate) fn best_fit(
    free: impl Iterator<Item = (usize, usize)>,
    len: usize,
    small: usize,
) -> Option<usize> {
    let suits = len..=len.saturating_mul(4).max(small);
    let fits = free.enumerate().filter(|(_, (size, _))| suits.contains(size));
    fits.min_by_key(|(_, buffer)| *buffer).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_buffer_is_used_again() {
        let arena = Arena::new();
        let first = arena.tensor(DType::F32, vec![1000]).unwrap();
        let address = first.bytes().as_ptr();
        arena.recycle(first);
        let second = arena.tensor(DType::U8, vec![3000]).unwrap();
        assert_eq!(second.bytes().as_ptr(), address);
        assert_eq!(second.len(), 3000);
    }

    #[test]
    fn the_first_of_equal_buffers_is_taken_whenever_it_came_back() {
        let arena = Arena::new();
        let mut both = [0, 1].map(|_| arena.tensor(DType::U8, vec![5000]).unwrap());
        both.sort_by_key(|tensor| tensor.bytes().as_ptr());
        let first = both[0].bytes().as_ptr();
        for first_to_leave in [0, 1] {
            let [a, b] = both;
            let order = if first_to_leave == 0 { [a, b] } else { [b, a] };
            order.into_iter().for_each(|tensor| arena.recycle(tensor));
            both = [0, 1].map(|_| arena.tensor(DType::U8, vec![5000]).unwrap());
            assert_eq!(both[0].bytes().as_ptr(), first);
        }
    }

    #[test]
    fn shared_buffers_are_left_alone() {
        let arena = Arena::new();
        let first = arena.tensor(DType::F32, vec![16]).unwrap();
        let alias = first.clone();
        arena.recycle(first);
        let second = arena.tensor(DType::F32, vec![16]).unwrap();
        assert_ne!(second.bytes().as_ptr(), alias.bytes().as_ptr());
    }

    #[test]
    fn foreign_buffers_do_not_pile_up() {
        let arena = Arena::for_program(2);
        for _ in 0..10_000 {
            arena.recycle(Tensor::zeros(DType::F32, vec![1000]).unwrap());
            arena.recycle(arena.tensor(DType::F32, vec![100_000]).unwrap());
        }
        assert!(arena.bytes() <= 400_064 + 4032 * (LEAST_PATIENCE as usize + 2));
    }

    #[test]
    fn a_size_that_is_not_wanted_any_more_goes() {
        let arena = Arena::new();
        arena.recycle(arena.tensor(DType::F32, vec![1 << 20]).unwrap());
        for _ in 0..=2 * LEAST_PATIENCE {
            arena.recycle(arena.tensor(DType::U8, vec![64]).unwrap());
        }
        assert_eq!(arena.bytes(), 64);
    }
}
