//! Encoders of the block types of language models: `f32` rows into scales and small codes.
//!
//! Every encoder looks for the scales that leave the least squared error, each element weighted
//! by how much it matters (its column's mean squared activation), and writes the layout of ggml.
//! Eight blocks are searched at once, one in each lane of a vector, so that no sum ever crosses
//! lanes: every instruction set gives the same bytes.
//!
//! Codes are rounded half to even; sums use fma where `Lanes::fma` is written.

mod affine;
mod grid;
mod half;
mod iq3;
mod iq3_codes;
mod lanes;
mod loss;
mod mxfp4;
mod single;
mod super_affine;
mod super_symmetric;
mod symmetric;
mod ternary;
mod tile;

pub use loss::Loss;

#[cfg(target_arch = "x86_64")]
use crate::cpu::{self, Level};
use crate::cpu::{Isa, Job};
use lanes::{Lanes, Plain};
use std::marker::PhantomData;

/// Elements encoded at a time: eight blocks of 32, or a block of 256.
const GROUP: usize = 256;

/// The elements to encode, and their weights (1 where there are none).
#[derive(Clone, Copy)]
struct Group<'a> {
    x: &'a [f32; GROUP],
    weight: Option<&'a [f32; GROUP]>,
}

/// Writes the blocks of one group.
trait Encoder {
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss;
}

/// Declares [`Encoding`]: the name, elements and bytes of a block, and the encoder.
macro_rules! encodings {
    ($($(#[$doc:meta])* $name:ident $elements:literal $bytes:literal $encoder:expr;)*) => {
        /// A block layout to write.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Encoding { $($(#[$doc])* $name,)* }

        impl Encoding {
            /// Every layout.
            pub const ALL: &'static [Encoding] = &[$(Encoding::$name,)*];

            /// Elements of a block.
            pub const fn elements(self) -> usize {
                match self { $(Encoding::$name => $elements,)* }
            }

            /// Bytes of a block.
            pub const fn bytes(self) -> usize {
                match self { $(Encoding::$name => $bytes,)* }
            }

            fn encode(self, isa: Isa, rows: Rows<'_>, out: &mut [u8]) -> Loss {
                match self { $(Encoding::$name => rows.encode(isa, &$encoder, self, out),)* }
            }
        }
    };
}

encodings! {
    /// 4 bits, scale.
    Q4_0 32 18 single::Q4_0;
    /// 4 bits, scale and minimum.
    Q4_1 32 20 single::Q4_1;
    /// 5 bits, scale.
    Q5_0 32 22 single::Q5_0;
    /// 5 bits, scale and minimum.
    Q5_1 32 24 single::Q5_1;
    /// 8 bits, scale.
    Q8_0 32 34 single::Q8_0;
    /// 4 bits into 16 fixed values, scale.
    Iq4Nl 32 18 single::Iq4Nl;
    /// 2 bits; scales and minima of 16 elements in 4 bits.
    Q2K 256 84 super_affine::Q2K;
    /// 3 bits; scales of 16 elements in 6 bits.
    Q3K 256 110 super_symmetric::Q3K;
    /// 4 bits; scales and minima of 32 elements in 6 bits.
    Q4K 256 144 super_affine::Q4K;
    /// 5 bits; scales and minima of 32 elements in 6 bits.
    Q5K 256 176 super_affine::Q5K;
    /// 6 bits; scales of 16 elements in 8 bits.
    Q6K 256 210 super_symmetric::Q6K;
    /// As `Iq4Nl`; scales of 32 elements in 6 bits.
    Iq4Xs 256 136 super_symmetric::Iq4Xs;
    /// 3.44 bits: codebook of 512 entries for 4 elements.
    Iq3S 256 110 iq3::Iq3S;
    /// Ternary, 5 elements in a byte.
    Tq1_0 256 54 ternary::Tq1_0;
    /// Ternary, 4 elements in a byte.
    Tq2_0 256 66 ternary::Tq2_0;
    /// FP4 E2M1, a power of two as scale.
    Mxfp4 32 17 mxfp4::Mxfp4;
}

/// Encodes rows of `columns` elements into blocks, one after the other.
///
/// `importance` says how much the squared error of each column counts: finite, not negative,
/// and not all near zero beside 1. The rows are whole blocks; `out` has their bytes. Elements
/// must be finite; others give blocks that mean nothing, but nothing worse.
///
/// # Panics
/// When lengths do not fit each other.
pub fn encode(
    isa: Isa,
    encoding: Encoding,
    x: &[f32],
    columns: usize,
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Loss {
    assert!(columns > 0 && columns.is_multiple_of(encoding.elements()));
    assert!(x.len().is_multiple_of(columns) && importance.is_none_or(|w| w.len() == columns));
    assert_eq!(out.len(), x.len() / encoding.elements() * encoding.bytes());
    encoding.encode(isa, Rows { x, importance }, out)
}

/// The elements of whole rows.
#[derive(Clone, Copy)]
struct Rows<'a> {
    x: &'a [f32],
    importance: Option<&'a [f32]>,
}

impl Rows<'_> {
    fn encode(self, isa: Isa, encoder: &impl Encoder, encoding: Encoding, out: &mut [u8]) -> Loss {
        let group_bytes = GROUP / encoding.elements() * encoding.bytes();
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Avx512 => {
                let job = Encode { rows: self, encoder, group_bytes, out, lanes: PhantomData };
                // SAFETY: an `Isa` of these levels exists only where the CPU has AVX2 and FMA.
                unsafe { cpu::run_avx2::<Encode<'_, _, lanes::Wide>>(job) }
            }
            _ => {
                let lanes = PhantomData::<Plain>;
                Encode { rows: self, encoder, group_bytes, out, lanes }.run()
            }
        }
    }

    /// The group that begins at element `start`; zeros follow the last element. It is copied
    /// into the buffers where it does not lie there as a whole.
    #[inline(always)]
    fn group<'a>(
        &'a self,
        start: usize,
        x: &'a mut [f32; GROUP],
        weight: &'a mut [f32; GROUP],
    ) -> Group<'a> {
        let rest = &self.x[start..];
        let x = match rest.first_chunk() {
            Some(whole) => whole,
            None => {
                x[..rest.len()].copy_from_slice(rest);
                x[rest.len()..].fill(0.0);
                x
            }
        };
        let Some(importance) = self.importance else { return Group { x, weight: None } };
        let column = start % importance.len();
        let weight = match importance[column..].first_chunk() {
            Some(whole) => whole,
            None => {
                repeat(importance, column, weight);
                weight
            }
        };
        Group { x, weight: Some(weight) }
    }
}

