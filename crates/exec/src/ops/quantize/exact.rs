//! Exact products of integers: codes with their zero points taken off, accumulated in `i32`
//! (which wraps, as the specification leaves overflow open).

use super::layout::Layout;
use crate::eval::EvalCtx;
use crate::ops::matmul::shape::Product;
use fewbit_core::{DType, Error, Result, Tensor};

/// Codes minus their zero point. `zero_point` is broadcast over the codes by numpy's rules,
/// read with shape `dims`.
///
/// # Errors
/// When the codes are no integers or the shapes do not fit.
pub(super) fn centred(
    codes: &Tensor,
    zero_point: Option<&Tensor>,
    dims: impl Fn(&[usize]) -> Vec<usize>,
) -> Result<Vec<i32>> {
    let values = codes.to_i64()?.into_iter().map(|v| v as i32);
    let Some(zero_point) = zero_point else {
        return Ok(values.collect());
    };
    let zeros: Vec<i32> = zero_point.to_i64()?.into_iter().map(|v| v as i32).collect();
    if let [zero] = zeros.as_slice() {
        return Ok(values.map(|v| v.wrapping_sub(*zero)).collect());
    }
    let layout = Layout::broadcast(codes.shape(), &dims(zero_point.shape()))?;
    let at = layout.positions();
    Ok(values.enumerate().map(|(i, v)| v.wrapping_sub(zeros[at(i)])).collect())
}

/// Parameters of the left operand: a vector has one for each row.
pub(super) fn by_row(shape: &[usize]) -> Vec<usize> {
    match shape {
        [rows] => vec![*rows, 1],
        _ => shape.to_vec(),
    }
}

/// Parameters of the right operand: a vector has one for each column.
pub(super) fn by_column(shape: &[usize]) -> Vec<usize> {
    shape.to_vec()
}

/// A batch of products, as an `i32` tensor of the product's output shape.
///
/// # Errors
/// When the output is too large.
pub(super) fn products(ctx: &EvalCtx, a: &[i32], b: &[i32], shape: &Product) -> Result<Tensor> {
    let &Product { m, k, n, ref output, .. } = shape;
    let mut out = ctx.alloc(DType::I32, output.clone())?;
    let sums = out.as_mut_slice::<i32>()?;
    sums.fill(0);
    if sums.is_empty() {
        return Ok(out);
    }
    for ((i, j), sums) in shape.batches().zip(sums.chunks_exact_mut(m * n)) {
        multiply(ctx, &a[i * m * k..][..m * k], &b[j * k * n..][..k * n], (k, n), sums);
    }
    Ok(out)
}

/// Adds `a` (rows of `k`) times `b` (`k` rows of `n`) to `sums`.
pub(super) fn multiply(
    ctx: &EvalCtx,
    a: &[i32],
    b: &[i32],
    (k, n): (usize, usize),
    sums: &mut [i32],
) {
    if k == 0 || n == 0 {
        return;
    }
    let rows = ctx.kernels.pool.grain(sums.len() / n, 1);
    ctx.kernels.pool.for_each_chunk(sums, rows * n, |chunk, sums| {
        let a = a[chunk * rows * k..].chunks_exact(k);
        for (a, sums) in a.zip(sums.chunks_exact_mut(n)) {
            for (&a, b) in a.iter().zip(b.chunks_exact(n)) {
                let terms = sums.iter_mut().zip(b);
                terms.for_each(|(sum, &b)| *sum = sum.wrapping_add(a.wrapping_mul(b)));
            }
        }
    });
}

/// Refuses codes that are not of 8 bits.
///
/// # Errors
/// When a tensor is neither `u8` nor `i8`.
pub(super) fn expect_bytes(tensors: &[&Tensor]) -> Result<()> {
    match tensors.iter().find(|t| !matches!(t.dtype(), DType::U8 | DType::I8)) {
        None => Ok(()),
        Some(other) => Err(Error::unsupported(format!(
            "an integer product of {} codes; u8 and i8 are handled",
            other.dtype()
        ))),
    }
}
