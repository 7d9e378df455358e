//! Control flow: `If`, `Loop`, `Scan`. Sequences are not handled.

mod branch;
mod iterate;
mod scan;

use crate::def::OpDef;

/// The attributes with a graph that an operator cannot do without.
pub(crate) fn required_graphs(op: &str) -> &'static [&'static str] {
    match op {
        "If" => &["then_branch", "else_branch"],
        "Loop" | "Scan" => &["body"],
        _ => &[],
    }
}

pub(super) const DEFS: &[OpDef] = &[branch::DEF, iterate::DEF, scan::DEF];
