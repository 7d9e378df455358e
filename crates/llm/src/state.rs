//! The keys and values of the tokens so far.

use crate::graph::CacheTypes;
use crate::graph::decoder::Decoder;
use crate::graph::names;
use crate::runner::CHUNK;
use fewbit_core::{DType, Error, Result, Tensor};
use std::ops::Range;

/// Tokens that a new cache has room for.
const FIRST_CAPACITY: usize = 256;
/// Rows begin at positions that this divides: the lanes that sums are taken in.
const LANES: usize = 16;

/// Keys and values of all layers for several texts side by side. They move into a run and come
/// out of it with the new tokens written in place.
///
/// Layers that see a window keep its rows and room for a piece: where that is full, the window
/// moves to the front. A row never changes its lane, nor its place behind others, so sums over
/// rows have the bits that they would have over the whole text.
pub(crate) struct Cache {
    /// The group of each layer.
    layers: Vec<usize>,
    groups: Vec<Group>,
    /// Heads whose rows lie apart, each in one piece; `None` where those of a token lie side by side.
    heads: Option<usize>,
    /// Element type of keys and of values, and elements of it in a row.
    rows: [(DType, usize); 2],
    texts: usize,
    /// Keys and values of each layer, `[texts, heads, capacity, width]`, without heads where they
    /// lie side by side.
    tensors: Vec<Tensor>,
}

/// Layers whose rows are those of the same tokens.
struct Group {
    window: Option<usize>,
    capacity: usize,
    /// For each text, the position of its first row.
    first: Vec<usize>,
}

/// A text in the cache, before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where it lies now; `None` for one that will be [adopted](Cache::adopt).
    pub from: Option<usize>,
    /// Tokens that it has.
    pub tokens: usize,
}

/// What becomes of a group: its capacity, and the first position of each text.
struct Layout {
    capacity: usize,
    first: Vec<usize>,
}

impl Group {
    /// The first position that tokens from `tokens` on see, or a few before it.
    fn least(&self, tokens: usize) -> usize {
        self.window.map_or(0, |window| (tokens + 1).saturating_sub(window.max(1)) / LANES * LANES)
    }

    /// Rows that suffice for a window and `new` tokens, however long the text is.
    fn bound(&self, new: usize) -> usize {
        let Some(window) = self.window else { return usize::MAX };
        window.saturating_add(LANES + new.max(CHUNK)).checked_next_multiple_of(64).unwrap_or(window)
    }

    /// Room for `new` more tokens of each text; windows move only where nothing else makes room.
    fn layout(&self, new: usize, places: &[Option<Place>]) -> Result<Layout> {
        let mut first = Vec::with_capacity(places.len());
        for place in places {
            let at = |p: Place| match p.from {
                Some(text) => self.first.get(text).copied().unwrap_or(usize::MAX),
                None => self.least(p.tokens),
            };
            first.push(place.map_or(0, at));
        }
        let tokens = |place: &Option<Place>| place.map_or(0, |p| p.tokens);
        if places.iter().zip(&first).any(|(place, &first)| first > self.least(tokens(place))) {
            return Err(Error::internal("rows of the cache that are gone are wanted"));
        }
        let ends = || places.iter().map(|place| tokens(place) + new);
        let longest = ends().zip(&first).map(|(end, first)| end - first).max().unwrap_or(0);
        let mut capacity = self.capacity;
        if longest > capacity {
            let grown = longest.max(2 * capacity).max(FIRST_CAPACITY).next_multiple_of(64);
            capacity = grown.min(self.bound(new)).max(capacity);
        }
        for ((place, first), end) in places.iter().zip(&mut first).zip(ends()) {
            if end - *first > capacity {
                *first = self.least(tokens(place));
            }
        }
        Ok(Layout { capacity, first })
    }
}

