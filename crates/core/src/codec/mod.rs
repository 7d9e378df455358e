//! Scalar reference codecs: every element type to and from numbers.
//!
//! These define what stored bytes mean. They favour clearness over speed;
//! `fewbit-kernels` has the fast ones and is tested against these.

mod bits;
pub mod block;
mod float8;
mod odd;

pub use bits::{pack_bits, unpack_bits};
pub use float8::{MiniFloat, decode_e8m0, encode_e8m0};
pub use odd::{f64_to_odd, to_odd};

use crate::dtype::DType;
use crate::error::{Error, Result};
use half::{bf16, f16};

/// Decodes `count` elements of `dtype` to `f64`.
///
/// # Errors
/// For strings and complex numbers, which are no single number.
pub fn decode_f64(dtype: DType, bytes: &[u8], count: usize) -> Result<Vec<f64>> {
    use DType::*;
    Ok(match dtype {
        F32 => words(bytes, |b| f32::from_le_bytes(b) as f64),
        F64 => words(bytes, f64::from_le_bytes),
        F16 => words(bytes, |b| f16::from_le_bytes(b).to_f64()),
        BF16 => words(bytes, |b| bf16::from_le_bytes(b).to_f64()),
        U64 => words(bytes, |b| u64::from_le_bytes(b) as f64),
        F8E8M0 => bytes.iter().map(|&b| decode_e8m0(b) as f64).collect(),
        F4E2M1 => {
            let codes = unpack_bits(bytes, 4, false, count);
            codes.into_iter().map(|c| MiniFloat::E2M1.decode(c as u8) as f64).collect()
        }
        String | C64 | C128 => return Err(not_a_number(dtype)),
        _ => match MiniFloat::of(dtype) {
            Some(format) => bytes.iter().map(|&b| format.decode(b) as f64).collect(),
            None => decode_i64(dtype, bytes, count)?.into_iter().map(|v| v as f64).collect(),
        },
    })
}

/// Decodes `count` elements of `dtype` to `f32`, rounding to nearest even.
///
/// # Errors
/// For strings and complex numbers.
pub fn decode_f32(dtype: DType, bytes: &[u8], count: usize) -> Result<Vec<f32>> {
    match dtype {
        DType::F32 => return Ok(words(bytes, f32::from_le_bytes)),
        // Half the memory of the way over f64; language models have hundreds of millions of them.
        DType::F16 => return Ok(words(bytes, |b| f16::from_le_bytes(b).to_f32())),
        DType::BF16 => return Ok(words(bytes, |b| bf16::from_le_bytes(b).to_f32())),
        _ => {}
    }
    if dtype.is_int() && dtype != DType::U64 {
        return Ok(decode_i64(dtype, bytes, count)?.into_iter().map(|v| v as f32).collect());
    }
    Ok(decode_f64(dtype, bytes, count)?.into_iter().map(|v| v as f32).collect())
}

/// Decodes `count` integers or booleans of `dtype`; `u64` wraps into `i64`.
///
/// # Errors
/// For other element types.
pub fn decode_i64(dtype: DType, bytes: &[u8], count: usize) -> Result<Vec<i64>> {
    use DType::*;
    Ok(match dtype {
        I8 => bytes.iter().map(|&b| b as i8 as i64).collect(),
        U8 => bytes.iter().map(|&b| b as i64).collect(),
        Bool => bytes.iter().map(|&b| (b != 0) as i64).collect(),
        I16 => words(bytes, |b| i16::from_le_bytes(b) as i64),
        U16 => words(bytes, |b| u16::from_le_bytes(b) as i64),
        I32 => words(bytes, |b| i32::from_le_bytes(b) as i64),
        U32 => words(bytes, |b| u32::from_le_bytes(b) as i64),
        I64 | U64 => words(bytes, i64::from_le_bytes),
        I4 | I2 | U4 | U2 => unpack_bits(bytes, dtype.bits(), dtype.is_signed_int(), count),
        _ => {
            return Err(Error::bad_input(format!("expected an integer tensor, found {dtype}")));
        }
    })
}

