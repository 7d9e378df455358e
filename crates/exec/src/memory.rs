//! Buffers of activations, recycled as soon as their last reader is done.

use fewbit_core::{AlignedBytes, DType, Error, Result, Tensor, element_count};
use std::sync::Mutex;

/// A pool of free buffers. A session gives every dead activation back, so that its peak is
/// what is alive at once, not the sum of all layers.
#[derive(Default)]
pub struct Arena {
    free: Mutex<Vec<AlignedBytes>>,
    limit: Option<usize>,
}

impl Arena {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pool that refuses tensors of more than `bytes` bytes.
    pub fn with_limit(bytes: usize) -> Self {
        Arena { limit: Some(bytes), ..Self::default() }
    }

    /// Bytes of all free buffers.
    pub fn bytes(&self) -> usize {
        let free = self.free.lock().unwrap_or_else(|e| e.into_inner());
        free.iter().map(AlignedBytes::capacity).sum()
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
        let bytes = match self.best_fit(len) {
            Some(mut bytes) => {
                bytes.resize(len);
                bytes
            }
            None => AlignedBytes::try_zeroed(len)?,
        };
        Tensor::from_bytes(dtype, shape, bytes.into())
    }

    /// Takes back the buffer of a dead tensor, if nobody else holds it.
    pub fn recycle(&self, tensor: Tensor) {
        if let Some(bytes) = tensor.into_unique_bytes() {
            self.free.lock().unwrap_or_else(|e| e.into_inner()).push(bytes);
        }
    }

    fn best_fit(&self, len: usize) -> Option<AlignedBytes> {
        let mut free = self.free.lock().unwrap_or_else(|e| e.into_inner());
        let fits = free.iter().enumerate().filter(|(_, b)| b.capacity() >= len);
        // A buffer many times too large would keep big layers from reusing it.
        let (index, best) = fits.min_by_key(|(_, b)| b.capacity())?;
        (best.capacity() <= len.saturating_mul(4).max(1 << 16)).then(|| free.swap_remove(index))
    }
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
    fn shared_buffers_are_left_alone() {
        let arena = Arena::new();
        let first = arena.tensor(DType::F32, vec![16]).unwrap();
        let alias = first.clone();
        arena.recycle(first);
        let second = arena.tensor(DType::F32, vec![16]).unwrap();
        assert_ne!(second.bytes().as_ptr(), alias.bytes().as_ptr());
    }
}
