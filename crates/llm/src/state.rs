//! The keys and values of the tokens so far.

use crate::graph::decoder::Decoder;
use crate::graph::names;
use fewbit_core::{DType, Error, Result, Tensor};

/// Tokens that a new cache has room for.
const FIRST_CAPACITY: usize = 256;

/// Keys and values of all layers, `f32[1, capacity, width]` each. They move into a run and come
/// out of it with the new tokens written in place.
pub(crate) struct Cache {
    layers: usize,
    width: usize,
    capacity: usize,
    tensors: Vec<Tensor>,
}

impl Cache {
    /// An empty cache, which grows as it fills.
    pub fn new(decoder: &Decoder) -> Cache {
        let (layers, width) = (decoder.layers.len(), decoder.cache_width());
        Cache { layers, width, capacity: 0, tensors: Vec::new() }
    }

    /// Makes room for `tokens` tokens, of which the first `kept` are there.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn reserve(&mut self, tokens: usize, kept: usize) -> Result<()> {
        let complete = self.tensors.len() == 2 * self.layers;
        if complete && tokens <= self.capacity {
            return Ok(());
        }
        if !complete && kept > 0 {
            return Err(Error::internal("a cache was lost in a run that failed"));
        }
        let capacity = tokens.max(2 * self.capacity).max(FIRST_CAPACITY).next_multiple_of(64);
        let old = std::mem::take(&mut self.tensors);
        let bytes = kept * self.width * size_of::<f32>();
        for index in 0..2 * self.layers {
            let mut tensor = Tensor::zeros(DType::F32, vec![1, capacity, self.width])?;
            if let Some(old) = old.get(index) {
                tensor.bytes_mut()[..bytes].copy_from_slice(&old.bytes()[..bytes]);
            }
            self.tensors.push(tensor);
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Takes the tensors as inputs of a run, with their names.
    pub fn take(&mut self) -> Vec<(String, Tensor)> {
        let tensors = std::mem::take(&mut self.tensors);
        let name = |index: usize| names::past(index / 2, ["key", "value"][index % 2]);
        tensors.into_iter().enumerate().map(|(index, tensor)| (name(index), tensor)).collect()
    }

    /// Takes the tensors back, in the order of [`take`](Cache::take).
    pub fn put_back(&mut self, tensors: impl Iterator<Item = Tensor>) {
        self.tensors = tensors.collect();
    }
}
