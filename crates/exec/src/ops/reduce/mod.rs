//! Reductions along axes.

mod arg;
mod axes;
mod integer;
mod sums;

pub(crate) use integer::lower_integer;

use crate::def::OpDef;

pub(super) const DEFS: &[OpDef] = &[
    arg::MAX,
    arg::MIN,
    sums::L1,
    sums::L2,
    sums::LOG_SUM,
    sums::LOG_SUM_EXP,
    sums::MAX,
    sums::MEAN,
    sums::MIN,
    sums::PROD,
    sums::SUM,
    sums::SUM_SQUARE,
];
