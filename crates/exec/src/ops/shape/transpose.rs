//! `Transpose`: dimensions in another order.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use crate::ops::movement::move_elements;
use crate::ops::params::like_input;
use fewbit_core::{Error, Node, Result, Tensor, ValueType};
use fewbit_kernels::transpose::transpose;

pub(super) const DEF: OpDef = OpDef::new("Transpose", infer, eval).role(Role::SameScale);

/// For each output axis the input axis it comes from; reversed unless `perm` says otherwise.
fn permutation(node: &Node, rank: usize) -> Result<Vec<usize>> {
    let Some(perm) = node.ints("perm")? else {
        return Ok((0..rank).rev().collect());
    };
    let order = crate::ops::params::distinct_axes(perm, rank)?;
    if order.len() != rank {
        return Err(Error::bad_input(format!("perm {perm:?} is no permutation of {rank} axes"))
            .at("attribute `perm`"));
    }
    Ok(order)
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let order = permutation(ctx.node, input.rank())?;
    let shape: Vec<usize> = order.iter().map(|&a| input.shape()[a]).collect();
    // No element moves where all axes that have more than one place keep their order.
    if order.iter().filter(|&&axis| input.shape()[axis] != 1).is_sorted() {
        return Ok(vec![ctx.take(0)?.reshape(shape)?]);
    }
    let out = move_elements(ctx, &[input], shape, |inputs, out, size| {
        transpose(*ctx.kernels, size, inputs[0], input.shape(), &order, out);
        Ok(())
    })?;
    Ok(vec![out])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(dims) = ctx.shape(0) else {
        return Ok(like_input(ctx, None));
    };
    let order = permutation(ctx.node, dims.len())?;
    Ok(like_input(ctx, Some(order.iter().map(|&a| dims[a].clone()).collect())))
}
