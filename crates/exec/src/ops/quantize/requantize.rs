//! From accumulators to codes.

use fewbit_core::{AlignedBytes, DType, Error, Result, Tensor};
use fewbit_kernels::quantize::{Affine, Quantizer};

/// The one number of a scale.
///
/// # Errors
/// When there is not exactly one.
pub(super) fn one_scale(scale: &Tensor) -> Result<f32> {
    match scale.to_f32()?.as_slice() {
        [scale] => Ok(*scale),
        scales => Err(Error::bad_input(format!("expected one scale, found {}", scales.len()))),
    }
}

/// The one zero point of a tensor, 0 where it is left out.
///
/// # Errors
/// When there is not exactly one, or it is no code.
pub(super) fn one_zero_point(zero_point: Option<&Tensor>) -> Result<i32> {
    let Some(zero_point) = zero_point else {
        return Ok(0);
    };
    match zero_point.to_i64()?.as_slice() {
        [zero_point] => i32::try_from(*zero_point)
            .map_err(|_| Error::bad_input(format!("a zero point of {zero_point} is no code"))),
        zeros => Err(Error::bad_input(format!("expected one zero point, found {}", zeros.len()))),
    }
}

/// What the codes of a tensor stand for, by one scale and one zero point.
///
/// # Errors
/// As [`one_scale`] and [`one_zero_point`].
pub(super) fn affine(scale: &Tensor, zero_point: Option<&Tensor>) -> Result<Affine> {
    Ok(Affine { scale: one_scale(scale)?, zero_point: one_zero_point(zero_point)? })
}

/// A quantizer to 8-bit codes.
///
/// # Errors
/// When the type has more bits or others than integers, or the zero point is none of its codes.
pub(super) fn quantizer(dtype: DType, affine: Affine) -> Result<Quantizer> {
    let (low, high) = match dtype {
        DType::U8 => (0, 255),
        DType::I8 => (-128, 127),
        other => return Err(Error::unsupported(format!("{other} codes; u8 and i8 are handled"))),
    };
    if !(low..=high).contains(&affine.zero_point) {
        return Err(Error::bad_input(format!(
            "a zero point of {} is no code of {dtype}",
            affine.zero_point
        )));
    }
    Ok(Quantizer::with_range(affine, low, high))
}

/// Codes of accumulators, each multiplied by its factor and rounded once.
///
/// # Errors
/// As [`quantizer`].
pub(super) fn requantized(
    sums: &Tensor,
    factor: impl Fn(usize) -> f32,
    zero_point: i32,
    dtype: DType,
) -> Result<Tensor> {
    let quantizer = quantizer(dtype, Affine { scale: 1.0, zero_point })?;
    let code = |(i, &sum): (usize, &i32)| quantizer.code(sum as f32 * factor(i)) as u8;
    let codes: Vec<u8> = sums.as_slice::<i32>()?.iter().enumerate().map(code).collect();
    byte_tensor(dtype, sums.shape().to_vec(), &codes)
}

/// A tensor of 8-bit codes from their bits.
///
/// # Errors
/// When the shape does not fit.
pub(super) fn byte_tensor(dtype: DType, shape: Vec<usize>, codes: &[u8]) -> Result<Tensor> {
    Tensor::from_bytes(dtype, shape, AlignedBytes::copy_of(codes).into())
}
