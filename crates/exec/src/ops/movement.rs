//! Moving elements of any type. Operators that only select or rearrange elements are written
//! once, on bytes: sub-byte elements are widened to a byte each while they move, and strings
//! are moved as 8-byte handles.

use crate::eval::EvalCtx;
use fewbit_core::codec::{pack_bits, unpack_bits};
use fewbit_core::{AlignedBytes, DType, Error, Result, Tensor, element_count};

/// Writes output bytes from input bytes, both as elements of the given size
/// (1, 2, 4, 8 or 16). Every output byte must be written; all-zero bytes are the number 0,
/// `false` or the empty string.
pub(crate) trait Mover: FnOnce(&[&[u8]], &mut [u8], usize) -> Result<()> {}
impl<F: FnOnce(&[&[u8]], &mut [u8], usize) -> Result<()>> Mover for F {}

/// A tensor of the inputs' element type whose elements `body` takes from the inputs.
///
/// # Errors
/// When the inputs differ in element type, the output is too large, or `body` fails.
pub(crate) fn move_elements(
    ctx: &EvalCtx,
    inputs: &[&Tensor],
    shape: Vec<usize>,
    body: impl Mover,
) -> Result<Tensor> {
    let dtype = common_dtype(inputs)?;
    let Some(size) = dtype.size() else {
        return match dtype {
            DType::String => move_strings(inputs, shape, body),
            _ => move_packed(ctx, inputs, dtype, shape, body),
        };
    };
    let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes()).collect();
    let mut out = ctx.alloc(dtype, shape)?;
    body(&bytes, out.bytes_mut(), size)?;
    Ok(out)
}

/// The element type all inputs share.
///
/// # Errors
/// When they differ, or there is no input.
pub(crate) fn common_dtype(inputs: &[&Tensor]) -> Result<DType> {
    let first = inputs.first().ok_or_else(|| Error::bad_input("the operator has no inputs"))?;
    match inputs.iter().find(|t| t.dtype() != first.dtype()) {
        None => Ok(first.dtype()),
        Some(other) => Err(Error::bad_input(format!(
            "inputs of element types {} and {} cannot be mixed",
            first.dtype(),
            other.dtype()
        ))),
    }
}

fn move_packed(
    ctx: &EvalCtx,
    inputs: &[&Tensor],
    dtype: DType,
    shape: Vec<usize>,
    body: impl Mover,
) -> Result<Tensor> {
    let bits = dtype.bits();
    let widen = |t: &&Tensor| -> Vec<u8> {
        unpack_bits(t.bytes(), bits, false, t.len()).into_iter().map(|c| c as u8).collect()
    };
    let wide: Vec<Vec<u8>> = inputs.iter().map(widen).collect();
    let views: Vec<&[u8]> = wide.iter().map(Vec::as_slice).collect();
    let mut out = ctx.alloc(dtype, shape)?;
    let mut moved = AlignedBytes::try_zeroed(out.len())?;
    body(&views, moved.as_mut(), 1)?;
    pack_bits(moved.as_ref().iter().map(|&c| c as i64), bits, out.bytes_mut());
    Ok(out)
}

fn move_strings(inputs: &[&Tensor], shape: Vec<usize>, body: impl Mover) -> Result<Tensor> {
    let mut pool: Vec<&[u8]> = vec![&[]];
    let mut handles: Vec<Vec<u8>> = Vec::new();
    for tensor in inputs {
        let strings = tensor.strings().unwrap_or_default();
        let numbers = (pool.len() as u64..).take(strings.len());
        handles.push(numbers.flat_map(u64::to_le_bytes).collect());
        pool.extend(strings.iter().map(Vec::as_slice));
    }
    let count = element_count(&shape)
        .and_then(|n| n.checked_mul(8))
        .ok_or_else(|| Error::bad_input(format!("shape {shape:?} has no representable size")))?;
    let mut moved = AlignedBytes::try_zeroed(count)?;
    let views: Vec<&[u8]> = handles.iter().map(Vec::as_slice).collect();
    body(&views, moved.as_mut(), 8)?;
    let (chunks, _) = moved.as_ref().as_chunks::<8>();
    let text =
        |c: &[u8; 8]| pool.get(u64::from_le_bytes(*c) as usize).map_or(vec![], |s| s.to_vec());
    Tensor::from_strings(shape, chunks.iter().map(text).collect())
}

/// Calls a function generic over the element size with the size known only at run time.
macro_rules! by_size {
    ($size:expr, $f:ident($($arg:expr),* $(,)?)) => {
        match $size {
            1 => $f::<1>($($arg),*),
            2 => $f::<2>($($arg),*),
            4 => $f::<4>($($arg),*),
            8 => $f::<8>($($arg),*),
            _ => $f::<16>($($arg),*),
        }
    };
}
pub(crate) use by_size;

/// Fills `out` with copies of one element.
pub(crate) fn fill(out: &mut [u8], element: &[u8]) {
    match element {
        [byte] => out.fill(*byte),
        _ => out.chunks_exact_mut(element.len()).for_each(|slot| slot.copy_from_slice(element)),
    }
}
