//! ONNX Runtime's `QGemm`: `alpha A B + C` on 8-bit codes.

use super::requantize::{one_scale, one_zero_point, requantized};
use super::{MICROSOFT, exact};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::matmul::shape::product;
use fewbit_core::{DType, Dim, Error, Node, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("QGemm", infer, eval).domain(MICROSOFT);

/// A matrix as rows, transposed when the attribute says so.
fn oriented(matrix: Vec<i32>, shape: &[usize], transpose: bool) -> Result<(Vec<i32>, Vec<usize>)> {
    let &[rows, columns] = shape else {
        return Err(Error::bad_input(format!("a matrix of shape {shape:?}")));
    };
    if !transpose {
        return Ok((matrix, vec![rows, columns]));
    }
    let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
    Ok((turned.map(|i| matrix[i]).collect(), vec![columns, rows]))
}

fn flag(node: &Node, name: &str) -> Result<bool> {
    Ok(node.int(name)?.unwrap_or(0) != 0)
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (a, b) = (ctx.input(0)?, ctx.input(3)?);
    exact::expect_bytes(&[a, b])?;
    let transpose = flag(ctx.node, "transB")?;
    // Zero points of B lie along its output columns, wherever those are stored.
    let columns = |s: &[usize]| if transpose { exact::by_row(s) } else { s.to_vec() };
    let left = exact::centred(a, ctx.opt(2), exact::by_row)?;
    let right = exact::centred(b, ctx.opt(5), columns)?;
    let (left, a_shape) = oriented(left, a.shape(), flag(ctx.node, "transA")?)?;
    let (right, b_shape) = oriented(right, b.shape(), transpose)?;
    let shape = product(&a_shape, &b_shape)?;
    let mut sums = exact::products(ctx, &left, &right, &shape)?;
    if let Some(bias) = ctx.opt(6) {
        add(&mut sums, bias, shape.n)?;
    }
    let alpha = ctx.float("alpha", 1.0)? * one_scale(ctx.input(1)?)?;
    let scales = ctx.input(4)?.to_f32()?;
    if scales.len() != 1 && scales.len() != shape.n {
        return Err(Error::bad_input(format!("{} scales for {} columns", scales.len(), shape.n))
            .code("FB-3220"));
    }
    let factor = |i: usize| alpha * scales[if scales.len() == 1 { 0 } else { i % shape.n }];
    let Some(y_scale) = ctx.opt(7) else {
        let numbers = sums.as_slice::<i32>()?.iter().enumerate();
        let numbers: Vec<f32> = numbers.map(|(i, &sum)| sum as f32 * factor(i)).collect();
        return Ok(vec![Tensor::from_slice(shape.output, &numbers)?]);
    };
    let y_scale = one_scale(y_scale)?;
    let dtype = ctx.opt(8).map_or(a.dtype(), Tensor::dtype);
    let zero_point = one_zero_point(ctx.opt(8))?;
    Ok(vec![requantized(&sums, |i| factor(i) / y_scale, zero_point, dtype)?])
}

/// Adds a bias that is broadcast over the rows.
fn add(sums: &mut Tensor, bias: &Tensor, columns: usize) -> Result<()> {
    let bias = bias.to_i64()?;
    let sums = sums.as_mut_slice::<i32>()?;
    if bias.len() != 1 && bias.len() != columns && bias.len() != sums.len() {
        return Err(Error::bad_input(format!("{} biases for {columns} columns", bias.len())));
    }
    if bias.is_empty() {
        return Ok(());
    }
    let terms = sums.iter_mut().zip(bias.iter().cycle());
    terms.for_each(|(sum, &b)| *sum = sum.wrapping_add(b as i32));
    Ok(())
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let side = |shape: Option<&[Dim]>, axis: usize| match shape {
        Some(dims @ [_, _]) => dims[axis].clone(),
        _ => Dim::Unknown,
    };
    let rows = side(ctx.shape(0), flag(ctx.node, "transA")? as usize);
    let columns = side(ctx.shape(3), !flag(ctx.node, "transB")? as usize);
    let dtype = match (ctx.has(7), ctx.has(8)) {
        (false, _) => Some(DType::F32),
        (true, true) => ctx.dtype(8),
        (true, false) => ctx.dtype(0),
    };
    Ok(vec![typed(dtype, Some(vec![rows, columns]))])
}
