//! Writing arrays, byte for byte as NumPy writes them.

use super::dtype;
use crate::atomic::{OutputOptions, write_file};
use fewbit_core::{DType, Error, Result, Tensor};
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

/// Data starts at a multiple of this, so that a mapped array is aligned.
const ALIGNMENT: usize = 64;

/// Writes an array to `path`, whole or not at all.
///
/// Element types without a NumPy dtype are widened, which loses nothing: bfloat16 and the
/// 8- and 4-bit floats become `float32`, the 4- and 2-bit integers `int8` or `uint8`.
///
/// # Errors
/// `FB-4312` for strings; see [`write_file`] for the destination.
pub fn write(path: &Path, tensor: &Tensor, options: &OutputOptions) -> Result<()> {
    write_file(path, &encode(tensor)?, options).map(drop)
}

/// The bytes of the file that [`write()`] writes.
///
/// # Errors
/// `FB-4312` for strings.
pub fn encode(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    write_to(&mut out, tensor)?;
    Ok(out)
}

/// Writes an array to a stream.
///
/// # Errors
/// `FB-4312` for strings, `FB-5303` when writing fails.
pub fn write_to(out: &mut impl Write, tensor: &Tensor) -> Result<()> {
    let tensor = widened(tensor)?;
    let descr = dtype::text(tensor.dtype()).ok_or_else(|| no_dtype(tensor.dtype()))?;
    let header = header(&descr, tensor.shape())?;
    out.write_all(&header).and_then(|()| out.write_all(tensor.bytes())).map_err(|e| write_error(&e))
}

fn write_error(error: &io::Error) -> Error {
    Error::resource(format!("cannot write: {error}")).code("FB-5303")
}

fn no_dtype(dtype: DType) -> Error {
    let error = Error::unsupported(format!("NumPy has no dtype for {dtype} that is read safely"));
    error.code("FB-4312")
}

fn widened(tensor: &Tensor) -> Result<Cow<'_, Tensor>> {
    use DType::*;
    let wide = match tensor.dtype() {
        BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1 => F32,
        I4 | I2 => I8,
        U4 | U2 => U8,
        _ => return Ok(Cow::Borrowed(tensor)),
    };
    tensor.cast(wide).map(Cow::Owned)
}

fn header(descr: &str, shape: &[usize]) -> Result<Vec<u8>> {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let shape = format!("({}{comma})", dims.join(", "));
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    if let Some(first) = dims.first() {
        // NumPy leaves room for the first dimension to grow in place.
        text.push_str(&" ".repeat(21usize.saturating_sub(first.len())));
    }
    let prefix = b"\x93NUMPY\x01\x00".len() + 2;
    let total = (prefix + text.len() + 1).next_multiple_of(ALIGNMENT);
    text.push_str(&" ".repeat(total - prefix - text.len() - 1));
    text.push('\n');
    // A rank that overflows this has thousands of dimensions.
    let length = u16::try_from(text.len())
        .map_err(|_| Error::unsupported("too many dimensions for .npy").code("FB-4312"))?;
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend(length.to_le_bytes());
    out.extend(text.as_bytes());
    Ok(out)
}
