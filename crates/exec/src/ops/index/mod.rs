//! Operators that pick, place or find elements by index.

mod compress;
mod gather;
mod gather_elements;
mod gather_nd;
mod non_zero;
mod one_hot;
mod place;
mod reduction;
mod reverse;
mod scatter_elements;
mod scatter_nd;
mod tensor_scatter;
mod unique;
mod unpool;

use crate::def::OpDef;

pub(super) use gather::{picked, replaced};
pub(super) use place::{index_values, wrap_index};

pub(super) const DEFS: &[OpDef] = &[
    compress::DEF,
    gather::DEF,
    gather_elements::DEF,
    gather_nd::DEF,
    non_zero::DEF,
    one_hot::DEF,
    reverse::DEF,
    scatter_elements::SCATTER,
    scatter_elements::SCATTER_ELEMENTS,
    scatter_nd::DEF,
    tensor_scatter::DEF,
    unique::DEF,
    unpool::DEF,
];
