//! Numbers from one type to another. Every type is first widened, without loss, to the
//! smallest of the machine's own types that holds it; from there each target has one rule.

use super::{Policy, e8m0};
use crate::eval::EvalCtx;
use fewbit_core::codec::{MiniFloat, f64_to_odd, pack_bits, to_odd};
use fewbit_core::{DType, Element, Error, Result, Tensor};
use fewbit_kernels::blocks::{Half, decode_halves};
use half::{bf16, f16};

pub(super) fn convert(ctx: &EvalCtx, input: &Tensor, to: DType, policy: Policy) -> Result<Tensor> {
    use DType::*;
    let mut out = ctx.alloc(to, input.shape().to_vec())?;
    // Weights are often stored so: at the speed of the memory, without a copy between.
    match (input.dtype(), to) {
        (F16, F32) => {
            let isa = ctx.kernels.isa;
            decode_halves(isa, Half::F16, input.bytes(), out.as_mut_slice()?);
            return Ok(out);
        }
        (BF16, F32) => {
            let halves = input.bytes().as_chunks().0;
            each(halves, out.as_mut_slice()?, |v| bf16::from_le_bytes(v).to_f32());
            return Ok(out);
        }
        _ => (),
    }
    let wide = widened(input)?;
    match wide.dtype() {
        F32 => from::<f32>(&wide, &mut out, policy)?,
        F64 => from::<f64>(&wide, &mut out, policy)?,
        I8 => from::<i8>(&wide, &mut out, policy)?,
        U8 => from::<u8>(&wide, &mut out, policy)?,
        I16 => from::<i16>(&wide, &mut out, policy)?,
        U16 => from::<u16>(&wide, &mut out, policy)?,
        I32 => from::<i32>(&wide, &mut out, policy)?,
        U32 => from::<u32>(&wide, &mut out, policy)?,
        I64 => from::<i64>(&wide, &mut out, policy)?,
        U64 => from::<u64>(&wide, &mut out, policy)?,
        dtype => return Err(Error::unsupported(format!("a conversion from {dtype} to {to}"))),
    }
    Ok(out)
}

/// The same numbers in a type that the machine computes with.
fn widened(input: &Tensor) -> Result<Tensor> {
    use DType::*;
    let shape = input.shape().to_vec();
    match input.dtype() {
        F16 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0 => {
            Tensor::from_slice(shape, &input.to_f32()?)
        }
        I4 | I2 => bytes(shape, input.to_i64()?, |v| v as i8),
        Bool | U4 | U2 => bytes(shape, input.to_i64()?, |v| v as u8),
        _ => Ok(input.clone()),
    }
}

fn bytes<T: Element>(shape: Vec<usize>, codes: Vec<i64>, narrow: fn(i64) -> T) -> Result<Tensor> {
    Tensor::from_slice(shape, &codes.into_iter().map(narrow).collect::<Vec<T>>())
}

/// A number of the machine. Conversions are those of `as`: integers wrap, floats truncate
/// towards zero and saturate.
trait Number: Element {
    fn f32(self) -> f32;
    fn f64(self) -> f64;
    fn i64(self) -> i64;
    fn u64(self) -> u64;
    /// In f32, rounded to odd: what is rounded again, to fewer digits, is as if rounded once.
    fn odd(self) -> f32;
    fn is_zero(self) -> bool;
}

macro_rules! numbers { ($($t:ty, $zero:literal, $odd:expr);*) => { $(impl Number for $t {
    fn f32(self) -> f32 { self as f32 }
    fn f64(self) -> f64 { self as f64 }
    fn i64(self) -> i64 { self as i64 }
    fn u64(self) -> u64 { self as u64 }
    fn odd(self) -> f32 { $odd(self) }
    fn is_zero(self) -> bool { self == $zero }
})* } }
numbers!(
    i8, 0, f32::from; u8, 0, f32::from; i16, 0, f32::from; u16, 0, f32::from;
    i32, 0, odd; u32, 0, odd; i64, 0, odd; u64, 0, odd;
    f32, 0.0, f32::from; f64, 0.0, f64_to_odd
);

fn odd<T: Number + Into<i128>>(value: T) -> f32 {
    let (near, exact): (f32, i128) = (value.f32(), value.into());
    to_odd(near, Some((near as i128).abs().cmp(&exact.abs())))
}

fn from<T: Number>(wide: &Tensor, out: &mut Tensor, policy: Policy) -> Result<()> {
    use DType::*;
    let input = &*wide.cow::<T>()?;
    let is_float = T::DTYPE.is_float();
    let to = out.dtype();
    match to {
        F32 => each(input, out.as_mut_slice()?, T::f32),
        F64 => each(input, out.as_mut_slice()?, T::f64),
        F16 => each(input, out.as_mut_slice()?, |v| f16::from_f32(v.odd())),
        BF16 => each(input, out.as_mut_slice()?, |v| bf16::from_f32(v.odd())),
        Bool => each(input, out.bytes_mut(), |v| !v.is_zero() as u8),
        // Floats saturate into each type; integers wrap.
        I8 if is_float => each(input, out.as_mut_slice()?, |v| v.f64() as i8),
        U8 if is_float => each(input, out.as_mut_slice()?, |v| v.f64() as u8),
        I16 if is_float => each(input, out.as_mut_slice()?, |v| v.f64() as i16),
        U16 if is_float => each(input, out.as_mut_slice()?, |v| v.f64() as u16),
        I32 if is_float => each(input, out.as_mut_slice()?, |v| v.f64() as i32),
        U32 if is_float => each(input, out.as_mut_slice()?, |v| v.f64() as u32),
        I8 => each(input, out.as_mut_slice()?, |v| v.i64() as i8),
        U8 => each(input, out.as_mut_slice()?, |v| v.i64() as u8),
        I16 => each(input, out.as_mut_slice()?, |v| v.i64() as i16),
        U16 => each(input, out.as_mut_slice()?, |v| v.i64() as u16),
        I32 => each(input, out.as_mut_slice()?, |v| v.i64() as i32),
        U32 => each(input, out.as_mut_slice()?, |v| v.i64() as u32),
        I64 => each(input, out.as_mut_slice()?, T::i64),
        U64 => each(input, out.as_mut_slice()?, T::u64),
        _ => few_bits(input, out, policy)?,
    }
    Ok(())
}

/// The types of at most 8 bits that the machine does not know.
fn few_bits<T: Number>(input: &[T], out: &mut Tensor, policy: Policy) -> Result<()> {
    use DType::*;
    let Policy { saturate, rounding } = policy;
    let to = out.dtype();
    match (to, MiniFloat::of(to)) {
        (I4 | U4 | I2 | U2, _) => {
            pack_bits(input.iter().map(|v| v.i64()), to.bits(), out.bytes_mut());
        }
        (F4E2M1, Some(format)) => {
            let codes = input.iter().map(|v| format.encode(v.f32(), true) as i64);
            pack_bits(codes, 4, out.bytes_mut());
        }
        (F8E8M0, _) => {
            each(input, out.bytes_mut(), |v| e8m0::encode(v.f32(), rounding, saturate));
        }
        (_, Some(format)) => each(input, out.bytes_mut(), |v| format.encode(v.f32(), saturate)),
        _ => return Err(Error::unsupported(format!("a conversion from {} to {to}", T::DTYPE))),
    }
    Ok(())
}

fn each<T: Copy, U>(input: &[T], out: &mut [U], convert: impl Fn(T) -> U) {
    out.iter_mut().zip(input).for_each(|(slot, &v)| *slot = convert(v));
}
