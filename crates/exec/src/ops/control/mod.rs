//! Control flow: `If`, `Loop`, `Scan`. Sequences are not handled.

mod branch;
mod iterate;
mod scan;

use crate::def::OpDef;

pub(super) const DEFS: &[OpDef] = &[branch::DEF, iterate::DEF, scan::DEF];
