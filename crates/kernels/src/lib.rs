//! Hot loops of fewbit: GEMM, convolution, elementwise, on slices, for every instruction set.
//!
//! The crate knows no graph and no tensor: every function takes plain slices, a shape, and a
//! [`Ctx`] that says which instruction set to use and which threads to run on. All `unsafe` code
//! and all SIMD of the project live here.
//!
//! # A tour
//!
//! - [`cpu`]: which instruction sets there are, and [`Isa`], a value that only a CPU that has the
//!   instructions can make. [`threads`]: the pool that all parallel loops share.
//! - [`gemm`] and [`conv`]: matrix products and convolutions, float and int8, with composable
//!   epilogues (bias, requantization, activation, residual). Weights are packed once.
//! - [`blocks`]: products with the block formats of language models. [`attention`] and [`cache`]:
//!   products with keys and values where they lie.
//! - [`recurrent`]: the steps of RNN, GRU and LSTM.
//! - [`elementwise`], [`quantize`], [`reduce`], [`softmax`], [`norm`], [`transpose`]:
//!   everything between two matrix products. [`math`] holds our own `exp`, `tanh` and `erf`.
//! - [`mod@peak`]: what the processor multiplies at most.
//!
//! # The same bits everywhere
//!
//! Each function returns the same bits for every [`Isa`] and for any number of threads:
//!
//! - A GEMM or convolution output has one accumulator that runs over k in order with fused
//!   multiply-add. Vector width widens the other dimensions only; k is never split over threads.
//! - Integer accumulation is exact; no kernel relies on saturating intermediate sums.
//! - Reductions use 16 virtual lanes and one fixed tree, whatever the vector width.
//! - Most bodies are plain Rust, instantiated once per instruction set by [`Isa::run`]: Rust
//!   neither contracts nor re-associates floating point, so the instances agree by construction.
//!   Bodies written with intrinsics have a scalar twin, and the tests compare them bit for bit.
//!
//! Panics are for programmer errors only (a slice shorter than its shape says): callers check
//! shapes that come from a file before they come here.

pub mod attention;
#[cfg(all(target_arch = "x86_64", feature = "avx512-model"))]
mod avx512_model;
pub mod blocks;
pub mod cache;
pub mod conv;
pub mod cpu;
pub mod elementwise;
pub mod encode;
pub mod gemm;
mod int8;
pub mod math;
pub mod norm;
mod pages;
pub mod peak;
mod planes;
pub mod quantize;
pub mod recurrent;
pub mod reduce;
mod scratch;
pub mod softmax;
pub mod threads;
pub mod transpose;

pub use cpu::{Ctx, Isa, IsaError, Job, Level};
pub use int8::{Int8, Int8Mut};
pub use threads::Pool;
