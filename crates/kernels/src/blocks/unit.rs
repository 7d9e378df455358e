//! What the integer microkernels read: 16 rows by 32 elements of weights, taken apart.

use bytemuck::{Pod, Zeroable};
use half::f16;

/// Rows of a panel.
pub(super) const ROWS: usize = 16;

/// Elements of k per unit.
pub(super) const SPAN: usize = 32;

/// Codes per unit.
pub(super) const CODES: usize = ROWS * SPAN;

/// Unsigned codes of at most 5 bits, with scales and minima.
///
/// Codes stand four of k together: group of k, row, element.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Quads {
    pub codes: [u8; CODES],
    pub head: Minima,
}

/// A scale and a minimum for each row.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Minima {
    pub scale: [f32; ROWS],
    /// What is added for each unit of the activations' sum.
    pub min: [f32; ROWS],
}

/// Unsigned codes of at most 6 bits, with steps.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Halves {
    pub codes: [u8; CODES],
    pub head: Steps,
}

/// Integer steps for each 16 elements, in pairs of one half.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Steps {
    /// By half of the unit and row: the step, twice ([`pair`]).
    pub steps: [[u32; ROWS]; 2],
    /// By row: what is added for each unit of the activations' sums of both halves ([`pair`]).
    pub min_steps: [u32; ROWS],
    pub scale: [f32; ROWS],
    /// Scale of the minima, where it is one of its own.
    pub min_scale: [f32; ROWS],
}

/// Signed 8-bit codes and their magnitudes, a scale for each row; codes in the order of [`Quads`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Signed {
    pub codes: [i8; CODES],
    pub sizes: [u8; CODES],
    pub scale: [f32; ROWS],
}

impl Signed {
    /// Sets the codes, and their magnitudes with them.
    #[inline(always)]
    pub(super) fn set_codes(&mut self, codes: &[i8; CODES]) {
        self.codes = *codes;
        for (size, code) in self.sizes.iter_mut().zip(codes) {
            *size = code.unsigned_abs();
        }
    }
}

/// Signed codes in the stored form of `Q8_0`: scales in binary16, no magnitudes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct StoredSigned {
    pub scale: [u16; ROWS],
    pub codes: [i8; CODES],
}

/// Two i16 in a word, the first in the lower half: what a product of pairs takes.
#[inline(always)]
pub(super) fn pair(low: i16, high: i16) -> u32 {
    u32::from(low.cast_unsigned()) | u32::from(high.cast_unsigned()) << 16
}

/// The numbers of a [`pair`].
#[inline(always)]
pub(super) fn of_pair(word: u32) -> [i32; 2] {
    [i32::from(word as i16), word.cast_signed() >> 16]
}

/// The order of the codes of every unit, from those of each row.
pub(super) fn in_quads(row: impl Fn(usize) -> [u8; SPAN]) -> [u8; CODES] {
    let mut codes = [0; CODES];
    let (words, _) = codes.as_chunks_mut::<4>();
    for r in 0..ROWS {
        for (group, word) in row(r).as_chunks::<4>().0.iter().enumerate() {
            words[group * ROWS + r] = *word;
        }
    }
    codes
}

/// The steps of unpacking that have instructions of their own.
pub(super) trait Convert {
    /// The numbers of 16 little-endian binary16.
    fn halves(bytes: &[u8; 2 * ROWS]) -> [f32; ROWS];

    /// The values that 4-bit codes in two planes choose.
    fn lookup(values: &[i8; 16], planes: &[u8; CODES / 2]) -> [i8; CODES];
}

/// In plain Rust.
pub(super) struct Plain;

impl Convert for Plain {
    fn halves(bytes: &[u8; 2 * ROWS]) -> [f32; ROWS] {
        let (pairs, _) = bytes.as_chunks::<2>();
        std::array::from_fn(|i| f16::from_le_bytes(pairs[i]).to_f32())
    }

    fn lookup(values: &[i8; 16], planes: &[u8; CODES / 2]) -> [i8; CODES] {
        let mut out = [0; CODES];
        let (low, high) = out.split_at_mut(CODES / 2);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(planes) {
            *low = values[usize::from(byte & 15)];
            *high = values[usize::from(byte >> 4)];
        }
        out
    }
}
