//! Checkpoints in the layout of another program.
//!
//! [`gguf`](to_gguf) gives what a GGUF file of a Hugging Face checkpoint holds: metadata as
//! llama.cpp's converter writes it, and [`Pieces`], tensors under their names there with their
//! rows in the order that it wants. Rows are read when they are asked for.

mod gguf;
mod metadata;
mod piece;
mod vocabulary;

pub use gguf::{GgufForm, to_gguf};
pub use piece::{Piece, Pieces};
