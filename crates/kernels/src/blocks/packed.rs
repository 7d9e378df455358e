//! Weights, packed once for the kernels.

use super::format::{Format, Visit};
use super::unit::ROWS;
use super::weights::Weights;
use crate::pages::Lines;
use crate::scratch::Line;
use crate::threads::Pool;

/// A matrix of weights in a block format: rows of blocks, packed in panels of 16 rows.
///
/// Takes as many bytes as the stored form (`TQ1_0`: as `TQ2_0`), and reads front to back.
pub struct PackedBlocks {
    pub(super) format: Format,
    n: usize,
    k: usize,
    panel: usize,
    lines: Lines,
}

impl PackedBlocks {
    /// Packs `n` rows of `k` elements each.
    ///
    /// # Panics
    /// When `k` is no whole number of blocks, or the bytes are not `n` rows.
    pub fn new(pool: &Pool, format: Format, n: usize, k: usize, bytes: &[u8]) -> PackedBlocks {
        format.visit(Pack { pool, format, n, k, bytes })
    }

    /// Number of rows: outputs per token.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Elements of a row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val::<[Line]>(&self.lines)
    }

    /// Number of panels.
    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(ROWS)
    }

    /// The bytes of a panel.
    pub(super) fn panel(&self, index: usize) -> &[u8] {
        &bytemuck::cast_slice::<Line, u8>(&self.lines)[index * self.panel..][..self.panel]
    }
}

struct Pack<'a> {
    pool: &'a Pool,
    format: Format,
    n: usize,
    k: usize,
    bytes: &'a [u8],
}

impl Visit for Pack<'_> {
    type Output = PackedBlocks;

    fn with<W: Weights>(self) -> PackedBlocks {
        let Pack { pool, format, n, k, bytes } = self;
        assert!(k.is_multiple_of(format.elements()), "{k} is no whole number of blocks");
        let row = k / format.elements() * W::BLOCK;
        assert_eq!(bytes.len(), n * row, "{n} rows of {row} bytes");
        let panel = k / format.elements() * W::PACKED;
        let size = n.div_ceil(ROWS) * panel;
        let mut lines = Lines::zeros(size.div_ceil(size_of::<Line>()));
        let packed = &mut bytemuck::cast_slice_mut::<Line, u8>(&mut lines)[..size];
        pool.for_each_chunk(packed, panel.max(1), |index, packed| {
            pack_panel::<W>(bytes, row, index * ROWS..n.min(index * ROWS + ROWS), packed);
        });
        PackedBlocks { format, n, k, panel, lines }
    }
}

/// Packs the rows `rows` of `row` bytes each; rows that are missing are zero.
fn pack_panel<W: Weights>(
    bytes: &[u8],
    row: usize,
    rows: std::ops::Range<usize>,
    packed: &mut [u8],
) {
    let missing = [0; 256];
    for (b, packed) in packed.chunks_exact_mut(W::PACKED).enumerate() {
        let blocks = std::array::from_fn(|r| match rows.clone().nth(r) {
            Some(index) => &bytes[index * row + b * W::BLOCK..][..W::BLOCK],
            None => &missing[..W::BLOCK],
        });
        W::pack(&blocks, packed);
    }
}
