//! Indices from a tensor, checked before anything is read or written with them.

use fewbit_core::{Error, Result, Tensor};

/// Maps an index from `-dim..dim` to `0..dim`.
///
/// # Errors
/// When it lies outside.
pub(crate) fn wrap_index(index: i64, dim: usize) -> Result<usize> {
    let wrapped = if index < 0 { index.checked_add_unsigned(dim as u64) } else { Some(index) };
    let found = wrapped.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < dim);
    found.ok_or_else(|| {
        Error::bad_input(format!("index {index} is outside an axis of {dim} elements"))
            .code("FB-3204")
    })
}

/// All indices of a tensor, each wrapped into `0..dim`.
///
/// # Errors
/// When the tensor holds no integers, or an index lies outside.
pub(crate) fn index_values(indices: &Tensor, dim: usize) -> Result<Vec<usize>> {
    indices.to_i64()?.into_iter().map(|i| wrap_index(i, dim)).collect()
}

/// Offsets of tuples of indices into the leading axes of `shape`, in elements.
///
/// # Errors
/// When an index lies outside its axis.
pub(super) fn tuple_offsets(tuples: &[i64], depth: usize, shape: &[usize]) -> Result<Vec<usize>> {
    let offset = |tuple: &[i64]| {
        tuple
            .iter()
            .zip(shape)
            .try_fold(0usize, |at, (&index, &dim)| Ok(at * dim + wrap_index(index, dim)?))
    };
    tuples.chunks_exact(depth).map(offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_count_from_both_ends() {
        assert_eq!(wrap_index(-1, 4).unwrap(), 3);
        assert_eq!(wrap_index(3, 4).unwrap(), 3);
        for index in [4, -5, i64::MIN, i64::MAX] {
            assert_eq!(wrap_index(index, 4).unwrap_err().stable_code(), "FB-3204");
        }
        assert!(wrap_index(0, 0).is_err());
    }

    #[test]
    fn tuples_address_leading_axes() {
        assert_eq!(tuple_offsets(&[1, -1, 0, 0], 2, &[2, 3, 5]).unwrap(), [5, 0]);
        assert!(tuple_offsets(&[2, 0], 2, &[2, 3]).is_err());
    }
}
