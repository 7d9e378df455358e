//! Functions of one 8-bit code as tables of 256 entries.

use super::{Affine, Byte, Quantizer};
use crate::Ctx;
use crate::elementwise::map::{Pointwise, map};

/// The table of `f` from codes of `A` to codes of `Y`: entry `i` is the quantized `f` of the
/// number that the code with bits `i` stands for. With `|x| x` it requantizes.
///
/// # Panics
/// When `output` yields codes that `Y` has not.
pub fn byte_table<A: Byte, Y: Byte>(
    input: Affine,
    output: Quantizer,
    f: impl Fn(f32) -> f32,
) -> [Y; 256] {
    let (min, max) = output.range();
    assert!(Y::MIN <= min && max <= Y::MAX, "codes {min}..={max} do not fit the storage type");
    std::array::from_fn(|byte| {
        let x = input.dequantize(A::from_byte(byte as u8).widen());
        Y::narrow(output.code(f(x)))
    })
}

/// `output[i] = table[bits of input[i]]`.
///
/// # Panics
/// When the lengths differ.
pub fn lookup<A, Y>(ctx: Ctx<'_>, table: &[Y; 256], input: &[A], output: &mut [Y])
where
    A: Byte,
    Y: Copy + Send + Sync,
{
    map(ctx, Lookup(table), input, output);
}

struct Lookup<'a, Y>(&'a [Y; 256]);

impl<Y> Clone for Lookup<'_, Y> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Y> Copy for Lookup<'_, Y> {}

impl<A: Byte, Y: Copy + Send + Sync> Pointwise<A, Y> for Lookup<'_, Y> {
    #[inline(always)]
    fn at(self, x: A) -> Y {
        self.0[usize::from(x.to_byte())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::Unary;
    use crate::elementwise::sweep::{LENGTHS, codes, everywhere};

    #[test]
    fn a_table_is_dequantize_apply_quantize() {
        let input = Affine { scale: 0.05, zero_point: -7 };
        let output = Quantizer::of::<u8>(Affine { scale: 1.0 / 256.0, zero_point: 0 });
        let table = byte_table::<i8, u8>(input, output, |x| Unary::Sigmoid.apply(x));
        for len in LENGTHS {
            let x: Vec<i8> = codes(len, 8).into_iter().map(i8::from_byte).collect();
            let y = everywhere(|ctx| {
                let mut y = vec![0_u8; len];
                lookup(ctx, &table, &x, &mut y);
                y
            });
            for (&x, &y) in x.iter().zip(&y) {
                let exact = Unary::Sigmoid.apply(input.dequantize(i32::from(x)));
                assert_eq!(i32::from(y), output.code(exact));
            }
        }
    }

    #[test]
    fn a_table_requantizes() {
        let table = byte_table::<u8, i8>(
            Affine { scale: 0.1, zero_point: 128 },
            Quantizer::of::<i8>(Affine { scale: 0.1, zero_point: 0 }),
            |x| x,
        );
        assert_eq!([0, 128, 255].map(|i| table[i]), [-128, 0, 127]);
    }
}
