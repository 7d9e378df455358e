//! The formats with blocks of 256: `Q2_K` to `Q6_K`, `IQ4_XS`, `TQ1_0`, `TQ2_0`.

use super::inputs::Form;
use super::plain::{IQ4_VALUES, heads_of, pack_value_codes, scales_of};
use super::planes::{add1, add2, pack, unpack2, unpack4};
use super::unit::{Convert, Halves, Minima, Quads, ROWS, SPAN, Signed, Steps, in_quads, pair};
use super::weights::{Blocks, Heads, Weights, gather2, take};

/// Units of a block.
const UNITS: usize = 8;

/// Nibbles of unit `u`: 32 bytes hold two units.
fn plane_nibbles(bytes: &[u8], u: usize) -> [u8; SPAN] {
    shifted(&bytes[u / 2 * 32..], u % 2 * 4, 15)
}

/// Bits of 32 bytes.
fn shifted(bytes: &[u8], shift: usize, mask: u8) -> [u8; SPAN] {
    let mut codes = [0; SPAN];
    for (code, byte) in codes.iter_mut().zip(&bytes[..SPAN]) {
        *code = byte >> shift & mask;
    }
    codes
}

/// Two bits of each element of unit `u`: 32 bytes hold four units.
fn crumbs(bytes: &[u8], u: usize) -> [u8; SPAN] {
    shifted(&bytes[u / 4 * 32..], u % 4 * 2, 3)
}

/// One bit of each element of unit `u`, from 32 bytes.
fn bits(bytes: &[u8], u: usize) -> [u8; SPAN] {
    shifted(bytes, u, 1)
}

fn joined(low: [u8; SPAN], high: [u8; SPAN], shift: usize) -> [u8; SPAN] {
    let mut codes = low;
    codes.iter_mut().zip(high).for_each(|(code, high)| *code |= high << shift);
    codes
}

/// 256 codes of 6 bits in 192 bytes.
fn pack_sixes(codes: &[u8; 256], packed: &mut [u8]) {
    let (low, high) = packed.split_at_mut(128);
    pack::<4>(codes, 0, low);
    pack::<2>(codes, 4, high);
}

#[inline(always)]
fn unpack_sixes(packed: &[u8]) -> [u8; 256] {
    let (low, packed) = take::<128>(packed);
    let (high, _) = take::<64>(packed);
    let mut codes = [0; 256];
    unpack4(low, &mut codes);
    add2::<64, 4>(high, &mut codes);
    codes
}

/// Scale (0) or minimum (1) of unit `u` from 12 bytes of `Q4_K` and `Q5_K`.
fn scale_or_min(bytes: &[u8], u: usize, min: usize) -> u8 {
    match (u, min) {
        (0..4, _) => bytes[u + 4 * min] & 63,
        (_, 0) => bytes[u + 4] & 15 | bytes[u - 4] >> 6 << 4,
        _ => bytes[u + 4] >> 4 | bytes[u] >> 6 << 4,
    }
}

/// Scales and minima of `Q4_K` and `Q5_K`: `d`, `dmin`, then 6-bit codes by unit, kind and row.
fn pack_minima(blocks: &Blocks<'_>, packed: &mut [u8]) {
    gather2(blocks, 0, &mut packed[..32]);
    gather2(blocks, 2, &mut packed[32..64]);
    let codes: [u8; 256] =
        std::array::from_fn(|i| scale_or_min(&blocks[i % ROWS][4..], i / 32, i / ROWS % 2));
    pack_sixes(&codes, &mut packed[64..]);
}

#[inline(always)]
fn unpack_minima<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut Minima>) {
    let (scales, packed) = take(packed);
    let (minima, packed) = take(packed);
    let (d, dmin) = (C::halves(scales), C::halves(minima));
    let codes = unpack_sixes(packed);
    for (head, codes) in heads.zip(codes.as_chunks::<{ 2 * ROWS }>().0) {
        for r in 0..ROWS {
            head.scale[r] = d[r] * f32::from(codes[r]);
            head.min[r] = -(dmin[r] * f32::from(codes[ROWS + r]));
        }
    }
}

