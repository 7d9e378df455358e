//! Operators that work element by element.

mod identity;

use crate::def::OpDef;

pub(super) const DEFS: &[OpDef] = &[identity::DEF];
