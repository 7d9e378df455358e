//! The cache of keys and values in a graph: what goes into it, and what comes out.

use super::attention::{HeadShape, Projected};
use super::builder::{Builder, Size, dims};
use super::decoder::Decoder;
use super::names;
use fewbit_core::codec::block::BlockType;
use fewbit_core::{Attr, DType, Error, Node, Result, Tensor, ValueId};

/// What keys or values are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// As they are computed.
    #[default]
    F32,
    /// Half the memory.
    F16,
    /// Blocks of 8 bits, 27% of the memory.
    Q8_0,
    /// Blocks of 4 bits, 14% of the memory. Each head is rotated first, by a Hadamard matrix, so
    /// that no element stands out of its block (Ashkboos et al. 2024, QuaRot).
    Q4_0,
}

impl CacheType {
    /// All types, from large to small.
    pub const ALL: [CacheType; 4] =
        [CacheType::F32, CacheType::F16, CacheType::Q8_0, CacheType::Q4_0];

    /// The name that llama.cpp gives it.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Q8_0 => "q8_0",
            CacheType::Q4_0 => "q4_0",
        }
    }

    fn block(self) -> Option<BlockType> {
        match self {
            CacheType::F32 | CacheType::F16 => None,
            CacheType::Q8_0 => Some(BlockType::Q8_0),
            CacheType::Q4_0 => Some(BlockType::Q4_0),
        }
    }

    fn is_rotated(self) -> bool {
        self == CacheType::Q4_0
    }

    /// Element type, and elements of it for `width` numbers.
    pub(crate) fn stored(self, width: usize) -> Result<(DType, usize)> {
        match self.block() {
            Some(block) => Ok((DType::U8, block.row_bytes(width)?)),
            None if self == CacheType::F16 => Ok((DType::F16, width)),
            None => Ok((DType::F32, width)),
        }
    }
}

/// What a cache is kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheTypes {
    /// Keys.
    pub keys: CacheType,
    /// Values.
    pub values: CacheType,
}

impl CacheTypes {
    /// Keys and values alike.
    pub fn both(ty: CacheType) -> CacheTypes {
        CacheTypes { keys: ty, values: ty }
    }

    pub(crate) fn each(self) -> [(&'static str, CacheType); 2] {
        [("key", self.keys), ("value", self.values)]
    }

    /// Checks that blocks fit the heads.
    ///
    /// # Errors
    /// When a head is no whole number of blocks.
    pub(crate) fn check(self, heads: HeadShape) -> Result<()> {
        for (_, ty) in self.each() {
            let block = ty.block().map_or(1, BlockType::elements);
            if !heads.size.is_multiple_of(block) {
                let (name, size) = (ty.name(), heads.size);
                let what = format!("a cache in {name} takes blocks of {block}, heads have {size}");
                return Err(Error::unsupported(what).code("FB-4719").hint("f16 fits any head"));
            }
        }
        Ok(())
    }
}

/// Keys and values of earlier tokens.
pub(super) struct Cache {
    types: CacheTypes,
    heads: HeadShape,
    /// Whether the rows of a head lie in one piece: `[batch, heads, rows, size]`. One token reads
    /// them from front to back then, as the memory is fastest.
    apart: bool,
    /// One for all layers that see everything, and one for each window where such layers keep
    /// their window alone.
    groups: Vec<Group>,
}

/// Layers whose caches have rows for the same tokens.
#[derive(Clone, Copy)]
pub(super) struct Group {
    window: Option<usize>,
    /// Keys of one of the layers before the run.
    pub keys: ValueId,
    /// Position of the first row, `[batch]`, where it is not 0.
    pub first: Option<ValueId>,
    /// The row of the first new token, `[batch]`.
    start: ValueId,
    /// Number of rows after the run, `[batch]`.
    pub valid: ValueId,
}

impl Cache {
    /// `windowed` says whether layers with a window keep it alone, and heads lie apart.
    pub fn new(
        b: &mut Builder,
        decoder: &Decoder,
        types: CacheTypes,
        positions: ValueId,
        windowed: bool,
    ) -> Result<Cache> {
        types.check(decoder.heads)?;
        let ends = Ends::new(b, positions)?;
        let (heads, apart) = (decoder.heads, windowed);
        let mut cache = Cache { types, heads, apart, groups: Vec::new() };
        for (index, layer) in decoder.layers.iter().enumerate() {
            let window = layer.window.filter(|_| windowed);
            let rows = window.map_or(Size::Named(dims::CACHE), Size::Window);
            let [keys, _] = cache.inputs(b, index, rows)?;
            if !cache.groups.iter().any(|group| group.window == window) {
                cache.groups.push(ends.group(b, window, keys)?);
            }
        }
        Ok(cache)
    }

