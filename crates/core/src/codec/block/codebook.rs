//! The codebooks of the `IQ1`, `IQ2` and `IQ3` formats, as ggml fixes them.

use super::codebook_data::{
    IQ1_CODES, IQ2_S_CODES, IQ2_XS_CODES, IQ2_XXS_CODES, IQ3_S_CODES, IQ3_XXS_CODES,
};

/// Entries of a few elements; each element is a code into a short list of levels.
pub(super) struct Codebook {
    /// Values that a code stands for.
    levels: &'static [i8],
    /// Bits per code.
    bits: usize,
    /// One word per entry, first element in the lowest bits.
    entries: &'static [u16],
}

impl Codebook {
    /// The elements of an entry, as many as its word holds.
    pub(super) fn at(&self, index: u16) -> impl Iterator<Item = i8> {
        let codes = self.entries[usize::from(index)];
        let mask = (1 << self.bits) - 1;
        (0..16 / self.bits).map(move |i| self.levels[usize::from(codes >> (i * self.bits) & mask)])
    }
}

const IQ2_LEVELS: &[i8] = &[8, 25, 43];

pub(super) const IQ1: Codebook = Codebook { levels: &[-1, 0, 1], bits: 2, entries: &IQ1_CODES };
pub(super) const IQ2_XXS: Codebook =
    Codebook { levels: IQ2_LEVELS, bits: 2, entries: &IQ2_XXS_CODES };
pub(super) const IQ2_XS: Codebook =
    Codebook { levels: IQ2_LEVELS, bits: 2, entries: &IQ2_XS_CODES };
pub(super) const IQ2_S: Codebook = Codebook { levels: IQ2_LEVELS, bits: 2, entries: &IQ2_S_CODES };
pub(super) const IQ3_XXS: Codebook =
    Codebook { levels: &[4, 12, 20, 28, 36, 44, 52, 62], bits: 3, entries: &IQ3_XXS_CODES };
pub(super) const IQ3_S: Codebook =
    Codebook { levels: &[1, 3, 5, 7, 9, 11, 13, 15], bits: 3, entries: &IQ3_S_CODES };
