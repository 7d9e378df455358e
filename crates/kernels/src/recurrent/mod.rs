//! Recurrent layers: in each step a product of the last states with constant weights, and a few
//! functions of it and of the inputs.
//!
//! What the inputs contribute is one product for all steps, which the caller makes. The products with
//! the states are computed in parts of some units each, a [`Cell`] for every direction: a thread
//! computes a part, applies the functions to it, and meets the others where they read its states.

mod cell;
mod functions;
mod layer;
mod product;

pub use cell::{Cell, CellKind, Function, Recurrence};
pub use layer::{Direction, Layer};