    /// Keys and values of a layer before the run.
    fn inputs(&self, b: &mut Builder, layer: usize, rows: Size) -> Result<[ValueId; 2]> {
        let HeadShape { keys, size, .. } = self.heads;
        let mut input = |what: &str, ty: CacheType| -> Result<ValueId> {
            let name = names::past(layer, what);
            let batch = Size::Named(dims::BATCH);
            if self.apart {
                let (dtype, width) = ty.stored(size)?;
                return b.input(
                    &name,
                    dtype,
                    &[batch, Size::Fixed(keys), rows, Size::Fixed(width)],
                );
            }
            let (dtype, width) = ty.stored(keys * size)?;
            b.input(&name, dtype, &[batch, rows, Size::Fixed(width)])
        };
        Ok([input("key", self.types.keys)?, input("value", self.types.values)?])
    }

    /// The group of layers that see this window.
    ///
    /// # Errors
    /// Never for layers of the decoder.
    pub fn group(&self, window: Option<usize>) -> Result<Group> {
        let found = self.groups.iter().find(|group| group.window == window);
        let found = found.or(self.groups.iter().find(|group| group.window.is_none()));
        found.copied().ok_or_else(|| Error::internal("a layer without a cache"))
    }

    /// Writes the new keys and values; gives all of them, with the queries that belong to them.
    pub fn write(
        &self,
        b: &mut Builder,
        prefix: &str,
        (layer, window): (usize, Option<usize>),
        p: Projected,
    ) -> Result<Projected> {
        let Projected { mut q, mut k, mut v } = p;
        let start = self.group(window)?.start;
        let HeadShape { queries, keys, size } = self.heads;
        // A rotation of both changes no product.
        if self.types.keys.is_rotated() {
            q = rotate(b, &format!("{prefix}.attn_q_rotated"), q, [queries, size])?;
            k = rotate(b, &format!("{prefix}.attn_k_rotated"), k, [keys, size])?;
        }
        if self.types.values.is_rotated() {
            v = rotate(b, &format!("{prefix}.attn_v_rotated"), v, [keys, size])?;
        }
        let k = self.scatter(b, (layer, "key"), self.types.keys, [k, start])?;
        let v = self.scatter(b, (layer, "value"), self.types.values, [v, start])?;
        Ok(Projected { q, k, v })
    }

    /// The cache with new rows written in from row `start` on, as numbers.
    fn scatter(
        &self,
        b: &mut Builder,
        (layer, what): (usize, &str),
        ty: CacheType,
        [new, start]: [ValueId; 2],
    ) -> Result<ValueId> {
        let past = b.graph.value_named_or_new(&names::past(layer, what))?;
        let present = names::present(layer, what);
        let name = format!("{present}.new");
        let mut new = new;
        if self.apart {
            let shape = [0, 0, self.heads.keys as i64, self.heads.size as i64];
            new = b.reshape(&format!("{name}.heads"), new, &shape)?;
        }
        new = match ty.block() {
            Some(block) => b.blocks("QuantizeBlocks", &name, new, block)?,
            None if ty == CacheType::F16 => b.cast(&name, new, DType::F16)?,
            None => new,
        };
        if self.apart {
            let turn = Node::new("Transpose", format!("{name}.apart"), &[new], &[]);
            new = b.op(turn.with("perm", Attr::Ints(vec![0, 2, 1, 3])))?;
        }
        let numbers = format!("{present}.f32");
        let node = Node::new("TensorScatter", present, &[past, new, start], &[]);
        let all = b.op(node.with("axis", Attr::Int(-2)))?;
        match ty.block() {
            Some(block) => b.blocks("DequantizeBlocks", &numbers, all, block),
            None if ty == CacheType::F16 => b.cast(&numbers, all, DType::F32),
            None => Ok(all),
        }
    }

