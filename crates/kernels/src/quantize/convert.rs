//! Quantization and dequantization of whole tensors.

use super::{Affine, Code, Integer, Quantizer};
use crate::Ctx;
use crate::elementwise::broadcast::{Pairwise, zip_broadcast};
use crate::elementwise::map::{Pointwise, map};

/// `output[i]` = the code of `input[i]`.
///
/// # Panics
/// When the lengths differ, or `quantizer` yields codes that `T` has not.
pub fn quantize<T: Code>(ctx: Ctx<'_>, quantizer: Quantizer, input: &[f32], output: &mut [T]) {
    check::<T>(quantizer);
    map(ctx, Quantize(quantizer), input, output);
}

/// `output[i]` = the number that `input[i]` stands for.
///
/// # Panics
/// When the lengths differ.
pub fn dequantize<T: Integer>(ctx: Ctx<'_>, affine: Affine, input: &[T], output: &mut [f32]) {
    map(ctx, Dequantize(affine), input, output);
}

/// `output[i]` = the number that the code of `input[i]` stands for.
///
/// # Panics
/// When the lengths differ.
pub fn fake_quantize(ctx: Ctx<'_>, quantizer: Quantizer, input: &[f32], output: &mut [f32]) {
    map(ctx, FakeQuantize(quantizer), input, output);
}

/// As [`quantize`], with quantizers of shape `quantizer_dims` broadcast over `dims` by numpy's
/// rules. Per channel on axis 1 of `[n, c, h, w]`: shape `[c, 1, 1]`. Per block of `b` along the
/// last axis of `[n, k]`: view the data as `[n, k / b, b]`, with quantizers of shape
/// `[n, k / b, 1]`.
///
/// # Panics
/// When a length does not fit its shape, the shapes cannot be broadcast, or a quantizer yields
/// codes that `T` has not.
pub fn quantize_broadcast<T: Code>(
    ctx: Ctx<'_>,
    (quantizers, quantizer_dims): (&[Quantizer], &[usize]),
    input: &[f32],
    output: &mut [T],
    dims: &[usize],
) {
    quantizers.iter().for_each(|&q| check::<T>(q));
    let (a, b) = ((input, dims), (quantizers, quantizer_dims));
    zip_broadcast(ctx, EachQuantize, a, b, (output, dims));
}

/// As [`dequantize`], with meanings of shape `affine_dims` broadcast over `dims` as in
/// [`quantize_broadcast`].
///
/// # Panics
/// When a length does not fit its shape, or the shapes cannot be broadcast.
pub fn dequantize_broadcast<T: Integer>(
    ctx: Ctx<'_>,
    (affines, affine_dims): (&[Affine], &[usize]),
    input: &[T],
    output: &mut [f32],
    dims: &[usize],
) {
    let (a, b) = ((input, dims), (affines, affine_dims));
    zip_broadcast(ctx, EachDequantize, a, b, (output, dims));
}

/// As [`fake_quantize`], with quantizers broadcast as in [`quantize_broadcast`].
///
/// # Panics
/// When a length does not fit its shape, or the shapes cannot be broadcast.
pub fn fake_quantize_broadcast(
    ctx: Ctx<'_>,
    (quantizers, quantizer_dims): (&[Quantizer], &[usize]),
    input: &[f32],
    output: &mut [f32],
    dims: &[usize],
) {
    let (a, b) = ((input, dims), (quantizers, quantizer_dims));
    zip_broadcast(ctx, EachFakeQuantize, a, b, (output, dims));
}

/// `round(x / scale)`, halves to even, saturated to `i32`; zero point 0. For biases; NaN becomes
/// 0.
pub fn quantize_i32(x: f32, scale: f32) -> i32 {
    (x / scale).round_ties_even() as i32
}

/// Asserts that `T` has all codes of `quantizer`.
fn check<T: Code>(quantizer: Quantizer) {
    let (min, max) = quantizer.range();
    assert!(T::MIN <= min && max <= T::MAX, "codes {min}..={max} do not fit the storage type");
}

#[derive(Clone, Copy)]
struct Quantize(Quantizer);

impl<T: Code> Pointwise<f32, T> for Quantize {
    #[inline(always)]
    fn at(self, x: f32) -> T {
        T::narrow(self.0.code(x))
    }
}

#[derive(Clone, Copy)]
struct Dequantize(Affine);

impl<T: Integer> Pointwise<T, f32> for Dequantize {
    #[inline(always)]
    fn at(self, code: T) -> f32 {
        self.0.dequantize(code.widen())
    }
}

#[derive(Clone, Copy)]
struct FakeQuantize(Quantizer);

