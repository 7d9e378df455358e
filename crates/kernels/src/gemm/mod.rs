//! Matrix products, float and int8.
//!
//! The right operand is packed once into panels of 16 columns; the left one is read where it lies,
//! or converted block by block. A microkernel computes a few rows of one panel in registers, an
//! epilogue turns the sums into results. Each output has one accumulator, which runs over k in
//! order; that of a long f32 product waits in memory between parts of k.
//!
//! - f32: [`PackedF32`], [`gemm_f32`], [`Epilogue`].
//! - int8: [`PackedI8`], [`gemm_i8`], [`Output`].

#[cfg(target_arch = "aarch64")]
mod arm_neon;
mod blocks;
pub(crate) mod driver;
#[cfg(target_arch = "x86_64")]
mod few;
mod float;
mod fused_add;
mod int8;
pub(crate) mod kernel;
#[cfg(target_arch = "x86_64")]
mod mixed;
#[cfg(target_arch = "x86_64")]
mod orders;
mod output;
pub(crate) mod pack_f32;
mod pairs;
pub(crate) mod panels;
pub(crate) mod parts;
pub(crate) mod rows;
mod scalar;
pub(crate) mod split;
mod table;
mod weights;
#[cfg(target_arch = "x86_64")]
mod x86_avx2;
#[cfg(target_arch = "x86_64")]
mod x86_avx2_u8;
#[cfg(target_arch = "x86_64")]
mod x86_avx512;
#[cfg(target_arch = "x86_64")]
mod x86_avx512_f32;
#[cfg(target_arch = "x86_64")]
mod x86_avx512_lines;
#[cfg(target_arch = "x86_64")]
mod x86_columns;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_finish;
#[cfg(target_arch = "x86_64")]
mod x86_finish_lines;

#[cfg(target_arch = "aarch64")]
pub(crate) use arm_neon::sdot;
pub use float::{Clamp, Epilogue, Matrix, PackedF32, gemm_f32};
pub(crate) use float::{FloatFinish, drive_f32, load};
pub use fused_add::{Addition, FusedAdd};
pub(crate) use int8::{Activations, Source, drive_i8, unsigned_zero};
pub use int8::{PackedI8, WeightZero, gemm_i8, gemm_i8_batches};
#[cfg(target_arch = "x86_64")]
pub(crate) use output::PlainBytes;
pub use output::{Dequantize, Output, OwnCodes, Requantize, Residual};
pub(crate) use output::{Prepared, Sink};
pub use table::{Kernel, kernels};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_avx2::Avx2I16;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_columns::interleave;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_finish_lines::Limits;
