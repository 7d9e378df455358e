//! Shapes of matrix products with batch broadcasting (numpy `matmul`).

use crate::infer::broadcast_dims;
use fewbit_core::{Dim, Error, Result, element_count};

/// A product as a batch of matrices.
#[derive(Debug)]
pub(crate) struct Product {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// Output shape.
    pub output: Vec<usize>,
    batch: Vec<usize>,
    batch_a: Vec<usize>,
    batch_b: Vec<usize>,
}

impl Product {
    /// For each batch, which matrix of A and which of B. Lazy: the list of a hostile model's
    /// batches would not fit into memory.
    pub fn batches(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let count = self.batch.iter().product();
        let at = |dims, index| broadcast_index(&self.batch, dims, index);
        (0..count).map(move |index| (at(&self.batch_a, index), at(&self.batch_b, index)))
    }
}

/// The shapes of `a @ b`.
///
/// # Errors
/// When the inner dimensions differ, or the batches cannot be broadcast.
pub(crate) fn product(a: &[usize], b: &[usize]) -> Result<Product> {
    let known = |s: &[usize]| s.iter().map(|&d| Dim::Known(d)).collect::<Vec<_>>();
    let output: Option<Vec<usize>> =
        product_dims(&known(a), &known(b))?.iter().map(Dim::known).collect();
    let output = output.ok_or_else(|| Error::internal("a known shape became unknown"))?;
    let (a, b) = (promoted(a, true), promoted(b, false));
    let (m, k, n) = (a[a.len() - 2], a[a.len() - 1], b[b.len() - 1]);
    let (batch_a, batch_b) = (a[..a.len() - 2].to_vec(), b[..b.len() - 2].to_vec());
    let batch = broadcast_dims(&known(&batch_a), &known(&batch_b))?;
    let batch: Vec<usize> = batch.iter().filter_map(Dim::known).collect();
    if element_count(&output).is_none() {
        return Err(Error::bad_input(format!("shape {output:?} is too large")));
    }
    Ok(Product { m, k, n, output, batch, batch_a, batch_b })
}

fn promoted(shape: &[usize], left: bool) -> Vec<usize> {
    match (shape, left) {
        ([k], true) => vec![1, *k],
        ([k], false) => vec![*k, 1],
        _ => shape.to_vec(),
    }
}

/// Which element of an operand of shape `dims` belongs to element `index` of the broadcast.
pub(crate) fn broadcast_index(batch: &[usize], dims: &[usize], mut index: usize) -> usize {
    let (mut at, mut step) = (0, 1);
    for back in 0..batch.len() {
        let size = batch[batch.len() - 1 - back];
        let coordinate = index % size.max(1);
        index /= size.max(1);
        if let Some(axis) = dims.len().checked_sub(back + 1) {
            if dims[axis] != 1 {
                at += coordinate * step;
            }
            step *= dims[axis];
        }
    }
    at
}

/// Output dimensions of `a @ b` as far as they are known.
///
/// # Errors
/// As [`product`].
pub(crate) fn product_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>> {
    let ([.., inner], false) = (a, b.is_empty()) else {
        return Err(Error::bad_input("MatMul of a scalar"));
    };
    let rows = &b[b.len().saturating_sub(2)];
    if let (Some(x), Some(y)) = (inner.known(), rows.known())
        && x != y
    {
        return Err(Error::bad_input(format!(
            "inner dimensions {x} and {y} of a matrix product differ"
        ))
        .code("FB-3214"));
    }
    let batch = |s: &[Dim]| s[..s.len().saturating_sub(2)].to_vec();
    let mut output = broadcast_dims(&batch(a), &batch(b))?;
    if a.len() > 1 {
        output.push(a[a.len() - 2].clone());
    }
    if b.len() > 1 {
        output.push(b[b.len() - 1].clone());
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_promoted() {
        assert_eq!(product(&[3], &[3]).unwrap().output, []);
        assert_eq!(product(&[2, 3], &[3]).unwrap().output, [2]);
        assert_eq!(product(&[3], &[5, 3, 4]).unwrap().output, [5, 4]);
    }

    #[test]
    fn batches_are_broadcast() {
        let p = product(&[2, 1, 4, 3], &[5, 3, 6]).unwrap();
        assert_eq!(p.output, [2, 5, 4, 6]);
        assert_eq!(p.batches().nth(7), Some((1, 2)));
        assert!(product(&[2, 3], &[4, 5]).is_err());
        assert!(product(&[2, 2, 3], &[3, 3, 5]).is_err());
    }
}
