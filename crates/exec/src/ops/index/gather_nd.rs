//! `GatherND`: slices picked by tuples of indices.

use super::place::tuple_offsets;
use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use crate::ops::movement::move_elements;
use crate::ops::params::{like_input, size};
use fewbit_core::{Dim, Error, Node, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("GatherND", infer, eval).role(Role::SameScale);

/// How the shapes fit together.
struct Plan {
    batch: usize,
    depth: usize,
}

fn plan(node: &Node, data: usize, indices: usize, depth: usize) -> Result<Plan> {
    let batch = size(node.int("batch_dims")?.unwrap_or(0), "batch_dims")?;
    // Compared without adding, since each may be as large as a file likes to claim.
    let fits = batch < indices && batch <= data && depth >= 1 && depth <= data - batch;
    if fits {
        return Ok(Plan { batch, depth });
    }
    Err(Error::bad_input(format!(
        "tuples of {depth} indices with {batch} batch dimensions do not address data of rank {data}"
    )))
}

fn output<T: Clone>(data: &[T], indices: &[T], plan: &Plan) -> Vec<T> {
    [&indices[..indices.len() - 1], &data[plan.batch + plan.depth..]].concat()
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (data, indices) = (ctx.input(0)?, ctx.input(1)?);
    let depth = indices.shape().last().copied().unwrap_or(0);
    let plan = plan(ctx.node, data.rank(), indices.rank(), depth)?;
    let (batch, rest) = data.shape().split_at(plan.batch);
    if *batch != indices.shape()[..plan.batch] {
        return Err(Error::bad_input(format!(
            "batch dimensions of {:?} and {:?} differ",
            data.shape(),
            indices.shape()
        )));
    }
    let offsets = tuple_offsets(&indices.to_i64()?, depth, rest)?;
    let shape = output(data.shape(), indices.shape(), &plan);
    let out = move_elements(ctx, &[data], shape, |inputs, out, size| {
        let block = rest[depth..].iter().product::<usize>() * size;
        if out.is_empty() {
            return Ok(());
        }
        let per_batch = offsets.len() / batch.iter().product::<usize>();
        let places = rest[..depth].iter().product::<usize>();
        for (i, slot) in out.chunks_exact_mut(block).enumerate() {
            let source = i / per_batch * places + offsets[i];
            slot.copy_from_slice(&inputs[0][source * block..][..block]);
        }
        Ok(())
    })?;
    Ok(vec![out])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let (Some(data), Some(indices)) = (ctx.shape(0), ctx.shape(1)) else {
        return Ok(like_input(ctx, None));
    };
    let Some(depth) = indices.last().and_then(Dim::known) else {
        return Ok(like_input(ctx, None));
    };
    let plan = plan(ctx.node, data.len(), indices.len(), depth)?;
    Ok(like_input(ctx, Some(output(data, indices, &plan))))
}
