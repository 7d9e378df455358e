//! The operators. One file (or folder) for each family; its rows stand in [`ALL`].

pub(crate) mod attention;
mod bitwise;
mod broadcast;
mod cast;
mod contrib;
pub(crate) mod control;
pub(crate) mod conv;
mod cumulative;
mod detection;
mod determinant;
mod einsum;
mod elementwise;
mod half;
mod index;
mod loss;
pub(crate) mod matmul;
mod movement;
mod norm;
mod number;
mod params;
pub(crate) mod pool;
pub(crate) mod quantize;
mod random;
pub(crate) mod recurrent;
pub(crate) mod reduce;
mod resize;
pub(crate) mod shape;
mod signal;
mod strided;
mod tfidf;
mod top_k;
pub(crate) mod window;

use crate::def::OpDef;

/// Every family. A new operator is its row in its family's file; a new family is one line here.
pub const ALL: &[&[OpDef]] = &[
    attention::DEFS,
    bitwise::DEFS,
    cast::DEFS,
    contrib::DEFS,
    control::DEFS,
    conv::DEFS,
    cumulative::DEFS,
    detection::DEFS,
    determinant::DEFS,
    einsum::DEFS,
    elementwise::BINARY,
    elementwise::COMPARE,
    elementwise::KERNELS,
    elementwise::NUMERIC,
    elementwise::PLAIN,
    elementwise::SINGLE,
    index::DEFS,
    loss::DEFS,
    matmul::DEFS,
    norm::DEFS,
    pool::DEFS,
    quantize::DEFS,
    random::DEFS,
    recurrent::DEFS,
    reduce::DEFS,
    resize::DEFS,
    shape::DEFS,
    signal::DEFS,
    tfidf::DEFS,
    top_k::DEFS,
];
