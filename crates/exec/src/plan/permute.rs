//! The two orders of dimensions a value can have in memory: `[N,C,...]` as ONNX writes it, and
//! `[N,...,C]` as the convolution kernels read it.

use crate::memory::Arena;
use fewbit_core::{Error, Result, Tensor};
use fewbit_kernels::transpose::transpose;
use fewbit_kernels::{Ctx, Isa, Pool};

/// Where axis `axis` of `[N,C,...]` stands in `[N,...,C]`.
pub(crate) fn axis_in_last(axis: usize, rank: usize) -> usize {
    match axis {
        0 => 0,
        1 => rank - 1,
        _ => axis - 1,
    }
}

/// Items of `[N,C,...]` order (shape, strides, pads) in `[N,...,C]` order.
pub(crate) fn order_last<T: Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    if items.len() > 1 {
        items[1..].rotate_left(1);
    }
    items
}

/// Items of `[N,...,C]` order in `[N,C,...]` order.
pub(crate) fn order_default<T: Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    if items.len() > 1 {
        items[1..].rotate_right(1);
    }
    items
}

/// `[N,C,...]` to `[N,...,C]`.
pub(crate) fn to_last(tensor: &Tensor) -> Result<Tensor> {
    to_last_in(tensor, Ctx { isa: Isa::scalar(), pool: &Pool::single() }, &Arena::new())
}

/// `[N,...,C]` to `[N,C,...]`.
pub(crate) fn to_default(tensor: &Tensor) -> Result<Tensor> {
    to_default_in(tensor, Ctx { isa: Isa::scalar(), pool: &Pool::single() }, &Arena::new())
}

/// `[N,C,...]` to `[N,...,C]`, into a buffer of `arena`.
pub(crate) fn to_last_in(tensor: &Tensor, ctx: Ctx, arena: &Arena) -> Result<Tensor> {
    let shape = order_last(tensor.shape());
    let (channels, plane) = (tensor.shape().get(1).copied().unwrap_or(1), plane(tensor, 2, 0));
    swap(tensor, ctx, shape, channels, plane, arena)
}

/// `[N,...,C]` to `[N,C,...]`, into a buffer of `arena`.
pub(crate) fn to_default_in(tensor: &Tensor, ctx: Ctx, arena: &Arena) -> Result<Tensor> {
    let shape = order_default(tensor.shape());
    let (channels, plane) = (tensor.shape().last().copied().unwrap_or(1), plane(tensor, 1, 1));
    swap(tensor, ctx, shape, plane, channels, arena)
}

fn plane(tensor: &Tensor, skip: usize, drop: usize) -> usize {
    let end = tensor.rank().saturating_sub(drop).max(skip.min(tensor.rank()));
    tensor.shape().get(skip..end).unwrap_or(&[]).iter().product()
}

/// Transposes each `rows` x `cols` matrix of the tensor.
fn swap(
    tensor: &Tensor,
    ctx: Ctx,
    shape: Vec<usize>,
    rows: usize,
    cols: usize,
    arena: &Arena,
) -> Result<Tensor> {
    if rows <= 1 || cols <= 1 || tensor.is_empty() {
        return tensor.reshape(shape);
    }
    let Some(size) = tensor.dtype().size() else {
        return Err(Error::unsupported(format!(
            "a {} tensor cannot be brought to channels-last order",
            tensor.dtype()
        )));
    };
    let mut out = arena.tensor(tensor.dtype(), shape)?;
    let matrices = tensor.len() / (rows * cols);
    let (input, dims) = (tensor.bytes(), [matrices, rows, cols]);
    transpose(ctx, size, input, &dims, &[0, 2, 1], out.bytes_mut());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let values: Vec<f32> = (0..2 * 3 * 20 * 7).map(|i| i as f32).collect();
        let t = Tensor::from_slice(vec![2, 3, 20, 7], &values).unwrap();
        let last = to_last(&t).unwrap();
        assert_eq!(last.shape(), [2, 20, 7, 3]);
        assert_eq!(last.as_slice::<f32>().unwrap()[1], 140.0);
        assert_eq!(to_default(&last).unwrap(), t);
    }

    #[test]
    fn single_planes_are_not_copied() {
        let t = Tensor::from_slice(vec![1, 3, 1, 1], &[1f32, 2.0, 3.0]).unwrap();
        let last = to_last(&t).unwrap();
        assert_eq!(last.bytes().as_ptr(), t.bytes().as_ptr());
        assert_eq!(last.shape(), [1, 1, 1, 3]);
    }

    #[test]
    fn axes_follow() {
        assert_eq!((0..4).map(|a| axis_in_last(a, 4)).collect::<Vec<_>>(), [0, 3, 1, 2]);
    }
}