/// The importance of columns from `column` on, row after row.
fn repeat(importance: &[f32], mut column: usize, weight: &mut [f32; GROUP]) {
    let mut filled = 0;
    while filled < GROUP {
        let part = (importance.len() - column).min(GROUP - filled);
        weight[filled..filled + part].copy_from_slice(&importance[column..column + part]);
        (filled, column) = (filled + part, 0);
    }
}

struct Encode<'a, E, V> {
    rows: Rows<'a>,
    encoder: &'a E,
    group_bytes: usize,
    out: &'a mut [u8],
    lanes: PhantomData<V>,
}

impl<E: Encoder, V: Lanes> Job for Encode<'_, E, V> {
    type Output = Loss;
    #[inline(always)]
    fn run(self) -> Loss {
        let (mut x, mut weight) = ([0.0; GROUP], [1.0; GROUP]);
        let mut last = [0; 8 * 34];
        let mut loss = Loss::default();
        for (i, out) in self.out.chunks_mut(self.group_bytes).enumerate() {
            let group = self.rows.group(i * GROUP, &mut x, &mut weight);
            let whole = out.len() == self.group_bytes;
            let to = if whole { &mut *out } else { &mut last[..self.group_bytes] };
            loss = loss.merge(self.encoder.group::<V>(group, to));
            if !whole {
                // Blocks beyond the end hold zeros and are dropped.
                out.copy_from_slice(&last[..out.len()]);
            }
        }
        loss
    }
}