pub(super) struct Q4K;

impl Weights for Q4K {
    type Unit = Quads;
    type Stored = Quads;
    const UNITS: usize = UNITS;
    const BLOCK: usize = 144;
    const CHAIN: usize = 8;
    const BITS: usize = 4;
    const HEAD: usize = 256;
    const HEADS: Heads = Heads::Sixes;

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        let (head, codes) = packed.split_at_mut(256);
        pack_minima(blocks, head);
        for (u, packed) in codes.chunks_exact_mut(256).enumerate() {
            pack::<4>(&in_quads(|r| plane_nibbles(&blocks[r][16..], u)), 0, packed);
        }
    }

    #[inline(always)]
    fn heads<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut Minima>) {
        unpack_minima::<C>(packed, heads);
    }

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Quads]) {
        let (head, codes) = packed.split_at(256);
        Self::heads::<C>(head, heads_of(units));
        for (unit, codes) in units.iter_mut().zip(codes.as_chunks::<256>().0) {
            unpack4(codes, &mut unit.codes);
        }
    }
}

pub(super) struct Q5K;

impl Weights for Q5K {
    type Unit = Quads;
    type Stored = Quads;
    const UNITS: usize = UNITS;
    const FEW: usize = 8;
    const BLOCK: usize = 176;
    const CHAIN: usize = 4;
    const BITS: usize = 5;
    const HEAD: usize = 256;
    const HEADS: Heads = Heads::Sixes;

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        let (head, codes) = packed.split_at_mut(256);
        pack_minima(blocks, head);
        for (u, packed) in codes.chunks_exact_mut(320).enumerate() {
            let row =
                |block: &[u8]| joined(plane_nibbles(&block[48..], u), bits(&block[16..48], u), 4);
            let codes = in_quads(|r| row(blocks[r]));
            let (low, high) = packed.split_at_mut(256);
            pack::<4>(&codes, 0, low);
            pack::<1>(&codes, 4, high);
        }
    }

    #[inline(always)]
    fn heads<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut Minima>) {
        unpack_minima::<C>(packed, heads);
    }

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Quads]) {
        let (head, codes) = packed.split_at(256);
        Self::heads::<C>(head, heads_of(units));
        for (unit, codes) in units.iter_mut().zip(codes.as_chunks::<320>().0) {
            let (low, codes) = take::<256>(codes);
            let (high, _) = take::<64>(codes);
            unpack4(low, &mut unit.codes);
            add1::<64, 4>(high, &mut unit.codes);
        }
    }
}

/// Where the heads of units are.
#[inline(always)]
fn steps_of(units: &mut [Halves]) -> impl Iterator<Item = &mut Steps> {
    units.iter_mut().map(|unit| &mut unit.head)
}

/// Steps and the minima that follow from an offset of all codes.
#[inline(always)]
fn set_steps(head: &mut Steps, scale: &[f32; ROWS], steps: &[[i16; ROWS]; 2], offset: i16) {
    (head.scale, head.min_scale) = (*scale, *scale);
    for (out, steps) in head.steps.iter_mut().zip(steps) {
        for (out, step) in out.iter_mut().zip(steps) {
            *out = pair(*step, *step);
        }
    }
    for (min, (a, b)) in head.min_steps.iter_mut().zip(steps[0].iter().zip(&steps[1])) {
        *min = pair(-offset * a, -offset * b);
    }
}