impl Pointwise<f32, f32> for FakeQuantize {
    #[inline(always)]
    fn at(self, x: f32) -> f32 {
        self.0.fake_quantize(x)
    }
}

#[derive(Clone, Copy)]
struct EachQuantize;

impl<T: Code> Pairwise<f32, Quantizer, T> for EachQuantize {
    #[inline(always)]
    fn at(self, x: f32, quantizer: Quantizer) -> T {
        T::narrow(quantizer.code(x))
    }
}

#[derive(Clone, Copy)]
struct EachDequantize;

impl<T: Integer> Pairwise<T, Affine, f32> for EachDequantize {
    #[inline(always)]
    fn at(self, code: T, affine: Affine) -> f32 {
        affine.dequantize(code.widen())
    }
}

#[derive(Clone, Copy)]
struct EachFakeQuantize;

impl Pairwise<f32, Quantizer, f32> for EachFakeQuantize {
    #[inline(always)]
    fn at(self, x: f32, quantizer: Quantizer) -> f32 {
        quantizer.fake_quantize(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{LENGTHS, bits, everywhere, wild};

    fn quantizer<T: Code>(zero_point: i32) -> Quantizer {
        Quantizer::of::<T>(Affine { scale: 0.0371, zero_point })
    }

    fn round_trip<T: Code + Default + PartialEq + std::fmt::Debug>(zero_point: i32) {
        let quantizer = quantizer::<T>(zero_point);
        for len in LENGTHS {
            let x = wild(len, 5);
            let expected: Vec<T> = x.iter().map(|&x| T::narrow(quantizer.code(x))).collect();
            let codes = everywhere(|ctx| {
                let mut codes = vec![T::default(); len];
                quantize(ctx, quantizer, &x, &mut codes);
                codes
            });
            assert_eq!(codes, expected);
            let back = everywhere(|ctx| {
                let mut back = vec![0.0; len];
                dequantize(ctx, quantizer.affine(), &codes, &mut back);
                bits(&back)
            });
            let fake = everywhere(|ctx| {
                let mut fake = vec![0.0; len];
                fake_quantize(ctx, quantizer, &x, &mut fake);
                bits(&fake)
            });
            assert_eq!(back, fake);
        }
    }

    #[test]
    fn all_code_types_round_trip() {
        round_trip::<u8>(117);
        round_trip::<i8>(-3);
        round_trip::<u16>(40_000);
        round_trip::<i16>(0);
    }

    #[test]
    fn axes_and_blocks_are_broadcast() {
        let x = wild(2 * 3 * 70, 6);
        let quantizers: Vec<Quantizer> = (1..=3)
            .map(|i| Quantizer::of::<i8>(Affine { scale: 0.02 * i as f32, zero_point: i }))
            .collect();
        let codes = everywhere(|ctx| {
            let mut codes = vec![0_i8; x.len()];
            quantize_broadcast(ctx, (&quantizers, &[3, 1]), &x, &mut codes, &[2, 3, 70]);
            codes
        });
        for (i, (&code, &x)) in codes.iter().zip(&x).enumerate() {
            assert_eq!(i32::from(code), quantizers[i / 70 % 3].code(x));
        }
        let affines: Vec<Affine> = quantizers.iter().map(|q| q.affine()).collect();
        let back = everywhere(|ctx| {
            let mut back = vec![0.0; x.len()];
            dequantize_broadcast(ctx, (&affines, &[3, 1]), &codes, &mut back, &[2, 3, 70]);
            bits(&back)
        });
        let fake = everywhere(|ctx| {
            let mut fake = vec![0.0; x.len()];
            fake_quantize_broadcast(ctx, (&quantizers, &[3, 1]), &x, &mut fake, &[2, 3, 70]);
            bits(&fake)
        });
        assert_eq!(back, fake);
    }

    #[test]
    fn accumulators_dequantize() {
        let codes = [i32::MIN, -5, 0, 7, i32::MAX];
        let mut out = [0.0; 5];
        let pool = crate::Pool::single();
        let ctx = Ctx { isa: crate::Isa::best(), pool: &pool };
        dequantize(ctx, Affine { scale: 0.5, zero_point: 0 }, &codes, &mut out);
        assert_eq!(out, codes.map(|q| q as f32 * 0.5));
    }

    #[test]
    fn biases_saturate() {
        assert_eq!(quantize_i32(2.5, 1.0), 2);
        assert_eq!(quantize_i32(1e20, 1e-3), i32::MAX);
        assert_eq!(quantize_i32(f32::NAN, 1.0), 0);
    }
}
