//! Algorithms on weights alone: into which block types the tensors of a language model go, and
//! how rows of numbers get there: to the nearest codes, or to those that together change the
//! outputs least.

pub mod blocks;
pub mod factor;
pub mod gptq;
pub mod grid;
pub mod hessian;
pub mod mix;
pub mod refine;
pub mod rounding;