/// The heads of units from signed steps of 8 bits, two for each row of a unit.
#[inline(always)]
fn stepped_heads<'h>(
    scale: &[f32; ROWS],
    steps: &[u8],
    signed: impl Fn(u8) -> i16,
    offset: i16,
    heads: impl Iterator<Item = &'h mut Steps>,
) {
    for (head, steps) in heads.zip(steps.as_chunks::<{ 2 * ROWS }>().0) {
        let mut wide = [[0; ROWS]; 2];
        for (wide, step) in wide.as_flattened_mut().iter_mut().zip(steps) {
            *wide = signed(*step);
        }
        set_steps(head, scale, &wide, offset);
    }
}

pub(super) struct Q6K;

impl Q6K {
    /// The code that stands for 0.
    const OFFSET: i16 = 32;
}

impl Weights for Q6K {
    type Unit = Halves;
    type Stored = Halves;
    const UNITS: usize = UNITS;
    const FEW: usize = 8;
    const BLOCK: usize = 210;
    const CHAIN: usize = 2;
    const WIDE_FORM: Form = Form::Starts { times: -(Self::OFFSET as i32), halves: true };
    const WIDE_FEW: usize = 33;
    const BITS: usize = 6;
    const HEAD: usize = 288;
    const HEADS: Heads = Heads::Steps;

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        gather2(blocks, 208, &mut packed[..32]);
        let (head, codes) = packed.split_at_mut(288);
        for (i, step) in head[32..].iter_mut().enumerate() {
            *step = blocks[i % ROWS][192 + i / ROWS];
        }
        for (u, packed) in codes.chunks_exact_mut(384).enumerate() {
            // Per 128 elements: 64 bytes of nibbles, two units in the lower halves first.
            let low = |block: &[u8]| -> [u8; SPAN] {
                shifted(&block[u / 4 * 64 + u % 2 * 32..], u / 2 % 2 * 4, 15)
            };
            let codes = in_quads(|r| joined(low(blocks[r]), crumbs(&blocks[r][128..], u), 4));
            let (low, high) = packed.split_at_mut(256);
            pack::<4>(&codes, 0, low);
            pack::<2>(&codes, 4, high);
        }
    }

    #[inline(always)]
    fn heads<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut Steps>) {
        let (scales, steps) = take(packed);
        let signed = |step: u8| i16::from(step.cast_signed());
        stepped_heads(&C::halves(scales), steps, signed, Self::OFFSET, heads);
    }

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Halves]) {
        Self::heads::<C>(packed, steps_of(units));
        for (unit, codes) in units.iter_mut().zip(packed[Self::HEAD..].as_chunks::<384>().0) {
            let (low, codes) = take::<256>(codes);
            let (high, _) = take::<128>(codes);
            unpack4(low, &mut unit.codes);
            add2::<128, 4>(high, &mut unit.codes);
        }
    }
}

pub(super) struct Q3K;

impl Q3K {
    /// The code that stands for 0.
    const OFFSET: i16 = 4;
}

/// Scale of 16 elements from the 12 bytes of `Q3_K`, plus 32.
fn q3_step(bytes: &[u8], sixteen: usize) -> u8 {
    let low = bytes[sixteen % 8] >> (sixteen / 8 * 4) & 15;
    low | (bytes[8 + sixteen % 4] >> (sixteen / 4 * 2) & 3) << 4
}

