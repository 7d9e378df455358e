//! `DepthToSpace` and `SpaceToDepth`: blocks of pixels exchanged with channels.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use crate::ops::movement::move_elements;
use crate::ops::params::{like_input, size};
use crate::ops::strided::{axes, copy, strides};
use fewbit_core::{Dim, Error, Node, Result, Tensor, ValueType};

pub(super) const DEPTH_TO_SPACE: OpDef =
    OpDef::new("DepthToSpace", infer_to_space, eval_to_space).role(Role::SameScale);
pub(super) const SPACE_TO_DEPTH: OpDef =
    OpDef::new("SpaceToDepth", infer_to_depth, eval_to_depth).role(Role::SameScale);

fn block_size(node: &Node) -> Result<usize> {
    let block = size(node.int("blocksize")?.unwrap_or(0), "blocksize")?;
    match block.checked_mul(block) {
        Some(1..) => Ok(block),
        _ => Err(Error::bad_input(format!("{block} is no block size")).at("attribute `blocksize`")),
    }
}

/// Which channels the pixels of a block become.
enum Mode {
    /// `DCR`: all channels of one pixel, then those of the next.
    DepthFirst,
    /// `CRD`: all pixels of one channel, then those of the next.
    ColumnFirst,
}

fn mode(ctx: &EvalCtx) -> Result<Mode> {
    match ctx.string("mode", "DCR")? {
        "DCR" => Ok(Mode::DepthFirst),
        "CRD" => Ok(Mode::ColumnFirst),
        other => Err(Error::bad_input(format!("unknown mode `{other}`")).at("attribute `mode`")),
    }
}

fn four<T: Clone>(shape: &[T]) -> Result<[T; 4]> {
    let rank = shape.len();
    shape.to_vec().try_into().map_err(|_| Error::bad_input(format!("needs rank 4, found {rank}")))
}

fn divided(dim: usize, by: usize) -> Result<usize> {
    if dim.is_multiple_of(by) {
        return Ok(dim / by);
    }
    Err(Error::bad_input(format!("a dimension of {dim} is no multiple of {by}")))
}

fn multiplied(dim: usize, by: usize) -> Result<usize> {
    dim.checked_mul(by).ok_or_else(|| Error::bad_input(format!("{dim} x {by} overflows")))
}

/// Copies `input`, read as `sizes`, with its axes in the given order.
fn permuted(
    ctx: &EvalCtx,
    input: &Tensor,
    sizes: [usize; 6],
    order: [usize; 6],
    shape: Vec<usize>,
) -> Result<Tensor> {
    let from = strides(&sizes);
    let split = order.map(|a| sizes[a]);
    let walk = axes(&split, &strides(&split), &order.map(|a| from[a]));
    move_elements(ctx, &[input], shape, |inputs, out, size| {
        copy(size, (out, 0), (inputs[0], 0), &walk);
        Ok(())
    })
}

fn eval_to_space(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let b = block_size(ctx.node)?;
    let [n, c, h, w] = four(input.shape())?;
    let depth = divided(c, b * b)?;
    let shape = vec![n, depth, multiplied(h, b)?, multiplied(w, b)?];
    let out = match mode(ctx)? {
        Mode::DepthFirst => {
            permuted(ctx, input, [n, b, b, depth, h, w], [0, 3, 4, 1, 5, 2], shape)?
        }
        Mode::ColumnFirst => {
            permuted(ctx, input, [n, depth, b, b, h, w], [0, 1, 4, 2, 5, 3], shape)?
        }
    };
    Ok(vec![out])
}

fn eval_to_depth(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let b = block_size(ctx.node)?;
    let [n, c, h, w] = four(input.shape())?;
    let (h, w) = (divided(h, b)?, divided(w, b)?);
    let shape = vec![n, multiplied(c, b * b)?, h, w];
    let order = match mode(ctx)? {
        Mode::DepthFirst => [0, 3, 5, 1, 2, 4],
        Mode::ColumnFirst => [0, 1, 3, 5, 2, 4],
    };
    Ok(vec![permuted(ctx, input, [n, c, h, b, w, b], order, shape)?])
}

fn with_dims(
    ctx: &InferCtx,
    change: impl Fn(usize, usize) -> Result<Option<usize>>,
) -> Result<Vec<ValueType>> {
    let Some(input) = ctx.shape(0) else {
        return Ok(like_input(ctx, None));
    };
    let mut dims = four(input)?;
    for (axis, dim) in dims.iter_mut().enumerate() {
        let changed = match dim.known() {
            Some(n) => change(axis, n)?.map_or(dim.clone(), Dim::Known),
            None if axis == 0 => dim.clone(),
            None => Dim::Unknown,
        };
        *dim = changed;
    }
    Ok(like_input(ctx, Some(dims.to_vec())))
}

fn infer_to_space(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let b = block_size(ctx.node)?;
    with_dims(ctx, |axis, n| match axis {
        0 => Ok(None),
        1 => divided(n, b * b).map(Some),
        _ => multiplied(n, b).map(Some),
    })
}

fn infer_to_depth(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let b = block_size(ctx.node)?;
    with_dims(ctx, |axis, n| match axis {
        0 => Ok(None),
        1 => multiplied(n, b * b).map(Some),
        _ => divided(n, b).map(Some),
    })
}
