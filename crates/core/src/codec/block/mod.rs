//! Block formats of language models: a few elements stored together with their scale.
//!
//! The layouts are those of ggml (GGUF version 3). [`dequantize`] is the meaning of the bytes;
//! the fast decoders of `fewbit-kernels` are tested against it. All fields are little-endian,
//! bits are counted from the lowest, and a row of a matrix holds whole blocks.

mod codebook;
mod codebook_data;
mod grid;
mod kquant;
mod legacy;
mod nonlinear;
mod ternary;

use crate::codec::decode_f32;
use crate::dtype::DType;
use crate::error::{Error, Result};
use std::fmt;

pub use nonlinear::{IQ4_VALUES, MXFP4_VALUES, half_e8m0, half_ue4m3};

/// Declares the enum and its tables: variant, name, ggml id, elements and bytes per block.
macro_rules! block_types {
    ($($(#[$doc:meta])* $variant:ident $name:literal $id:literal $elements:literal $bytes:literal;)*) => {
        /// How a tensor of a language model is stored: one of the types of ggml.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum BlockType { $($(#[$doc])* $variant,)* }

        impl BlockType {
            /// Every type, in the order of declaration.
            pub const ALL: &'static [BlockType] = &[$(BlockType::$variant,)*];

            /// The name in ggml, such as `Q4_K`.
            pub const fn name(self) -> &'static str {
                match self { $(BlockType::$variant => $name,)* }
            }

            /// The number of the type in GGUF files (`enum ggml_type`).
            pub const fn ggml_id(self) -> u32 {
                match self { $(BlockType::$variant => $id,)* }
            }

            /// Elements per block.
            pub const fn elements(self) -> usize {
                match self { $(BlockType::$variant => $elements,)* }
            }

            /// Bytes per block.
            pub const fn bytes(self) -> usize {
                match self { $(BlockType::$variant => $bytes,)* }
            }
        }
    };
}

block_types! {
    /// IEEE 754 binary32.
    F32 "F32" 0 1 4;
    /// IEEE 754 binary16.
    F16 "F16" 1 1 2;
    /// Upper half of a binary32.
    BF16 "BF16" 30 1 2;
    /// IEEE 754 binary64.
    F64 "F64" 28 1 8;
    /// Signed 8-bit integer.
    I8 "I8" 24 1 1;
    /// Signed 16-bit integer.
    I16 "I16" 25 1 2;
    /// Signed 32-bit integer.
    I32 "I32" 26 1 4;
    /// Signed 64-bit integer.
    I64 "I64" 27 1 8;
    /// 4 bits, scale.
    Q4_0 "Q4_0" 2 32 18;
    /// 4 bits, scale and minimum.
    Q4_1 "Q4_1" 3 32 20;
    /// 5 bits, scale.
    Q5_0 "Q5_0" 6 32 22;
    /// 5 bits, scale and minimum.
    Q5_1 "Q5_1" 7 32 24;
    /// 8 bits, scale.
    Q8_0 "Q8_0" 8 32 34;
    /// 2 bits; scales and minima of 16 elements in 4 bits.
    Q2K "Q2_K" 10 256 84;
    /// 3 bits; scales of 16 elements in 6 bits.
    Q3K "Q3_K" 11 256 110;
    /// 4 bits; scales and minima of 32 elements in 6 bits.
    Q4K "Q4_K" 12 256 144;
    /// 5 bits; scales and minima of 32 elements in 6 bits.
    Q5K "Q5_K" 13 256 176;
    /// 6 bits; scales of 16 elements in 8 bits.
    Q6K "Q6_K" 14 256 210;
    /// 2.06 bits: codebook of 256 entries for 8 elements.
    Iq2Xxs "IQ2_XXS" 16 256 66;
    /// 2.31 bits: codebook of 512 entries for 8 elements.
    Iq2Xs "IQ2_XS" 17 256 74;
    /// 3.06 bits: codebook of 256 entries for 4 elements.
    Iq3Xxs "IQ3_XXS" 18 256 98;
    /// 1.56 bits: codebook of 2048 ternary entries for 8 elements.
    Iq1S "IQ1_S" 19 256 50;
    /// 4 bits into a fixed list of 16 values, scale.
    Iq4Nl "IQ4_NL" 20 32 18;
    /// 3.44 bits: codebook of 512 entries for 4 elements.
    Iq3S "IQ3_S" 21 256 110;
    /// 2.56 bits: codebook of 1024 entries for 8 elements.
    Iq2S "IQ2_S" 22 256 82;
    /// As `IQ4_NL`; scales of 32 elements in 6 bits.
    Iq4Xs "IQ4_XS" 23 256 136;
    /// 1.75 bits: as `IQ1_S`, scales of 16 elements.
    Iq1M "IQ1_M" 29 256 56;
    /// Ternary, 5 elements in a byte.
    Tq1_0 "TQ1_0" 34 256 54;
    /// Ternary, 4 elements in a byte.
    Tq2_0 "TQ2_0" 35 256 66;
    /// FP4 E2M1 with an E8M0 scale (OCP Microscaling Formats 1.0).
    Mxfp4 "MXFP4" 39 32 17;
    /// FP4 E2M1 with E4M3 scales of 16 elements.
    Nvfp4 "NVFP4" 40 64 36;
    /// Signs, one scale.
    Q1_0 "Q1_0" 41 128 18;
    /// 2 bits (-1, 0, 1, 2), scale.
    Q2_0 "Q2_0" 42 64 18;
}

impl BlockType {
    /// The type with this number in a GGUF file.
    ///
    /// # Errors
    /// When no type has it, or readers of today have dropped it.
    pub fn from_ggml_id(id: u32) -> Result<BlockType> {
        let known = BlockType::ALL.iter().find(|t| t.ggml_id() == id);
        known.copied().ok_or_else(|| {
            let what = match id {
                4 | 5 | 31..=33 | 36..=38 => "was removed from ggml",
                9 | 15 => "is for intermediate results only",
                _ => "is unknown",
            };
            Error::unsupported(format!("tensor type {id} {what}")).code("FB-4101")
        })
    }

    /// The type called `name`, in upper or lower case.
    ///
    /// # Errors
    /// When no type is called so.
    pub fn from_name(name: &str) -> Result<BlockType> {
        let known = BlockType::ALL.iter().find(|t| t.name().eq_ignore_ascii_case(name));
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = BlockType::ALL.iter().map(|t| t.name()).collect();
            Error::usage(format!("there is no tensor type `{name}`"))
                .code("FB-2101")
                .hint(format!("one of: {}", names.join(", ")))
        })
    }

    /// The element type of which this is a plain array, if it is one.
    pub fn dtype(self) -> Option<DType> {
        Some(match self {
            BlockType::F32 => DType::F32,
            BlockType::F16 => DType::F16,
            BlockType::BF16 => DType::BF16,
            BlockType::F64 => DType::F64,
            BlockType::I8 => DType::I8,
            BlockType::I16 => DType::I16,
            BlockType::I32 => DType::I32,
            BlockType::I64 => DType::I64,
            _ => return None,
        })
    }

    /// Bytes of a row of `elements`.
    ///
    /// # Errors
    /// When the row is no whole number of blocks, or too long.
    pub fn row_bytes(self, elements: usize) -> Result<usize> {
        if !elements.is_multiple_of(self.elements()) {
            return Err(Error::bad_input(format!(
                "a row of {elements} elements is no whole number of {self} blocks of {}",
                self.elements()
            ))
            .code("FB-3101"));
        }
        (elements / self.elements()).checked_mul(self.bytes()).ok_or_else(|| {
            Error::bad_input(format!("a row of {elements} {self} elements is too long"))
        })
    }

    /// Elements of a row of `bytes`.
    ///
    /// # Errors
    /// When the bytes are no whole number of blocks, or too many.
    pub fn row_elements(self, bytes: usize) -> Result<usize> {
        if !bytes.is_multiple_of(self.bytes()) {
            return Err(Error::bad_input(format!(
                "{bytes} bytes are no whole number of {self} blocks of {} bytes",
                self.bytes()
            ))
            .code("FB-3102"));
        }
        (bytes / self.bytes())
            .checked_mul(self.elements())
            .ok_or_else(|| Error::bad_input(format!("{bytes} bytes of {self} are too many")))
    }

    /// Decodes one block of this type; `None` for plain arrays.
    fn decoder(self) -> Option<Decoder> {
        use BlockType::*;
        Some(match self {
            F32 | F16 | BF16 | F64 | I8 | I16 | I32 | I64 => return None,
            Q4_0 => legacy::q4_0,
            Q4_1 => legacy::q4_1,
            Q5_0 => legacy::q5_0,
            Q5_1 => legacy::q5_1,
            Q8_0 => legacy::q8_0,
            Q1_0 => legacy::q1_0,
            Q2_0 => legacy::q2_0,
            Q2K => kquant::q2_k,
            Q3K => kquant::q3_k,
            Q4K => kquant::q4_k,
            Q5K => kquant::q5_k,
            Q6K => kquant::q6_k,
            Iq1S => grid::iq1_s,
            Iq1M => grid::iq1_m,
            Iq2Xxs => grid::iq2_xxs,
            Iq2Xs => grid::iq2_xs,
            Iq2S => grid::iq2_s,
            Iq3Xxs => grid::iq3_xxs,
            Iq3S => grid::iq3_s,
            Iq4Nl => nonlinear::iq4_nl,
            Iq4Xs => nonlinear::iq4_xs,
            Mxfp4 => nonlinear::mxfp4,
            Nvfp4 => nonlinear::nvfp4,
            Tq1_0 => ternary::tq1_0,
            Tq2_0 => ternary::tq2_0,
        })
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Decodes a block of exactly the type's bytes into exactly the type's elements.
type Decoder = fn(&[u8], &mut [f32]);

/// Decodes whole blocks: `bytes` into `out`, which has as many elements.
///
/// # Errors
/// When the lengths do not fit the type and each other.
pub fn dequantize(ty: BlockType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let elements = ty.row_elements(bytes.len())?;
    if elements != out.len() {
        return Err(Error::internal(format!(
            "{} bytes of {ty} are {elements} elements, not {}",
            bytes.len(),
            out.len()
        )));
    }
    match (ty.decoder(), ty.dtype()) {
        (Some(decode), _) => {
            let blocks = bytes.chunks_exact(ty.bytes());
            blocks.zip(out.chunks_exact_mut(ty.elements())).for_each(|(b, o)| decode(b, o));
        }
        (None, Some(dtype)) => out.copy_from_slice(&decode_f32(dtype, bytes, elements)?),
        (None, None) => return Err(Error::internal(format!("{ty} has no decoder"))),
    }
    Ok(())
}

/// The binary16 number at byte `at`.
fn half(block: &[u8], at: usize) -> f32 {
    half::f16::from_bits(word(block, at)).to_f32()
}

/// The 16-bit word at byte `at`.
fn word(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The 32-bit word at byte `at`.
fn dword(block: &[u8], at: usize) -> u32 {
    u32::from(word(block, at)) | u32::from(word(block, at + 2)) << 16
}

#[cfg(test)]
mod tests;