    /// What the attention gives, in the directions that values had before they were rotated.
    pub fn turn_back(&self, b: &mut Builder, prefix: &str, y: ValueId) -> Result<ValueId> {
        if !self.types.values.is_rotated() {
            return Ok(y);
        }
        let HeadShape { queries, size, .. } = self.heads;
        rotate(b, &format!("{prefix}.attention_back"), y, [queries, size])
    }
}

/// Positions of the first and of the last new token, `[batch]`.
struct Ends {
    first: ValueId,
    last: ValueId,
}

impl Ends {
    fn new(b: &mut Builder, positions: ValueId) -> Result<Ends> {
        let mut at = |name: &str, index: i64| -> Result<ValueId> {
            let index =
                b.constant(&format!("{name}.index"), || Tensor::from_slice(vec![], &[index]))?;
            let node = Node::new("Gather", name, &[positions, index], &[]);
            b.op(node.with("axis", Attr::Int(1)))
        };
        Ok(Ends { first: at("cache.start", 0)?, last: at("cache.last", -1)? })
    }

    /// What layers with this window share.
    fn group(&self, b: &mut Builder, window: Option<usize>, keys: ValueId) -> Result<Group> {
        let one = b.integers("cache.one", &[1])?;
        let Some(length) = window else {
            let valid = b.simple("Add", "cache.valid".to_string(), &[self.last, one])?;
            return Ok(Group { window, keys, first: None, start: self.first, valid });
        };
        let name = |part: &str| format!("cache.{part}.{length}");
        let first = b.input(&names::first(length), DType::I64, &[Size::Named(dims::BATCH)])?;
        let start = b.simple("Sub", name("start"), &[self.first, first])?;
        let last = b.simple("Sub", name("last"), &[self.last, first])?;
        let valid = b.simple("Add", name("valid"), &[last, one])?;
        Ok(Group { window, keys, first: Some(first), start, valid })
    }
}

/// Multiplies each head with a symmetric orthogonal matrix, which is its own inverse.
fn rotate(b: &mut Builder, name: &str, x: ValueId, [heads, size]: [usize; 2]) -> Result<ValueId> {
    let matrix = b.constant(&format!("cache.rotation.{size}"), || {
        Tensor::from_slice(vec![size, size], &hadamard(size))
    })?;
    let apart = b.reshape(&format!("{name}.heads"), x, &[0, 0, heads as i64, size as i64])?;
    let turned = b.simple("MatMul", name.to_string(), &[apart, matrix])?;
    b.reshape(&format!("{name}.joined"), turned, &[0, 0, (heads * size) as i64])
}

/// Hadamard matrices of the largest power of two that divides `size`, along the diagonal
/// (Sylvester's construction, rows of length 1).
fn hadamard(size: usize) -> Vec<f32> {
    let part = 1usize << size.trailing_zeros();
    let length = 1.0 / (part as f32).sqrt();
    let at = |row: usize, column: usize| match row / part == column / part {
        true if ((row % part) & (column % part)).count_ones().is_multiple_of(2) => length,
        true => -length,
        false => 0.0,
    };
    (0..size * size).map(|i| at(i / size, i % size)).collect()
}

#[cfg(test)]
mod tests {
    use super::hadamard;

    #[test]
    fn a_rotation_is_its_own_inverse() {
        for size in [1, 8, 64, 96, 128] {
            let h = hadamard(size);
            for row in 0..size {
                for column in 0..size {
                    let product: f64 = (0..size)
                        .map(|i| f64::from(h[row * size + i]) * f64::from(h[i * size + column]))
                        .sum();
                    let expected = f64::from(u8::from(row == column));
                    assert!((product - expected).abs() < 1e-6, "{size}: {row}, {column}");
                }
            }
        }
    }
}
