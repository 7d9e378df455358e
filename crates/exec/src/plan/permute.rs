//! The two orders of dimensions a value can have in memory: `[N,C,...]` as ONNX writes it, and
//! `[N,...,C]` as the convolution kernels read it.

use crate::memory::Arena;
use fewbit_core::{Error, Result, Tensor};

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
    to_last_in(tensor, &Arena::new())
}

/// `[N,...,C]` to `[N,C,...]`.
pub(crate) fn to_default(tensor: &Tensor) -> Result<Tensor> {
    to_default_in(tensor, &Arena::new())
}

/// `[N,C,...]` to `[N,...,C]`, into a buffer of `arena`.
pub(crate) fn to_last_in(tensor: &Tensor, arena: &Arena) -> Result<Tensor> {
    let shape = order_last(tensor.shape());
    let (channels, plane) = (tensor.shape().get(1).copied().unwrap_or(1), plane(tensor, 2, 0));
    swap(tensor, shape, channels, plane, arena)
}

/// `[N,...,C]` to `[N,C,...]`, into a buffer of `arena`.
pub(crate) fn to_default_in(tensor: &Tensor, arena: &Arena) -> Result<Tensor> {
    let shape = order_default(tensor.shape());
    let (channels, plane) = (tensor.shape().last().copied().unwrap_or(1), plane(tensor, 1, 1));
    swap(tensor, shape, plane, channels, arena)
}

fn plane(tensor: &Tensor, skip: usize, drop: usize) -> usize {
    let end = tensor.rank().saturating_sub(drop).max(skip.min(tensor.rank()));
    tensor.shape().get(skip..end).unwrap_or(&[]).iter().product()
}

/// Transposes each `rows` x `cols` matrix of the tensor.
fn swap(
    tensor: &Tensor,
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
    match size {
        1 => swap_as::<u8>(tensor.bytes(), out.bytes_mut(), rows, cols),
        4 => swap_as::<[u8; 4]>(tensor.bytes(), out.bytes_mut(), rows, cols),
        2 => swap_as::<[u8; 2]>(tensor.bytes(), out.bytes_mut(), rows, cols),
        _ => swap_as::<[u8; 8]>(tensor.bytes(), out.bytes_mut(), rows, cols),
    }
    Ok(out)
}

/// Cache lines of both sides stay in L1 within a block of this many rows and columns.
const BLOCK: usize = 16;

fn swap_as<T: bytemuck::Pod>(input: &[u8], output: &mut [u8], rows: usize, cols: usize) {
    let matrix = rows * cols;
    let input: &[T] = bytemuck::cast_slice(input);
    let output: &mut [T] = bytemuck::cast_slice_mut(output);
    for (input, output) in input.chunks_exact(matrix).zip(output.chunks_exact_mut(matrix)) {
        for row in (0..rows).step_by(BLOCK) {
            for col in (0..cols).step_by(BLOCK) {
                swap_block(input, output, [rows, cols], [row, col]);
            }
        }
    }
}

fn swap_block<T: Copy>(input: &[T], output: &mut [T], dims: [usize; 2], start: [usize; 2]) {
    let [rows, cols] = dims;
    let row_end = rows.min(start[0] + BLOCK);
    for col in start[1]..cols.min(start[1] + BLOCK) {
        let line = &mut output[col * rows..][..rows];
        for row in start[0]..row_end {
            line[row] = input[row * cols + col];
        }
    }
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
