//! Operators that work element by element.

mod binary;
mod clip;
mod compare;
mod dropout;
mod identity;
mod shrink;
mod swiglu;
mod unary;

use crate::def::OpDef;

pub(super) use binary::DEFS as BINARY;
pub(super) use compare::DEFS as COMPARE;
pub(super) use unary::{KERNELS, NUMERIC, PLAIN};

/// Rows that have a file of their own.
pub(super) const SINGLE: &[OpDef] =
    &[identity::DEF, clip::DEF, dropout::DEF, shrink::DEF, swiglu::DEF, binary::POW];
