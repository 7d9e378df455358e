//! The formats with blocks of 32: `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`, `Q8_0`, `IQ4_NL`, `MXFP4`.

use std::marker::PhantomData;

use super::inputs::Form;
use super::planes::{add1, pack, unpack4};
use super::unit::{CODES, Convert, Minima, Quads, ROWS, SPAN, Signed, StoredSigned, in_quads};
use super::weights::{Blocks, Heads, Weights, gather2, take};

/// The 32 codes of 16 bytes of nibbles: lower halves first.
pub(super) fn nibbles(bytes: &[u8]) -> [u8; SPAN] {
    let mut codes = [0; SPAN];
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(&bytes[..16]) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    codes
}

fn pack_nibbles(blocks: &Blocks<'_>, at: usize, packed: &mut [u8]) {
    pack::<4>(&in_quads(|r| nibbles(&blocks[r][at..])), 0, packed);
}

/// The 32 codes of 5 bits: a word of upper bits, then nibbles.
fn fives(bytes: &[u8]) -> [u8; SPAN] {
    let mut codes = nibbles(&bytes[4..]);
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= (bytes[i / 8] >> (i % 8) & 1) << 4;
    }
    codes
}

fn pack_fives(blocks: &Blocks<'_>, at: usize, packed: &mut [u8]) {
    let codes = in_quads(|r| fives(&blocks[r][at..]));
    let (low, high) = packed.split_at_mut(256);
    pack::<4>(&codes, 0, low);
    pack::<1>(&codes, 4, high);
}

#[inline(always)]
fn unpack_fives(packed: &[u8], codes: &mut [u8; CODES]) {
    let (low, packed) = take::<256>(packed);
    let (high, _) = take::<64>(packed);
    unpack4(low, codes);
    add1::<64, 4>(high, codes);
}

/// `scale * offset` for every row, exact: the offset is a power of two.
#[inline(always)]
fn offsets(scale: &[f32; ROWS], offset: f32) -> [f32; ROWS] {
    // A loop: `map` on an array is not made of vectors.
    let mut out = [0.0; ROWS];
    for (out, scale) in out.iter_mut().zip(scale) {
        *out = scale * offset;
    }
    out
}

/// Where the heads of units are.
#[inline(always)]
pub(super) fn heads_of(units: &mut [Quads]) -> impl Iterator<Item = &mut Minima> {
    units.iter_mut().map(|unit| &mut unit.head)
}

/// How the codes of a block of 32 lie behind its scale and minimum.
pub(super) trait Plain: 'static {
    const BITS: usize;
    /// Products of two that are added in 16 bits without overflow.
    const CHAIN: usize;
    /// What the code 0 stands for in steps, where no minimum is stored.
    const LEAST: f32;

    /// Packs the codes at `at` of each row.
    fn pack(blocks: &Blocks<'_>, at: usize, packed: &mut [u8]);
    fn unpack(packed: &[u8], codes: &mut [u8; CODES]);
}

pub(super) struct Nibbles;

impl Plain for Nibbles {
    const BITS: usize = 4;
    const CHAIN: usize = 8;
    const LEAST: f32 = -8.0;

    fn pack(blocks: &Blocks<'_>, at: usize, packed: &mut [u8]) {
        pack_nibbles(blocks, at, packed);
    }

    #[inline(always)]
    fn unpack(packed: &[u8], codes: &mut [u8; CODES]) {
        unpack4(take::<256>(packed).0, codes);
    }
}

pub(super) struct Fives;

impl Plain for Fives {
    const BITS: usize = 5;
    const CHAIN: usize = 4;
    const LEAST: f32 = -16.0;

    fn pack(blocks: &Blocks<'_>, at: usize, packed: &mut [u8]) {
        pack_fives(blocks, at, packed);
    }

    #[inline(always)]
    fn unpack(packed: &[u8], codes: &mut [u8; CODES]) {
        unpack_fives(packed, codes);
    }
}

/// A block of 32 codes with a scale, and a minimum where `MINIMUM`.
pub(super) struct Affine<P, const MINIMUM: bool>(PhantomData<P>);

pub(super) type Q4_0 = Affine<Nibbles, false>;
pub(super) type Q4_1 = Affine<Nibbles, true>;
pub(super) type Q5_0 = Affine<Fives, false>;
pub(super) type Q5_1 = Affine<Fives, true>;

impl<P: Plain, const MINIMUM: bool> Affine<P, MINIMUM> {
    /// Numbers of two bytes before the codes.
    const NUMBERS: usize = 1 + MINIMUM as usize;
}

