//! Algorithms on weights alone: into which block types the tensors of a language model go, and
//! how rows of numbers get there.

pub mod blocks;
pub mod mix;