/// Encodes numbers into `out`, which must be exactly as long as `dtype` needs.
///
/// Floats round to nearest even; integers round to nearest even and saturate (NaN gives 0).
pub fn encode_f64(dtype: DType, values: &[f64], out: &mut [u8]) {
    use DType::*;
    match dtype {
        F32 => put(values, out, |v| (v as f32).to_le_bytes()),
        F64 => put(values, out, f64::to_le_bytes),
        F16 => put(values, out, |v| f16::from_f32(f64_to_odd(v)).to_le_bytes()),
        BF16 => put(values, out, |v| bf16::from_f32(f64_to_odd(v)).to_le_bytes()),
        I8 => put(values, out, |v| (v.round_ties_even() as i8).to_le_bytes()),
        U8 => put(values, out, |v| (v.round_ties_even() as u8).to_le_bytes()),
        Bool => put(values, out, |v| [(v != 0.0) as u8]),
        I16 => put(values, out, |v| (v.round_ties_even() as i16).to_le_bytes()),
        U16 => put(values, out, |v| (v.round_ties_even() as u16).to_le_bytes()),
        I32 => put(values, out, |v| (v.round_ties_even() as i32).to_le_bytes()),
        U32 => put(values, out, |v| (v.round_ties_even() as u32).to_le_bytes()),
        I64 => put(values, out, |v| (v.round_ties_even() as i64).to_le_bytes()),
        U64 => put(values, out, |v| (v.round_ties_even() as u64).to_le_bytes()),
        F8E8M0 => put(values, out, |v| [encode_e8m0(v as f32)]),
        F4E2M1 => {
            let codes = values.iter().map(|&v| MiniFloat::E2M1.encode(v as f32, true) as i64);
            pack_bits(codes, 4, out);
        }
        I4 | I2 | U4 | U2 => {
            let (lo, hi) = dtype.int_range().unwrap_or((0, 0));
            let codes =
                values.iter().map(|v| (v.round_ties_even() as i64).clamp(lo as i64, hi as i64));
            pack_bits(codes, dtype.bits(), out);
        }
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ => {
            if let Some(format) = MiniFloat::of(dtype) {
                put(values, out, |v| [format.encode(v as f32, true)]);
            }
        }
        String | C64 | C128 => {}
    }
}

fn words<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&c| decode(c)).collect()
}

fn put<const N: usize>(values: &[f64], out: &mut [u8], encode: impl Fn(f64) -> [u8; N]) {
    let (chunks, _) = out.as_chunks_mut::<N>();
    for (slot, &v) in chunks.iter_mut().zip(values) {
        *slot = encode(v);
    }
}

fn not_a_number(dtype: DType) -> Error {
    Error::unsupported(format!("{dtype} elements cannot be read as numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_numeric_type_round_trips_small_integers() {
        let values = [0.0, 1.0, 1.0, 0.0, 1.0];
        for &dtype in DType::ALL {
            // E8M0 has no zero, strings and complex numbers are no numbers.
            if matches!(dtype, DType::F8E8M0 | DType::String | DType::C64 | DType::C128) {
                continue;
            }
            let mut bytes = vec![0; dtype.bytes_for(5).unwrap()];
            encode_f64(dtype, &values, &mut bytes);
            assert_eq!(decode_f64(dtype, &bytes, 5).unwrap(), values, "{dtype}");
        }
    }

    #[test]
    fn halves_round_once() {
        // Just above, at and just below the middle of two neighbours.
        for (dtype, bits) in [(DType::F16, 11), (DType::BF16, 8)] {
            let step = 2.0f64.powi(1 - bits);
            let (half, even) = (step / 2.0, 1.0 + 2.0 * step);
            let cases = [
                (1.0 + half, 1.0),
                (1.0 + half + f64::EPSILON, 1.0 + step),
                (1.0 + half * (1.0 + 2.0f64.powi(-16)), 1.0 + step),
                (1.0 + step + half, even),
                (1.0 + step + half - f64::EPSILON, 1.0 + step),
                (1e300, f64::INFINITY),
                (-1e-300, -0.0),
            ];
            let mut bytes = vec![0; 2 * cases.len()];
            encode_f64(dtype, &cases.map(|(value, _)| value), &mut bytes);
            let want = cases.map(|(_, want)| want);
            assert_eq!(decode_f64(dtype, &bytes, cases.len()).unwrap(), want, "{dtype}");
        }
    }

    #[test]
    fn integers_saturate() {
        let mut out = [0u8; 3];
        encode_f64(DType::I8, &[300.0, -300.0, f64::NAN], &mut out);
        assert_eq!(decode_i64(DType::I8, &out, 3).unwrap(), [127, -128, 0]);
    }
}
