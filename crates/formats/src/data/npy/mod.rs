//! NumPy's `.npy` files: one array each.
//!
//! Reads every numeric dtype of NumPy (booleans, integers, floats of 16, 32 and 64 bits, complex
//! numbers) in either byte order, in C or Fortran order. Structured, string, date and object
//! dtypes are refused; object arrays are pickles, and a pickle is a program that is never run.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

mod convert;
mod dtype;
mod header;
mod literal;
mod write;

pub use header::Header;
pub use write::{encode, write, write_to};

use super::file::{InputFile, io_error, show};
use fewbit_core::{AlignedBytes, Result, ResultExt, Tensor};
use std::io::Read;
use std::path::Path;

pub(crate) use convert::{swap_bytes, to_native};

/// Reads an array.
///
/// # Errors
/// `FB-3310` for a damaged header, `FB-3311` for a header length that is not believable,
/// `FB-3312` when shape and file size contradict each other, `FB-4310` for object arrays,
/// `FB-4311` for other dtypes without an equal here.
pub fn read(path: &Path) -> Result<Tensor> {
    let file = InputFile::open(path)?;
    read_whole(&file).at(|| show(path))
}

fn read_whole(file: &InputFile) -> Result<Tensor> {
    let header = Header::read_at(file)?;
    let mut bytes = AlignedBytes::try_zeroed(header.data_bytes())?;
    file.read_at(header.data_start(), bytes.as_mut())?;
    to_native(&header, bytes)
}

/// Reads an array from a stream that holds `available` bytes, all of which must belong to it.
///
/// # Errors
/// As [`read`].
pub fn read_from(reader: &mut impl Read, available: u64) -> Result<Tensor> {
    let header = Header::read(reader, available)?;
    let mut bytes = AlignedBytes::try_zeroed(header.data_bytes())?;
    reader.read_exact(bytes.as_mut()).map_err(|e| io_error(&e).at("data"))?;
    to_native(&header, bytes)
}

#[cfg(test)]
mod tests;
