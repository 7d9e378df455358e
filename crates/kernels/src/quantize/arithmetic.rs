//! Arithmetic of two quantized tensors.

use super::{Affine, Code, Quantizer};
use crate::Ctx;
use crate::elementwise::Binary;
use crate::elementwise::binary::Visitor;
use crate::elementwise::broadcast::{Pairwise, zip_broadcast};

/// `out[i]` = the code of `op(a[i], b[i])`: both codes dequantized, `op` in `f32`, quantized.
///
/// Each operand is `(codes, shape)` with its meaning, broadcast to the shape of `out` as in
/// [`binary_f32`](crate::elementwise::binary_f32). A following ReLU or clip goes into the
/// quantizer ([`Quantizer::clipped`]). Bit for bit the result of `dequantize`, `binary_f32`,
/// clip, `quantize`.
///
/// # Panics
/// When a slice is not as long as its shape says, a shape cannot be broadcast to that of `out`,
/// or the quantizer yields codes that `T` has not.
pub fn binary_codes<T: Code>(
    ctx: Ctx<'_>,
    op: Binary,
    (a, a_affine): ((&[T], &[usize]), Affine),
    (b, b_affine): ((&[T], &[usize]), Affine),
    (out, quantizer): ((&mut [T], &[usize]), Quantizer),
) {
    let (min, max) = quantizer.range();
    assert!(T::MIN <= min && max <= T::MAX, "codes {min}..={max} do not fit the storage type");
    let affines = [a_affine, b_affine];
    op.visit(OnCodes { ctx, a, b, out, affines, quantizer });
}

struct OnCodes<'a, T> {
    ctx: Ctx<'a>,
    a: (&'a [T], &'a [usize]),
    b: (&'a [T], &'a [usize]),
    out: (&'a mut [T], &'a [usize]),
    affines: [Affine; 2],
    quantizer: Quantizer,
}

impl<T: Code> Visitor for OnCodes<'_, T> {
    fn visit<F: Pairwise<f32, f32, f32>>(self, f: F) {
        let f = Quantized { f, affines: self.affines, quantizer: self.quantizer };
        zip_broadcast(self.ctx, f, self.a, self.b, self.out);
    }
}

#[derive(Clone, Copy)]
struct Quantized<F> {
    f: F,
    affines: [Affine; 2],
    quantizer: Quantizer,
}

impl<T: Code, F: Pairwise<f32, f32, f32>> Pairwise<T, T, T> for Quantized<F> {
    #[inline(always)]
    fn at(self, a: T, b: T) -> T {
        let a = self.affines[0].dequantize(a.widen());
        let b = self.affines[1].dequantize(b.widen());
        T::narrow(self.quantizer.code(self.f.at(a, b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{codes, everywhere};
    use crate::elementwise::{Unary, binary_f32, unary_f32_in_place};
    use crate::quantize::{dequantize, quantize};

    const A: Affine = Affine { scale: 0.0213, zero_point: 121 };
    const B: Affine = Affine { scale: 0.0377, zero_point: 9 };
    const Y: Affine = Affine { scale: 0.0459, zero_point: 60 };

    /// The same through float tensors.
    fn simulate(
        ctx: Ctx<'_>,
        op: Binary,
        a: (&[u8], &[usize]),
        b: (&[u8], &[usize]),
        dims: &[usize],
    ) -> Vec<u8> {
        let (mut x, mut y) = (vec![0.0; a.0.len()], vec![0.0; b.0.len()]);
        dequantize(ctx, A, a.0, &mut x);
        dequantize(ctx, B, b.0, &mut y);
        let mut z = vec![0.0; dims.iter().product()];
        binary_f32(ctx, op, (&x, a.1), (&y, b.1), (&mut z, dims));
        unary_f32_in_place(ctx, Unary::Clip { low: 0.0, high: 6.0 }, &mut z);
        let mut out = vec![0; z.len()];
        quantize(ctx, Quantizer::of::<u8>(Y), &z, &mut out);
        out
    }

    #[test]
    fn equals_the_way_through_floats() {
        let shapes: [(&[usize], &[usize], &[usize]); 5] = [
            (&[50_001], &[50_001], &[50_001]),
            (&[9, 33], &[33], &[9, 33]),
            (&[9, 33], &[1], &[9, 33]),
            (&[17], &[7, 1], &[7, 17]),
            (&[2, 3, 5, 7], &[3, 1, 7], &[2, 3, 5, 7]),
        ];
        for op in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max] {
            for (a_dims, b_dims, dims) in shapes {
                let a = codes(a_dims.iter().product(), 1);
                let b = codes(b_dims.iter().product(), 2);
                let (a, b) = ((&a[..], a_dims), (&b[..], b_dims));
                let quantizer = Quantizer::of::<u8>(Y).clipped(0.0, 6.0);
                let expected = everywhere(|ctx| simulate(ctx, op, a, b, dims));
                let got = everywhere(|ctx| {
                    let mut out = vec![0; expected.len()];
                    binary_codes(ctx, op, (a, A), (b, B), ((&mut out, dims), quantizer));
                    out
                });
                assert!(got == expected, "{op:?} {a_dims:?} {b_dims:?}");
            }
        }
    }
}
