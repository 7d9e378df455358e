//! From the byte and element order of the file to little-endian, row-major.

use super::Header;
use fewbit_core::{AlignedBytes, DType, Result, Tensor};

/// A tensor from the raw data of a file.
pub(crate) fn to_native(header: &Header, mut bytes: AlignedBytes) -> Result<Tensor> {
    if header.big_endian {
        swap_bytes(header.dtype, bytes.as_mut());
    }
    if header.dtype == DType::Bool {
        // NumPy writes 0 and 1; anything else in a file still means true.
        bytes.as_mut().iter_mut().for_each(|b| *b = u8::from(*b != 0));
    }
    if header.fortran_order && header.shape.len() > 1 && header.data_bytes() > 0 {
        let size = header.dtype.size().unwrap_or(1);
        let mut rows = AlignedBytes::try_zeroed(header.data_bytes())?;
        to_row_major(&header.shape, size, bytes.as_ref(), rows.as_mut());
        bytes = rows;
    }
    Tensor::from_bytes(header.dtype, header.shape.clone(), bytes.into())
}

/// Reverses the bytes of every number; a complex number is two.
pub(crate) fn swap_bytes(dtype: DType, bytes: &mut [u8]) {
    let width = match dtype {
        DType::C64 => 4,
        DType::C128 => 8,
        _ => dtype.size().unwrap_or(1),
    };
    if width > 1 {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
}

/// Copies elements of `size` bytes from column-major to row-major order.
fn to_row_major(shape: &[usize], size: usize, from: &[u8], to: &mut [u8]) {
    let mut strides = Vec::with_capacity(shape.len());
    let mut step = size;
    for &dim in shape {
        strides.push(step);
        step *= dim;
    }
    let mut index = vec![0usize; shape.len()];
    let mut offset = 0;
    for element in to.chunks_exact_mut(size) {
        element.copy_from_slice(&from[offset..offset + size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            offset -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
}