impl Weights for Q3K {
    type Unit = Halves;
    type Stored = Halves;
    const UNITS: usize = UNITS;
    const BLOCK: usize = 110;
    const CHAIN: usize = 4;
    const WIDE_FORM: Form = Form::Starts { times: -(Self::OFFSET as i32), halves: true };
    const WIDE_FEW: usize = 33;
    const BITS: usize = 3;
    const HEAD: usize = 224;
    const HEADS: Heads = Heads::SixSteps;

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        gather2(blocks, 108, &mut packed[..32]);
        let (head, codes) = packed.split_at_mut(224);
        let steps = std::array::from_fn(|i| q3_step(&blocks[i % ROWS][96..], i / ROWS));
        pack_sixes(&steps, &mut head[32..]);
        for (u, packed) in codes.chunks_exact_mut(192).enumerate() {
            let row = |block: &[u8]| joined(crumbs(&block[32..], u), bits(block, u), 2);
            let codes = in_quads(|r| row(blocks[r]));
            let (low, high) = packed.split_at_mut(128);
            pack::<2>(&codes, 0, low);
            pack::<1>(&codes, 2, high);
        }
    }

    #[inline(always)]
    fn heads<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut Steps>) {
        let (scales, packed) = take(packed);
        let signed = |step: u8| i16::from(step) - 32;
        stepped_heads(&C::halves(scales), &unpack_sixes(packed), signed, Self::OFFSET, heads);
    }

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Halves]) {
        Self::heads::<C>(packed, steps_of(units));
        for (unit, codes) in units.iter_mut().zip(packed[Self::HEAD..].as_chunks::<192>().0) {
            let (low, codes) = take::<128>(codes);
            let (high, _) = take::<64>(codes);
            unpack2(low, &mut unit.codes);
            add1::<64, 2>(high, &mut unit.codes);
        }
    }
}

pub(super) struct Q2K;

impl Weights for Q2K {
    type Unit = Halves;
    type Stored = Halves;
    const UNITS: usize = UNITS;
    const BLOCK: usize = 84;
    const CHAIN: usize = 4;
    const WIDE_FEW: usize = 33;
    const BITS: usize = 2;
    const HEAD: usize = 320;
    const HEADS: Heads = Heads::FourSteps;
    const JOINT: bool = false;

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        gather2(blocks, 80, &mut packed[..32]);
        gather2(blocks, 82, &mut packed[32..64]);
        let (head, codes) = packed.split_at_mut(320);
        for (i, steps) in head[64..].iter_mut().enumerate() {
            *steps = blocks[i % ROWS][i / ROWS];
        }
        for (u, packed) in codes.chunks_exact_mut(128).enumerate() {
            pack::<2>(&in_quads(|r| crumbs(&blocks[r][16..], u)), 0, packed);
        }
    }

    #[inline(always)]
    fn heads<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut Steps>) {
        let (scales, packed) = take(packed);
        let (minima, packed) = take(packed);
        let (scale, min_scale) = (C::halves(scales), C::halves(minima));
        for (head, steps) in heads.zip(packed.as_chunks::<{ 2 * ROWS }>().0) {
            (head.scale, head.min_scale) = (scale, min_scale);
            for r in 0..ROWS {
                let (a, b) = (i16::from(steps[r]), i16::from(steps[ROWS + r]));
                head.steps[0][r] = pair(a & 15, a & 15);
                head.steps[1][r] = pair(b & 15, b & 15);
                head.min_steps[r] = pair(-(a >> 4), -(b >> 4));
            }
        }
    }

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Halves]) {
        Self::heads::<C>(packed, steps_of(units));
        for (unit, codes) in units.iter_mut().zip(packed[Self::HEAD..].as_chunks::<128>().0) {
            unpack2(codes, &mut unit.codes);
        }
    }
}

pub(super) struct Iq4Xs;

/// Scale of unit `u`, plus 32.
fn xs_step(block: &[u8], u: usize) -> u8 {
    let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * u) & 3;
    block[4 + u / 2] >> (u % 2 * 4) & 15 | (high as u8) << 4
}

