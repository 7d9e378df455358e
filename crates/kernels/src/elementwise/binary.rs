//! Functions of two `f32` tensors.

use super::broadcast::{Pairwise, zip_broadcast};
use crate::{Ctx, math};

/// One row per function: its name and its value at `(a, b)`.
macro_rules! functions {
    ($($(#[doc = $doc:literal])* $name:ident |$a:ident, $b:ident| $value:expr;)*) => {
        /// A function of two numbers, as the ONNX operator of the same name defines it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Binary {
            $($(#[doc = $doc])* $name,)*
        }

        mod functions {
            $(#[derive(Clone, Copy)]
            pub(super) struct $name;)*
        }

        $(impl Pairwise<f32, f32, f32> for functions::$name {
            #[inline(always)]
            fn at(self, $a: f32, $b: f32) -> f32 {
                $value
            }
        })*

        impl Binary {
            /// The value at `(a, b)`: the definition that [`binary_f32`] follows bit for bit.
            pub fn apply(self, a: f32, b: f32) -> f32 {
                match self {
                    $(Binary::$name => functions::$name.at(a, b),)*
                }
            }
        }

        impl Binary {
            /// Hands the function itself to `visitor`, so that a loop is compiled for each.
            pub(crate) fn visit(self, visitor: impl Visitor) {
                match self {
                    $(Binary::$name => visitor.visit(functions::$name),)*
                }
            }
        }

        #[cfg(test)]
        const ALL: &[Binary] = &[$(Binary::$name),*];
    };
}

functions! {
    /// `a + b`.
    Add |a, b| a + b;
    /// `a - b`.
    Sub |a, b| a - b;
    /// `a b`.
    Mul |a, b| a * b;
    /// `a / b`.
    Div |a, b| a / b;
    /// The smaller; NaN if either is NaN.
    Min |a, b| math::min(a, b);
    /// The larger; NaN if either is NaN.
    Max |a, b| math::max(a, b);
    /// `a` to the power `b`.
    Pow |a, b| math::pow(a, b);
    /// `a`, or `a b` where `a` is below 0: a leaky ReLU with slopes `b`.
    PRelu |a, b| if a < 0.0 { a * b } else { a };
}

/// A job that is compiled once per function.
pub(crate) trait Visitor {
    fn visit<F: Pairwise<f32, f32, f32>>(self, f: F);
}

/// `out[i] = op(a[i], b[i])`, both operands broadcast to the shape of `out` by numpy's rules:
/// shapes align at the last axis, axes of length 1 repeat. Each argument is `(data, shape)`. Any
/// rank; equal shapes, scalars, rows, columns and per-channel operands run at full speed.
///
/// # Panics
/// When a slice is not as long as its shape says, or a shape cannot be broadcast to that of
/// `out`.
pub fn binary_f32(
    ctx: Ctx<'_>,
    op: Binary,
    a: (&[f32], &[usize]),
    b: (&[f32], &[usize]),
    out: (&mut [f32], &[usize]),
) {
    op.visit(OnFloats { ctx, a, b, out });
}

struct OnFloats<'a> {
    ctx: Ctx<'a>,
    a: (&'a [f32], &'a [usize]),
    b: (&'a [f32], &'a [usize]),
    out: (&'a mut [f32], &'a [usize]),
}

impl Visitor for OnFloats<'_> {
    fn visit<F: Pairwise<f32, f32, f32>>(self, f: F) {
        zip_broadcast(self.ctx, f, self.a, self.b, self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{LENGTHS, bits, everywhere, wild};

    /// The element of an operand of shape `dims` that belongs to `index` of the output.
    fn offset(dims: &[usize], index: &[usize]) -> usize {
        let skipped = index.len() - dims.len();
        dims.iter()
            .zip(&index[skipped..])
            .fold(0, |sum, (&len, &i)| sum * len + if len == 1 { 0 } else { i })
    }

    fn index(dims: &[usize], mut flat: usize) -> Vec<usize> {
        let mut index = vec![0; dims.len()];
        for (i, &len) in index.iter_mut().zip(dims).rev() {
            (*i, flat) = (flat % len, flat / len);
        }
        index
    }

    #[track_caller]
    fn check(op: Binary, a_dims: &[usize], b_dims: &[usize], out_dims: &[usize]) {
        let count = |dims: &[usize]| dims.iter().product::<usize>();
        let (a, b) = (wild(count(a_dims), 3), wild(count(b_dims) + 7, 4)[7..].to_vec());
        let expected: Vec<f32> = (0..count(out_dims))
            .map(|flat| index(out_dims, flat))
            .map(|at| op.apply(a[offset(a_dims, &at)], b[offset(b_dims, &at)]))
            .collect();
        let got = everywhere(|ctx| {
            let mut out = vec![0.0; expected.len()];
            binary_f32(ctx, op, (&a, a_dims), (&b, b_dims), (&mut out, out_dims));
            bits(&out)
        });
        assert!(got == bits(&expected), "{op:?} {a_dims:?} {b_dims:?}");
    }

    #[test]
    fn equal_shapes_and_scalars() {
        for &op in ALL {
            for len in LENGTHS {
                check(op, &[len], &[len], &[len]);
                check(op, &[len], &[], &[len]);
                check(op, &[1, 1], &[len], &[1, len]);
            }
        }
    }

    #[test]
    fn broadcast_shapes() {
        let cases: [(&[usize], &[usize], &[usize]); 9] = [
            (&[5, 33], &[33], &[5, 33]),
            (&[5, 33], &[5, 1], &[5, 33]),
            (&[33], &[5, 33], &[5, 33]),
            (&[2, 3, 17, 4], &[3, 1, 1], &[2, 3, 17, 4]),
            (&[2, 1, 4, 1], &[3, 1, 5], &[2, 3, 4, 5]),
            (&[2, 3, 1, 1, 2, 1, 2, 3], &[4, 2, 1, 5, 1, 3], &[2, 3, 4, 2, 2, 5, 2, 3]),
            (&[1, 1, 3], &[2, 4, 1], &[2, 4, 3]),
            (&[0, 3], &[3], &[0, 3]),
            (&[300, 1], &[1, 200], &[300, 200]),
        ];
        for (a, b, out) in cases {
            check(Binary::Sub, a, b, out);
            check(Binary::PRelu, a, b, out);
        }
    }

    #[test]
    fn min_and_max_keep_nan() {
        for op in [Binary::Min, Binary::Max] {
            assert!(op.apply(f32::NAN, 1.0).is_nan());
            assert!(op.apply(1.0, f32::NAN).is_nan());
        }
    }
}
