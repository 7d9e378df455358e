//! Convolutions over NHWC images, float and int8.
//!
//! A dense or grouped convolution is a matrix product per group, whose left operand is gathered
//! for a block of output pixels at a time (never for a whole image), or, for 1x1 kernels of stride
//! 1, read where it lies. Int8 kernels of 3x3 take fewer products where that pays. Depthwise
//! convolutions have kernels of their own, vectorized over channels; so do floats in groups of few
//! channels, while int8 groups are merged until they fill a panel.

mod depthwise;
mod depthwise_band;
mod depthwise_f32;
mod depthwise_i8;
#[cfg(target_arch = "x86_64")]
mod depthwise_vnni;
#[cfg(target_arch = "x86_64")]
mod depthwise_x86;
mod float;
mod grouped;
mod grouped_lanes;
#[cfg(target_arch = "x86_64")]
mod grouped_x86;
mod im2col;
mod int8;
mod merged;
mod pair_tile;
#[cfg(target_arch = "aarch64")]
mod pair_tile_arm;
#[cfg(target_arch = "x86_64")]
mod pair_tile_x86;
mod patch_parts;
mod sequence;
mod shape;
#[cfg(target_arch = "x86_64")]
mod winograd;
#[cfg(target_arch = "x86_64")]
mod winograd_x86;

pub use float::{PackedConvF32, conv2d_f32};
pub use int8::{ConvInput, PackedConvI8, conv2d_i8};
pub use sequence::{Link, Place, conv2d_i8_sequence, start_in_buffer};
pub use shape::ConvShape;
