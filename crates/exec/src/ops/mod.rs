//! The operators. One file (or folder) for each family; its rows stand in [`ALL`].

mod cast;
mod control;
pub(crate) mod conv;
mod detection;
mod elementwise;
mod index;
pub(crate) mod matmul;
mod movement;
mod params;
mod pointwise;
pub(crate) mod pool;
mod quantize;
mod resize;
mod shape;
mod strided;
pub(crate) mod window;

use crate::def::OpDef;

/// Every family. A new operator is its row in its family's file; a new family is one line here.
pub const ALL: &[&[OpDef]] = &[
    cast::DEFS,
    control::DEFS,
    conv::DEFS,
    detection::DEFS,
    elementwise::DEFS,
    index::DEFS,
    matmul::DEFS,
    pointwise::DEFS,
    pool::DEFS,
    quantize::DEFS,
    resize::DEFS,
    shape::DEFS,
];
