//! The operators. One file (or folder) for each family; its rows stand in [`ALL`].

mod cast;
mod elementwise;
mod index;
mod movement;
mod params;
mod quantize;
mod resize;
mod shape;
mod strided;

use crate::def::OpDef;

/// Every family. A new operator is its row in its family's file; a new family is one line here.
pub const ALL: &[&[OpDef]] =
    &[cast::DEFS, elementwise::DEFS, index::DEFS, quantize::DEFS, resize::DEFS, shape::DEFS];
