//! Functions of one or two tensors, element by element.

pub(crate) mod binary;
pub(crate) mod broadcast;
pub(crate) mod map;
#[cfg(test)]
pub(crate) mod sweep;
mod unary;

pub use binary::{Binary, binary_f32};
pub use unary::{Unary, unary_f32, unary_f32_in_place};
