//! Checkpoints in the layout of another program.
//!
//! [`to_gguf`] gives what a GGUF file of a Hugging Face checkpoint holds: metadata as
//! llama.cpp's converter writes it, and [`Pieces`], tensors under their names there with their
//! rows in the order that it wants. Rows are read when they are asked for. [`to_folder`] gives
//! what a folder of Hugging Face holds, the other way round.

mod config;
mod gguf;
mod hugging_face;
mod kept;
mod metadata;
mod piece;
mod seen;
mod vocabulary;

pub use gguf::{GgufForm, to_gguf};
pub use hugging_face::{FolderForm, to_folder};
pub use piece::{Piece, Pieces};
pub(crate) use seen::as_gguf;
