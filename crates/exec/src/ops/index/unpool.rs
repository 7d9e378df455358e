//! `MaxUnpool`: values put back where `MaxPool` took them from.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::movement::move_elements;
use crate::ops::params::{Known, all_known, fixed, known_ints, open, size};
use fewbit_core::{Error, Node, Result, Tensor, ValueType, element_count};

pub(super) const DEF: OpDef = OpDef::new("MaxUnpool", infer, eval);

/// The shape that pooling with these attributes would have come from.
fn natural_shape(node: &Node, input: &[usize]) -> Result<Vec<usize>> {
    let kernel = node.ints("kernel_shape")?.unwrap_or_default();
    let spatial = kernel.len();
    let strides = node.ints("strides")?.map_or_else(|| vec![1; spatial], <[i64]>::to_vec);
    let pads = node.ints("pads")?.map_or_else(|| vec![0; 2 * spatial], <[i64]>::to_vec);
    if input.len() != spatial + 2 || strides.len() != spatial || pads.len() != 2 * spatial {
        return Err(Error::bad_input(format!(
            "kernel, strides and pads do not fit an input of shape {input:?}"
        )));
    }
    let mut shape = input[..2].to_vec();
    for i in 0..spatial {
        let places = input[i + 2] as i128 - 1;
        let pads = pads[i] as i128 + pads[i + spatial] as i128;
        let dim = places * strides[i] as i128 - pads + kernel[i] as i128;
        let dim = usize::try_from(dim);
        shape.push(dim.map_err(|_| Error::bad_input("the unpooled size is no size"))?);
    }
    Ok(shape)
}

fn output_shape(node: &Node, input: &[usize], given: Option<&[i64]>) -> Result<Vec<usize>> {
    match given {
        None => natural_shape(node, input),
        Some(dims) => dims.iter().map(|&d| size(d, "an output dimension")).collect(),
    }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, indices) = (ctx.input(0)?, ctx.input(1)?);
    let given = ctx.opt(2).map(Tensor::to_i64).transpose()?;
    let natural = natural_shape(ctx.node, input.shape())?;
    let shape = output_shape(ctx.node, input.shape(), given.as_deref())?;
    if indices.shape() != input.shape() || shape.len() != natural.len() {
        return Err(Error::bad_input("values, indices and output shape do not fit together"));
    }
    let Some(total) = element_count(&natural) else {
        return Err(Error::bad_input("the unpooled size overflows"));
    };
    let places = super::index_values(indices, total)?;
    let out = move_elements(ctx, &[input], shape.clone(), |inputs, out, size| {
        out.fill(0);
        for (&place, value) in places.iter().zip(inputs[0].chunks_exact(size)) {
            let slot = moved(place, &natural, &shape)
                .and_then(|at| out.get_mut(at * size..(at + 1) * size))
                .ok_or_else(|| Error::bad_input(format!("index {place} leaves {shape:?}")))?;
            slot.copy_from_slice(value);
        }
        Ok(())
    })?;
    Ok(vec![out])
}

/// A flat position in one shape as a flat position in another of the same rank.
fn moved(mut place: usize, from: &[usize], to: &[usize]) -> Option<usize> {
    if from == to {
        return Some(place);
    }
    let (mut at, mut stride) = (0usize, 1usize);
    for (&from, &to) in from.iter().zip(to).rev() {
        let coordinate = place % from;
        if coordinate >= to {
            return None;
        }
        at += coordinate * stride;
        stride *= to;
        place /= from;
    }
    Some(at)
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(input) = ctx.shape(0) else {
        return Ok(vec![typed(ctx.dtype(0), None)]);
    };
    let shape = match (known_ints(ctx, "", 2)?, all_known(input)) {
        (Known::Value(given), Some(input)) => fixed(&output_shape(ctx.node, &input, Some(&given))?),
        (Known::Absent, Some(input)) => fixed(&natural_shape(ctx.node, &input)?),
        _ => open(input.len()),
    };
    Ok(vec![typed(ctx.dtype(0), Some(shape))])
}
