//! Elementwise arithmetic and activations.
