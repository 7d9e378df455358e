//! Pools as channels-last steps.

use super::Pool;
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{Node, NodeId, Result, Tensor};

/// The step for a pool of known rank; `None` leaves it to the plain evaluation.
///
/// # Errors
/// When an attribute is missing or no window can have it.
pub(crate) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Option<Lowered>> {
    let (Some(x), Some(y)) = (node.input(0), node.output(0)) else { return Ok(None) };
    if lowering.ty(x).rank().is_none_or(|rank| rank < 3) || node.output(1).is_some() {
        return Ok(None);
    }
    let rule = Rule::Last { output: true };
    Ok(Some(Lowered::new(vec![id], kernel(node)?, vec![Some(x)], y, rule)))
}

/// The channels-last kernel of a pool without indices.
///
/// # Errors
/// As [`lower`].
pub(crate) fn kernel(node: &Node) -> Result<Box<dyn Kernel>> {
    Ok(Box::new(PoolKernel { pool: Pool::new(node)?, name: node.op.clone() }))
}

struct PoolKernel {
    pool: Pool,
    name: String,
}

impl Kernel for PoolKernel {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let output = self.pool.run(ctx.kernels, ctx.arena, required(inputs, 0)?)?;
        Ok(vec![output])
    }
}
