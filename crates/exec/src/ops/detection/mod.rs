//! Operators of detection and spatial-transformer networks: regions, boxes, sampled grids.

mod affine_grid;
mod grid_sample;
mod max_roi_pool;
mod nms;
mod roi_align;

use crate::def::OpDef;

pub(super) const DEFS: &[OpDef] = &[
    affine_grid::DEF,
    grid_sample::DEF,
    grid_sample::MICROSOFT,
    max_roi_pool::DEF,
    nms::DEF,
    roi_align::DEF,
];
