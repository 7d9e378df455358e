//! Operators that rearrange elements or make them from shapes.

mod center_crop_pad;
mod concat;
mod depth;
mod expand;
mod fill;
mod fold;
pub(crate) mod pad;
mod query;
mod reshape;
mod slice;
mod split;
mod squeeze;
mod transpose;
mod trilu;

use crate::def::OpDef;

pub(super) use concat::{join, joined_dims};

pub(super) const DEFS: &[OpDef] = &[
    center_crop_pad::DEF,
    concat::DEF,
    depth::DEPTH_TO_SPACE,
    depth::SPACE_TO_DEPTH,
    expand::EXPAND,
    expand::TILE,
    fill::CONSTANT,
    fill::CONSTANT_OF_SHAPE,
    fill::EYE_LIKE,
    fill::RANGE,
    fold::COL2IM,
    pad::DEF,
    query::SHAPE,
    query::SIZE,
    reshape::FLATTEN,
    reshape::RESHAPE,
    slice::DEF,
    split::DEF,
    squeeze::SQUEEZE,
    squeeze::UNSQUEEZE,
    transpose::DEF,
    trilu::DEF,
    trilu::MICROSOFT,
];
