//! Matrix products with the block formats of language models.
//!
//! Activations become 8-bit codes in blocks of 32 with one binary16 scale each, the layout that
//! ggml calls `Q8_0`: [`quantize_activations`].

mod activations;

pub use activations::{ACTIVATION_BLOCK, ACTIVATION_BYTES, quantize_activations};
