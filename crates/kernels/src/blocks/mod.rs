//! Matrix products with the block formats of language models.
//!
//! Activations become 8-bit codes in blocks of 32 with one binary16 scale each, the layout that
//! ggml calls `Q8_0`: [`quantize_activations`]. Weights stay in the bits of their [`Format`],
//! reordered once: [`PackedBlocks`]. [`matmul_blocks`] multiplies both in integers;
//! [`matmul_blocks_f32`] multiplies float activations with the numbers that the blocks stand for.
//! Weights of 16-bit floats are [`PackedHalves`].

mod activations;
#[cfg(target_arch = "aarch64")]
mod arm_neon;
#[cfg(target_arch = "aarch64")]
mod arm_units;
mod float;
mod format;
mod halves;
mod inputs;
mod kquant;
mod packed;
mod plain;
mod planes;
mod product;
mod tile;
mod tiles;
mod unit;
mod weights;
#[cfg(target_arch = "x86_64")]
mod x86_avx2;
#[cfg(target_arch = "x86_64")]
mod x86_avx512;
#[cfg(target_arch = "x86_64")]
mod x86_avx512_panel;
#[cfg(target_arch = "x86_64")]
mod x86_avx512_units;
#[cfg(target_arch = "x86_64")]
mod x86_halves;
#[cfg(target_arch = "x86_64")]
mod x86_halves_avx512;
#[cfg(target_arch = "x86_64")]
mod x86_inputs;
#[cfg(target_arch = "x86_64")]
mod x86_units;

/// A unit that the instruction sets of this architecture multiply.
#[cfg(target_arch = "aarch64")]
use arm_units::NeonUnit as FastUnit;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use tile::Unit as FastUnit;
#[cfg(target_arch = "x86_64")]
use x86_avx512_units::Avx512Unit as FastUnit;

pub use activations::{ACTIVATION_BLOCK, ACTIVATION_BYTES, quantize_activations};
pub use float::matmul_blocks_f32;
pub use format::Format;
pub use halves::{Half, PackedHalves, decode_halves, matmul_halves};
pub use packed::PackedBlocks;
pub use product::matmul_blocks;