impl<P: Plain, const MINIMUM: bool> Weights for Affine<P, MINIMUM> {
    type Unit = Quads;
    type Stored = Quads;
    const UNITS: usize = 1;
    const BLOCK: usize = 2 * Self::NUMBERS + P::BITS * SPAN / 8;
    const CHAIN: usize = P::CHAIN;
    const FORM: Form = match MINIMUM {
        true => Form::Quads,
        false => Form::Offset { times: P::LEAST as i16, chain: P::CHAIN },
    };
    const BITS: usize = P::BITS;
    const HEAD: usize = 2 * Self::NUMBERS * ROWS;
    const HEADS: Heads = Heads::Numbers;

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        let (head, codes) = packed.split_at_mut(Self::HEAD);
        for (i, numbers) in head.chunks_exact_mut(2 * ROWS).enumerate() {
            gather2(blocks, 2 * i, numbers);
        }
        P::pack(blocks, 2 * Self::NUMBERS, codes);
    }

    #[inline(always)]
    fn heads<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut Minima>) {
        let (scales, packed) = take(packed);
        for head in heads {
            head.scale = C::halves(scales);
            head.min = match MINIMUM {
                true => C::halves(take(packed).0),
                false => offsets(&head.scale, P::LEAST),
            };
        }
    }

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Quads]) {
        Self::heads::<C>(packed, heads_of(units));
        P::unpack(&packed[Self::HEAD..], &mut units[0].codes);
    }
}

pub(super) struct Q8_0;

impl Weights for Q8_0 {
    type Unit = Signed;
    type Stored = StoredSigned;
    const UNITS: usize = 1;
    const BLOCK: usize = 34;
    const DIRECT: bool = true;
    const FEW: usize = 16;

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        let (scales, codes) = packed.split_at_mut(32);
        gather2(blocks, 0, scales);
        codes.copy_from_slice(&in_quads(|r| std::array::from_fn(|i| blocks[r][2 + i])));
    }

    fn heads<'h, C: Convert>(_: &[u8], _: impl Iterator<Item = &'h mut [f32; ROWS]>) {}

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Signed]) {
        let (scales, codes) = take::<32>(packed);
        units[0].scale = C::halves(scales);
        units[0].set_codes(bytemuck::cast_ref(take::<CODES>(codes).0));
    }
}

/// The values of `IQ4_NL` and `IQ4_XS`.
pub(super) const IQ4_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

pub(super) struct Iq4Nl;

impl Weights for Iq4Nl {
    type Unit = Signed;
    type Stored = Signed;
    const UNITS: usize = 1;
    const BLOCK: usize = 18;
    const BITS: usize = 4;
    const HEAD: usize = 32;
    const HEADS: Heads = Heads::Numbers;
    const VALUES: Option<&[i8; 16]> = Some(&IQ4_VALUES);

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        let (scales, codes) = packed.split_at_mut(32);
        gather2(blocks, 0, scales);
        pack_value_codes(|r| &blocks[r][2..], codes);
    }

    #[inline(always)]
    fn heads<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut [f32; ROWS]>) {
        for scales in heads {
            *scales = C::halves(take(packed).0);
        }
    }

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Signed]) {
        Self::heads::<C>(packed, scales_of(units));
        let codes = &packed[Self::HEAD..];
        units[0].set_codes(&C::lookup(&IQ4_VALUES, take::<256>(codes).0));
    }
}

/// Where the scales of units are.
#[inline(always)]
pub(super) fn scales_of(units: &mut [Signed]) -> impl Iterator<Item = &mut [f32; ROWS]> {
    units.iter_mut().map(|unit| &mut unit.scale)
}

/// Nibbles that choose values.
pub(super) fn pack_value_codes<'a>(row: impl Fn(usize) -> &'a [u8], packed: &mut [u8]) {
    pack::<4>(&in_quads(|r| nibbles(row(r))), 0, packed);
}

/// The values of FP4 E2M1, doubled, plus 12.
const FP4_VALUES: [i8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

pub(super) struct Mxfp4;

impl Weights for Mxfp4 {
    type Unit = Quads;
    type Stored = Quads;
    const UNITS: usize = 1;
    const BLOCK: usize = 17;
    const CHAIN: usize = 4;
    const BITS: usize = 4;
    const HEAD: usize = 16;
    const HEADS: Heads = Heads::Exponents;
    const VALUES: Option<&[i8; 16]> = Some(&FP4_VALUES);

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        let (exponents, codes) = packed.split_at_mut(Self::HEAD);
        exponents.iter_mut().zip(blocks).for_each(|(out, block)| *out = block[0]);
        pack_nibbles(blocks, 1, codes);
    }

    #[inline(always)]
    fn heads<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut Minima>) {
        for head in heads {
            for (scale, &exponent) in head.scale.iter_mut().zip(take::<16>(packed).0) {
                *scale = half_e8m0(exponent);
            }
            head.min = offsets(&head.scale, -12.0);
        }
    }

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Quads]) {
        Self::heads::<C>(packed, heads_of(units));
        let (unit, packed) = (&mut units[0], &packed[Self::HEAD..]);
        unit.codes = bytemuck::cast(C::lookup(&FP4_VALUES, take::<256>(packed).0));
    }
}

/// `2^(code - 128)`.
#[inline(always)]
fn half_e8m0(code: u8) -> f32 {
    let small = 0x0020_0000 << (code & 1);
    let normal = u32::from(code.wrapping_sub(1)) << 23;
    f32::from_bits(if code < 2 { small } else { normal })
}
