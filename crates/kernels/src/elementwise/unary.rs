//! Functions of one `f32` tensor.

use super::map::{Pointwise, map, map_in_place};
use crate::{Ctx, math};

/// One row per function: its name, its parameters, and its value at `x`; for some where `x` is near
/// enough for a form without branches, and that. From this come the enum, the scalar definition and the vector loops.
macro_rules! functions {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident $({ $($(#[doc = $field_doc:literal])* $field:ident),+ })? |$x:ident| $value:expr
            $(, near $near:expr => $there:expr)?;
    )*) => {
        /// A function of one number, as the ONNX operator of the same name defines it.
        ///
        /// All keep NaN. Errors of the transcendental ones: `docs/numerics.md`.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Unary {
            $($(#[doc = $doc])* $name $({ $($(#[doc = $field_doc])* $field: f32),+ })?,)*
        }

        mod functions {
            $(#[derive(Clone, Copy)]
            pub(super) struct $name { $($(pub(super) $field: f32),+)? })*
        }

        $(impl Pointwise<f32, f32> for functions::$name {
            #[inline(always)]
            fn at(self, $x: f32) -> f32 {
                let functions::$name { $($($field),+)? } = self;
                $value
            }
            $(
                const HAS_FAR: bool = true;
                #[inline(always)]
                fn is_near(self, $x: f32) -> bool {
                    $near
                }
                #[inline(always)]
                fn near(self, $x: f32) -> f32 {
                    $there
                }
            )?
        })*

        impl Unary {
            /// The value at `x`: the definition that the slice functions follow bit for bit.
            pub fn apply(self, x: f32) -> f32 {
                match self {
                    $(Unary::$name $({ $($field),+ })? =>
                        functions::$name { $($($field),+)? }.at(x),)*
                }
            }
        }

        /// `output[i] = op(input[i])`.
        ///
        /// # Panics
        /// When the lengths differ.
        pub fn unary_f32(ctx: Ctx<'_>, op: Unary, input: &[f32], output: &mut [f32]) {
            match op {
                $(Unary::$name $({ $($field),+ })? =>
                    map(ctx, functions::$name { $($($field),+)? }, input, output),)*
            }
        }

        /// `data[i] = op(data[i])`.
        pub fn unary_f32_in_place(ctx: Ctx<'_>, op: Unary, data: &mut [f32]) {
            match op {
                $(Unary::$name $({ $($field),+ })? =>
                    map_in_place(ctx, functions::$name { $($($field),+)? }, data),)*
            }
        }

        #[cfg(test)]
        const ALL: &[Unary] = &[$(Unary::$name $({ $($field: tests::$field),+ })?),*];
    };
}

functions! {
    /// `x`, or 0 below 0.
    Relu |x| if x < 0.0 { 0.0 } else { x };
    /// `x` limited to `low..=high`; `high` wins where they cross.
    Clip {
        /// The lower bound; `-inf` for none.
        low,
        /// The upper bound; `inf` for none.
        high
    } |x| math::clip(x, low, high);
    /// `x`, or `alpha x` below 0.
    LeakyRelu {
        /// The slope below 0.
        alpha
    } |x| if x < 0.0 { alpha * x } else { x };
    /// `x` where it is above `alpha`, else 0.
    ThresholdedRelu {
        /// The threshold.
        alpha
    } |x| if x <= alpha { 0.0 } else { x };
    /// `1 / (1 + e^-x)`.
    Sigmoid |x| math::sigmoid(x);
    /// `max(0, min(1, alpha x + beta))`.
    HardSigmoid {
        /// The slope; ONNX's default is 0.2.
        alpha,
        /// The offset; ONNX's default is 0.5.
        beta
    } |x| math::hard_sigmoid(x, alpha, beta);
    /// `x max(0, min(1, x / 6 + 1 / 2))`.
    HardSwish |x| math::hard_swish(x);
    /// `x sigmoid(alpha x)`.
    Silu {
        /// The slope inside; 1 for SiLU.
        alpha
    } |x| math::silu(x, alpha);
    /// The hyperbolic tangent.
    Tanh |x| math::tanh(x);
    /// `alpha tanh(beta x)`.
    ScaledTanh {
        /// The factor outside.
        alpha,
        /// The factor inside.
        beta
    } |x| alpha * math::tanh(beta * x);
    /// `alpha x + beta`, rounded twice.
    Affine {
        /// The slope.
        alpha,
        /// The offset.
        beta
    } |x| alpha * x + beta;
    /// `e^x`.
    Exp |x| math::exp(x);
    /// The natural logarithm.
    Log |x| math::log(x);
    /// The square root, correctly rounded.
    Sqrt |x| x.sqrt();
    /// `1 / sqrt(x)`, both correctly rounded.
    Rsqrt |x| 1.0 / x.sqrt();
    /// `1 / x`, correctly rounded.
    Reciprocal |x| 1.0 / x;
    /// The error function.
    Erf |x| math::erf(x);
    /// `x (1 + erf(x / sqrt(2))) / 2`.
    Gelu |x| math::gelu(x);
    /// GELU's approximation by `tanh`.
    GeluTanh |x| math::gelu_tanh(x);
    /// `x` above 0, `alpha (e^x - 1)` below.
    Elu {
        /// The limit at minus infinity, negated.
        alpha
    } |x| math::elu(x, alpha);
    /// `gamma elu(x, alpha)`.
    Selu {
        /// ONNX's default is 1.6732632.
        alpha,
        /// ONNX's default is 1.0507010.
        gamma
    } |x| math::selu(x, alpha, gamma);
    /// `max(0, x) + min(0, alpha (e^(x / alpha) - 1))`.
    Celu {
        /// The limit at minus infinity, negated.
        alpha
    } |x| math::celu(x, alpha);
    /// `ln(1 + e^x)`.
    Softplus |x| math::softplus(x);
    /// `x tanh(softplus(x))`.
    Mish |x| math::mish(x);
    /// `x / (1 + |x|)`.
    Softsign |x| math::softsign(x);
    /// The magnitude.
    Abs |x| x.abs();
    /// `-x`.
    Neg |x| -x;
    /// -1, 0 or 1.
    Sign |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x };
    /// The largest integer not above `x`.
    Floor |x| x.floor();
    /// The smallest integer not below `x`.
    Ceil |x| x.ceil();
    /// The nearest integer, halves to even.
    Round |x| x.round_ties_even();
    /// The sine; `x` in radians.
    Sin |x| math::sin(x), near math::is_near(x) => math::sin_near(x);
    /// The cosine; `x` in radians.
    Cos |x| math::cos(x), near math::is_near(x) => math::cos_near(x);
}

#[cfg(test)]
#[expect(non_upper_case_globals, reason = "named like the parameters they stand for")]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{LENGTHS, bits, everywhere, wild};

    pub(super) const alpha: f32 = 0.3;
    pub(super) const beta: f32 = 0.4;
    pub(super) const gamma: f32 = 1.1;
    pub(super) const low: f32 = -0.7;
    pub(super) const high: f32 = 0.9;

    #[test]
    fn slices_follow_the_scalar_definition() {
        for &op in ALL {
            for len in LENGTHS {
                let x = wild(len, 1);
                let expected: Vec<f32> = x.iter().map(|&x| op.apply(x)).collect();
                let y = everywhere(|ctx| {
                    let mut y = vec![0.0; len];
                    unary_f32(ctx, op, &x, &mut y);
                    bits(&y)
                });
                assert_eq!(y, bits(&expected), "{op:?}");
            }
        }
    }

    #[test]
    fn sines_of_near_and_of_far_numbers() {
        let mut x: Vec<f32> = (0..1500).map(|i| (i as f32 - 700.3) * 0.37).collect();
        (x[3], x[500], x[900]) = (-0.0, 3e12, f32::INFINITY);
        for op in [Unary::Sin, Unary::Cos] {
            let expected: Vec<f32> = x.iter().map(|&x| op.apply(x)).collect();
            let y = everywhere(|ctx| {
                let (mut y, mut own) = (vec![0.0; x.len()], x.clone());
                unary_f32(ctx, op, &x, &mut y);
                unary_f32_in_place(ctx, op, &mut own);
                (bits(&y), bits(&own))
            });
            assert_eq!(y, (bits(&expected), bits(&expected)), "{op:?}");
        }
    }

    #[test]
    fn in_place_is_the_same() {
        let x = wild(1000, 2);
        for &op in ALL {
            let expected: Vec<f32> = x.iter().map(|&x| op.apply(x)).collect();
            let y = everywhere(|ctx| {
                let mut y = x.clone();
                unary_f32_in_place(ctx, op, &mut y);
                bits(&y)
            });
            assert_eq!(y, bits(&expected), "{op:?}");
        }
    }

    #[test]
    fn nan_is_kept() {
        for &op in ALL {
            assert!(op.apply(f32::NAN).is_nan(), "{op:?}");
        }
    }

    #[test]
    fn values() {
        assert_eq!(Unary::Round.apply(2.5), 2.0);
        assert_eq!(Unary::Round.apply(-3.5), -4.0);
        assert_eq!(Unary::Sign.apply(-3.5), -1.0);
        assert_eq!(Unary::LeakyRelu { alpha: 0.25 }.apply(-2.0), -0.5);
        assert_eq!(Unary::ThresholdedRelu { alpha: 1.0 }.apply(1.0), 0.0);
        assert_eq!(Unary::Clip { low: 0.0, high: 6.0 }.apply(7.0), 6.0);
        assert_eq!(Unary::Rsqrt.apply(4.0), 0.5);
    }
}
