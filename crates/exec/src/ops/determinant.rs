//! `Det`: determinants of a batch of square matrices.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use crate::ops::params::like_input;
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};

pub(super) const DEFS: &[OpDef] = &[OpDef::new("Det", infer, eval).since(11)];

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let [batch @ .., rows, columns] = input.shape() else {
        return Err(Error::bad_input(format!("a matrix is needed, found {:?}", input.shape())));
    };
    if rows != columns {
        return Err(Error::bad_input(format!("the determinant of a {rows}x{columns} matrix")));
    }
    let (n, values) = (*rows, input.to_f64()?);
    let count = batch.iter().product();
    let found: Vec<f64> =
        (0..count).map(|i| determinant(&mut values[i * n * n..][..n * n].to_vec(), n)).collect();
    Ok(vec![Tensor::from_f64(input.dtype(), batch.to_vec(), &found)?])
}

/// Gaussian elimination with partial pivoting.
fn determinant(matrix: &mut [f64], n: usize) -> f64 {
    let mut product = 1.0;
    for step in 0..n {
        let size = |&row: &usize| matrix[row * n + step].abs();
        let pivot = (step..n).max_by(|a, b| size(a).total_cmp(&size(b))).unwrap_or(step);
        if pivot != step {
            (0..n).for_each(|column| matrix.swap(pivot * n + column, step * n + column));
            product = -product;
        }
        let head = matrix[step * n + step];
        product *= head;
        if head == 0.0 {
            return product;
        }
        for row in step + 1..n {
            let factor = matrix[row * n + step] / head;
            for column in step..n {
                matrix[row * n + column] -= factor * matrix[step * n + column];
            }
        }
    }
    product
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let batch = |dims: &[Dim]| dims[..dims.len().saturating_sub(2)].to_vec();
    Ok(like_input(ctx, ctx.shape(0).map(batch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(determinant(&mut [], 0), 1.0);
        assert_eq!(determinant(&mut [0.0, 2.0, 3.0, 1.0], 2), -6.0);
        assert_eq!(determinant(&mut [1.0, 2.0, 2.0, 4.0], 2), 0.0);
    }
}
