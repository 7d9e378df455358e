//! The keys and values of the tokens so far.

use crate::graph::CacheTypes;
use crate::graph::decoder::Decoder;
use crate::graph::names;
use fewbit_core::{DType, Error, Result, Tensor};

/// Tokens that a new cache has room for.
const FIRST_CAPACITY: usize = 256;

/// Keys and values of all layers for several texts side by side, `[texts, capacity, width]` each.
/// They move into a run and come out of it with the new tokens written in place.
pub(crate) struct Cache {
    layers: usize,
    /// Element type of keys and of values, and elements of it for each token.
    rows: [(DType, usize); 2],
    texts: usize,
    capacity: usize,
    tensors: Vec<Tensor>,
}

impl Cache {
    /// An empty cache, which grows as it fills.
    ///
    /// # Errors
    /// When heads are no whole blocks of the type.
    pub fn new(decoder: &Decoder, types: CacheTypes) -> Result<Cache> {
        types.check(decoder.heads)?;
        let width = decoder.cache_width();
        let rows = [types.keys.stored(width)?, types.values.stored(width)?];
        let layers = decoder.layers.len();
        Ok(Cache { layers, rows, texts: 1, capacity: 0, tensors: Vec::new() })
    }

    /// Makes room for `tokens` tokens, of which the first `kept` are there.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn reserve(&mut self, tokens: usize, kept: usize) -> Result<()> {
        self.reserve_texts(tokens, &[(kept > 0).then_some((0, kept))])
    }

    /// Makes room for one text for each of `places`, of `tokens` tokens each: where it lies now and
    /// how many of its tokens are there, if it is there at all.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn reserve_texts(
        &mut self,
        tokens: usize,
        places: &[Option<(usize, usize)>],
    ) -> Result<()> {
        let complete = self.tensors.len() == 2 * self.layers;
        let stay = places.iter().enumerate().all(|(new, place)| match place {
            Some((old, _)) => *old == new,
            None => true,
        });
        if complete && stay && tokens <= self.capacity && places.len() == self.texts {
            return Ok(());
        }
        if !complete && places.iter().any(Option::is_some) {
            return Err(Error::internal("a cache was lost in a run that failed"));
        }
        let capacity = match tokens <= self.capacity {
            true => self.capacity,
            false => tokens.max(2 * self.capacity).max(FIRST_CAPACITY).next_multiple_of(64),
        };
        let old = std::mem::take(&mut self.tensors);
        for index in 0..2 * self.layers {
            let (dtype, width) = self.rows[index % 2];
            let mut tensor = Tensor::zeros(dtype, vec![places.len(), capacity, width])?;
            if let Some(old) = old.get(index) {
                let row = width * dtype.size().unwrap_or(1);
                let (from, to) = (self.capacity * row, capacity * row);
                let bytes = tensor.bytes_mut();
                for (new, place) in places.iter().enumerate() {
                    let Some((place, kept)) = *place else { continue };
                    let kept = kept.min(self.capacity) * row;
                    bytes[new * to..][..kept].copy_from_slice(&old.bytes()[place * from..][..kept]);
                }
            }
            self.tensors.push(tensor);
        }
        (self.capacity, self.texts) = (capacity, places.len());
        Ok(())
    }

    /// Copies the first `tokens` tokens of the one text of `other` to place `text`.
    ///
    /// # Errors
    /// When one of the two was lost in a run that failed.
    pub fn adopt(&mut self, text: usize, other: &Cache, tokens: usize) -> Result<()> {
        let complete = |cache: &Cache| cache.tensors.len() == 2 * cache.layers;
        if !complete(self) || !complete(other) || tokens > self.capacity.min(other.capacity) {
            return Err(Error::internal("a cache was lost in a run that failed"));
        }
        for (index, (to, from)) in self.tensors.iter_mut().zip(&other.tensors).enumerate() {
            let (dtype, width) = self.rows[index % 2];
            let row = width * dtype.size().unwrap_or(1);
            to.bytes_mut()[text * self.capacity * row..][..tokens * row]
                .copy_from_slice(&from.bytes()[..tokens * row]);
        }
        Ok(())
    }

    /// Bytes that it takes now.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.bytes().len()).sum()
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
