//! Attention and the operators around it in language models.

mod bias;
mod cached;
mod causal_conv;
mod heads;
mod linear;
mod operands;
mod rotary;
mod scaled;
mod visible;

use crate::def::OpDef;

pub(crate) use cached::lower;
pub(super) use {rotary::DEF as ROTARY, scaled::DEF as SCALED};

pub(super) const DEFS: &[OpDef] = &[causal_conv::DEF, linear::DEF, rotary::DEF, scaled::DEF];