impl Cache {
    /// An empty cache, which grows as it fills, for graphs of
    /// [`State::Windowed`](crate::graph::decoder::State) or else of `State::Cache`.
    ///
    /// # Errors
    /// When heads are no whole blocks of the type.
    pub fn new(decoder: &Decoder, types: CacheTypes, windowed: bool) -> Result<Cache> {
        types.check(decoder.heads)?;
        let heads = windowed.then_some(decoder.heads.keys);
        let width = decoder.cache_width() / heads.unwrap_or(1);
        let rows = [types.keys.stored(width)?, types.values.stored(width)?];
        let (mut layers, mut groups) = (Vec::new(), Vec::<Group>::new());
        for layer in &decoder.layers {
            let window = layer.window.filter(|_| windowed);
            let known = groups.iter().position(|group| group.window == window);
            layers.push(known.unwrap_or(groups.len()));
            if known.is_none() {
                groups.push(Group { window, capacity: 0, first: vec![0] });
            }
        }
        Ok(Cache { layers, groups, heads, rows, texts: 1, tensors: Vec::new() })
    }

    /// Makes room for `new` tokens of the one text, of which the first `kept` are there.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn reserve(&mut self, new: usize, kept: usize) -> Result<()> {
        let place = Place { from: Some(0), tokens: kept };
        self.reserve_texts(new, &[(kept > 0).then_some(place)])
    }

    /// Makes room for `new` more tokens of each text; free places have no tokens.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn reserve_texts(&mut self, new: usize, places: &[Option<Place>]) -> Result<()> {
        let complete = self.is_complete();
        let from = |place: &Option<Place>| place.and_then(|p| p.from);
        if !complete && places.iter().any(|place| from(place).is_some()) {
            return Err(lost());
        }
        let layouts = self.groups.iter().map(|group| group.layout(new, places));
        let layouts = layouts.collect::<Result<Vec<Layout>>>()?;
        let stay = places.len() == self.texts
            && places.iter().enumerate().all(|(new, place)| from(place).is_none_or(|f| f == new));
        let old = if complete { std::mem::take(&mut self.tensors) } else { Vec::new() };
        let mut old = old.into_iter();
        let mut tensors = Vec::with_capacity(2 * self.layers.len());
        for index in 0..2 * self.layers.len() {
            let group = self.layers[index / 2];
            let layout = &layouts[group];
            let same = stay && layout.capacity == self.groups[group].capacity;
            tensors.push(match old.next() {
                Some(tensor) if same => self.moved(index, tensor, layout, places),
                old => self.rebuilt(index, old, layout, places)?,
            });
        }
        self.tensors = tensors;
        for (group, Layout { capacity, first }) in self.groups.iter_mut().zip(layouts) {
            (group.capacity, group.first) = (capacity, first);
        }
        self.texts = places.len();
        Ok(())
    }

    /// A tensor with the windows that are full moved to the front.
    fn moved(
        &self,
        index: usize,
        mut tensor: Tensor,
        layout: &Layout,
        places: &[Option<Place>],
    ) -> Tensor {
        let (group, row) = (&self.groups[self.layers[index / 2]], self.row_bytes(index));
        let moves = places.iter().zip(&layout.first).zip(&group.first).enumerate();
        for (text, ((place, &first), &before)) in moves {
            let Some(Place { from: Some(_), tokens }) = *place else { continue };
            if first == before {
                continue;
            }
            for head in self.heads_of(text) {
                let head = head * layout.capacity;
                let (start, end) = (head + first - before, head + tokens - before);
                tensor.bytes_mut().copy_within(start * row..end * row, head * row);
            }
        }
        tensor
    }

    /// A tensor of another capacity or with other texts.
    fn rebuilt(
        &self,
        index: usize,
        old: Option<Tensor>,
        layout: &Layout,
        places: &[Option<Place>],
    ) -> Result<Tensor> {
        let (group, row) = (&self.groups[self.layers[index / 2]], self.row_bytes(index));
        let (dtype, width) = self.rows[index % 2];
        let mut shape = vec![places.len()];
        shape.extend(self.heads);
        shape.extend([layout.capacity, width]);
        let mut tensor = Tensor::zeros(dtype, shape)?;
        let Some(old) = old else { return Ok(tensor) };
        let bytes = tensor.bytes_mut();
        for (new, (place, &first)) in places.iter().zip(&layout.first).enumerate() {
            let Some(Place { from: Some(text), tokens }) = *place else { continue };
            let len = tokens.saturating_sub(first) * row;
            for (to, from) in self.heads_of(new).zip(self.heads_of(text)) {
                let from = (from * group.capacity + first - group.first[text]) * row;
                bytes[to * layout.capacity * row..][..len]
                    .copy_from_slice(&old.bytes()[from..][..len]);
            }
        }
        Ok(tensor)
    }

    /// Copies the first `tokens` tokens of the one text of `other` to place `text`, which was
    /// [reserved](Cache::reserve_texts) for it.
    ///
    /// # Errors
    /// When one of the two was lost in a run that failed.
    pub fn adopt(&mut self, text: usize, other: &Cache, tokens: usize) -> Result<()> {
        if !self.is_complete() || !other.is_complete() {
            return Err(lost());
        }
        for index in 0..self.tensors.len() {
            let row = self.row_bytes(index);
            let group = self.layers[index / 2];
            let (to, from) = (&self.groups[group], &other.groups[group]);
            let (first, before) = (to.first[text], from.first[0]);
            let rows = tokens.saturating_sub(first);
            if first < before || rows > to.capacity || tokens - before > from.capacity {
                return Err(Error::internal("a text that the cache has no room for"));
            }
            let (bytes, old) = (self.tensors[index].bytes_mut(), other.tensors[index].bytes());
            for (place, source) in heads_of(self.heads, text).zip(heads_of(self.heads, 0)) {
                let source = (source * from.capacity + first - before) * row;
                bytes[place * to.capacity * row..][..rows * row]
                    .copy_from_slice(&old[source..][..rows * row]);
            }
        }
        Ok(())
    }

    /// Whether the one text can be continued from its first `tokens` tokens: later ones may have
    /// pushed out what these see.
    pub fn holds(&self, tokens: usize) -> bool {
        self.groups.iter().all(|group| group.first[0] <= group.least(tokens))
    }

    /// Bytes that it takes now.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.bytes().len()).sum()
    }

    /// Takes the inputs of a run, with their names.
    pub fn take(&mut self) -> Vec<(String, Tensor)> {
        let tensors = std::mem::take(&mut self.tensors);
        let name = |index: usize| names::past(index / 2, ["key", "value"][index % 2]);
        let tensors = tensors.into_iter().enumerate().map(|(index, tensor)| (name(index), tensor));
        let first = self.groups.iter().filter_map(|group| {
            let first: Vec<i64> = group.first.iter().map(|&first| first as i64).collect();
            Some((names::first(group.window?), Tensor::vector(&first)))
        });
        tensors.chain(first).collect()
    }

    /// Takes the tensors back, in the order of [`take`](Cache::take).
    pub fn put_back(&mut self, tensors: impl Iterator<Item = Tensor>) {
        self.tensors = tensors.collect();
    }

    fn is_complete(&self) -> bool {
        self.tensors.len() == 2 * self.layers.len()
    }

    /// The numbers of the heads of a text, among those of all texts.
    fn heads_of(&self, text: usize) -> Range<usize> {
        heads_of(self.heads, text)
    }

    /// Bytes of a row in a tensor.
    fn row_bytes(&self, index: usize) -> usize {
        let (dtype, width) = self.rows[index % 2];
        width * dtype.size().unwrap_or(1)
    }
}

fn heads_of(heads: Option<usize>, text: usize) -> Range<usize> {
    let heads = heads.unwrap_or(1);
    text * heads..(text + 1) * heads
}

fn lost() -> Error {
    Error::internal("a cache was lost in a run that failed")
}