impl Weights for Iq4Xs {
    type Unit = Signed;
    type Stored = Signed;
    const UNITS: usize = UNITS;
    const BLOCK: usize = 136;
    const BITS: usize = 4;
    const HEAD: usize = 128;
    const HEADS: Heads = Heads::Factors;
    const VALUES: Option<&[i8; 16]> = Some(&IQ4_VALUES);

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        gather2(blocks, 0, &mut packed[..32]);
        let (head, codes) = packed.split_at_mut(128);
        let steps: [u8; 128] = std::array::from_fn(|i| xs_step(blocks[i % ROWS], i / ROWS));
        pack::<4>(&steps, 0, &mut head[32..96]);
        pack::<2>(&steps, 4, &mut head[96..]);
        for (u, packed) in codes.chunks_exact_mut(256).enumerate() {
            pack_value_codes(|r| &blocks[r][8 + 16 * u..], packed);
        }
    }

    #[inline(always)]
    fn heads<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut [f32; ROWS]>) {
        let (scales, packed) = take(packed);
        let (low, packed) = take::<64>(packed);
        let (high, _) = take::<32>(packed);
        let d = C::halves(scales);
        let mut steps = [0; 128];
        unpack4(low, &mut steps);
        add2::<32, 4>(high, &mut steps);
        for (scales, steps) in heads.zip(steps.as_chunks::<ROWS>().0) {
            for ((scale, d), step) in scales.iter_mut().zip(&d).zip(steps) {
                *scale = d * (f32::from(*step) - 32.0);
            }
        }
    }

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Signed]) {
        Self::heads::<C>(packed, scales_of(units));
        for (unit, codes) in units.iter_mut().zip(packed[Self::HEAD..].as_chunks::<256>().0) {
            unit.set_codes(&C::lookup(&IQ4_VALUES, codes));
        }
    }
}

/// Ternary codes of a block, 0 to 2, by unit.
trait Ternary: 'static {
    const BLOCK: usize;
    fn codes(block: &[u8], u: usize) -> [u8; SPAN];
}

pub(super) struct Tq1_0;

impl Ternary for Tq1_0 {
    const BLOCK: usize = 54;

    fn codes(block: &[u8], u: usize) -> [u8; SPAN] {
        const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
        let digit =
            |byte: u8, n: usize| (u16::from(byte.wrapping_mul(POWERS[n])) * 3).to_be_bytes()[0];
        std::array::from_fn(|i| match u * SPAN + i {
            at @ 0..160 => digit(block[at % 32], at / 32),
            at @ 160..240 => digit(block[32 + at % 16], (at - 160) / 16),
            at => digit(block[48 + at % 4], (at - 240) / 4),
        })
    }
}

pub(super) struct Tq2_0;

impl Ternary for Tq2_0 {
    const BLOCK: usize = 66;

    fn codes(block: &[u8], u: usize) -> [u8; SPAN] {
        crumbs(block, u)
    }
}

/// Both ternary formats are packed with two bits per code.
impl<T: Ternary> Weights for T {
    type Unit = Quads;
    type Stored = Quads;
    const UNITS: usize = UNITS;
    const BLOCK: usize = T::BLOCK;
    const PACKED: usize = 66 * ROWS;
    const CHAIN: usize = 8;
    const BITS: usize = 2;
    const HEAD: usize = 32;
    const HEADS: Heads = Heads::Negated;

    fn pack(blocks: &Blocks<'_>, packed: &mut [u8]) {
        let (scales, codes) = packed.split_at_mut(32);
        gather2(blocks, T::BLOCK - 2, scales);
        for (u, packed) in codes.chunks_exact_mut(128).enumerate() {
            pack::<2>(&in_quads(|r| T::codes(blocks[r], u)), 0, packed);
        }
    }

    #[inline(always)]
    fn heads<'h, C: Convert>(packed: &[u8], heads: impl Iterator<Item = &'h mut Minima>) {
        let scale = C::halves(take(packed).0);
        let mut min = scale;
        min.iter_mut().for_each(|scale| *scale = -*scale);
        heads.for_each(|head| *head = Minima { scale, min });
    }

    #[inline(always)]
    fn unpack<C: Convert>(packed: &[u8], units: &mut [Quads]) {
        Self::heads::<C>(packed, heads_of(units));
        for (unit, codes) in units.iter_mut().zip(packed[Self::HEAD..].as_chunks::<128>().0) {
            unpack2(codes, &mut unit.codes);
        }
    }
}
