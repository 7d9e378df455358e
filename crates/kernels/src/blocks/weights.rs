//! What a format of weights is to the drivers.

use bytemuck::Pod;

use super::FastUnit;
use super::inputs::{Form, Layout, MAX_TOKENS};
use super::tile::Unit;
use super::unit::{Convert, ROWS};
use crate::cpu::{Isa, Level};

/// One row's block of each of the 16 rows of a panel.
pub(super) type Blocks<'a> = [&'a [u8]; ROWS];

/// What packed blocks hold before the codes, for kernels that take it apart unit by unit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Heads {
    /// Something that is taken apart for a whole block at once.
    Whole,
    /// One unit: binary16 scales, and minima where the format has any.
    Numbers,
    /// Binary16 scales and minima; then, by unit, their factors in planes of 6 bits.
    Sixes,
    /// Binary16 scales; then, by unit, their factors plus 32 in planes of 6 bits.
    Factors,
    /// Binary16 scales; then, by half of a unit, signed steps of 8 bits.
    Steps,
    /// Binary16 scales; then, by half of a unit, steps plus 32 in planes of 6 bits.
    SixSteps,
    /// Binary16 scales of steps and of minima; then, by half of a unit, steps of 4 bits below those
    /// of the minima.
    FourSteps,
    /// Scales that are powers of two, as the exponent plus 128; the minimum is -12 times the scale.
    Exponents,
    /// Binary16 scales, which negated are the minima.
    Negated,
}

/// A format: how its blocks are packed for 16 rows, and unpacked to what a microkernel reads.
///
/// The packed form has as many bits as the stored one.
pub(super) trait Weights: 'static {
    /// What the microkernels read.
    type Unit: Pod + Sync + FastUnit;
    /// What they read where there are few tokens and packed blocks need no unpacking.
    type Stored: Pod + Sync + FastUnit;
    /// Units per block.
    const UNITS: usize;
    /// Bytes of a stored block of one row.
    const BLOCK: usize;
    /// Bytes of a packed block of 16 rows.
    const PACKED: usize = Self::BLOCK * ROWS;
    /// Whether packed blocks are of type `Stored`.
    const DIRECT: bool = false;
    /// Tokens from which on taking blocks apart beforehand pays off; fewer read them as they are
    /// stored, where that can be.
    const FEW: usize = 9;
    /// The same, where kernels have AVX-512: taking codes apart then hides behind products, but
    /// [`Halves`](super::unit::Halves) leave it little room.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "others have no AVX-512"))]
    const WIDE_FEW: usize = usize::MAX;
    /// Products of two that are added in 16 bits without overflow.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "others add products of bytes in 32 bits")
    )]
    const CHAIN: usize = 1;
    /// What the units are multiplied with.
    const FORM: Form = <Self::Unit as Unit>::FORM;
    /// What they are multiplied with by instructions that add four products in 32 bits.
    const WIDE_FORM: Form = match Self::FORM {
        Form::Offset { times, .. } => Form::Starts { times: times as i32, halves: false },
        // The codes are multiplied plus 128, without a sign.
        Form::Signed => Form::Starts { times: -128, halves: false },
        form => form,
    };
    /// Whether minima have the scale of the products.
    const JOINT: bool = true;

    /// Bits of the codes, where kernels take packed ones apart on the way; 0 where none does.
    const BITS: usize = 0;
    /// Bytes of a packed block before the codes.
    const HEAD: usize = 0;
    /// What these bytes are.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "AVX-512 reads them"))]
    const HEADS: Heads = Heads::Whole;
    /// The codes of units that 4-bit ones choose, where they do.
    const VALUES: Option<&[i8; 16]> = None;

    /// Packs one block of each row into [`Weights::PACKED`] bytes.
    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]);

    /// Takes what a packed block holds beside the codes apart, for each of its units.
    fn heads<'h, C: Convert>(
        packed: &[u8],
        heads: impl Iterator<Item = &'h mut <Self::Unit as Unit>::Head>,
    );

    /// How activations lie for the kernels of `isa`.
    fn layout(isa: Isa) -> Layout {
        match isa.level() {
            Level::Avx512 => Layout { form: Self::WIDE_FORM, most: MAX_TOKENS },
            _ => Layout { form: Self::FORM, most: 4 },
        }
    }

    /// Takes a packed block apart.
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Self::Unit]);
}

/// Copies two bytes at `at` of each row: binary16 scales.
pub(super) fn gather2(blocks: &Blocks<'_>, at: usize, out: &mut [u8]) {
    for (out, block) in out.as_chunks_mut::<2>().0.iter_mut().zip(blocks) {
        out.copy_from_slice(&block[at..at + 2]);
    }
}

/// The first `N` bytes, and what follows.
#[inline(always)]
pub(super) fn take<const N: usize>(bytes: &[u8]) -> (&[u8; N], &[u8]) {
    bytes.split_first_chunk().expect("a packed block is as long as its format says")
}
