//! Functions of one number: `f32` on the kernels, half precision through `f32`, `f64` and
//! integers directly.

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::same_as_input;
use crate::ops::half::through_f32;
use crate::ops::number::{Number, for_int, for_number, unsupported_dtype};
use fewbit_core::{DType, Result, Tensor};
use fewbit_kernels::elementwise::{Unary, unary_f32_in_place};

/// A row: the operator, its role, its `f32` kernel for a node, and its `f64` definition.
macro_rules! rows {
    ($($name:ident $op:literal $role:ident |$ctx:ident| $kernel:expr, |$k:ident, $x:ident| $f64:expr;)*) => {
        $(const $name: OpDef = {
            fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
                if let Some(done) = through_f32(ctx, eval)? {
                    return Ok(done);
                }
                let kernel: Unary = {
                    let $ctx = &*ctx;
                    $kernel
                };
                apply(ctx, kernel, |$k: Unary, $x: f64| $f64)
            }
            OpDef::new($op, same_as_input, eval).role(Role::$role)
        };)*
        /// Rows of functions with a kernel.
        pub(in crate::ops) const KERNELS: &[OpDef] = &[$($name),*];
    };
}

rows! {
    RELU "Relu" Clamp |_c| Unary::Relu, |_k, x| if x < 0.0 { 0.0 } else { x };
    LEAKY_RELU "LeakyRelu" Elementwise |c| Unary::LeakyRelu { alpha: c.float("alpha", 0.01)? }, |k, x| via_f32(k, x);
    THRESHOLDED "ThresholdedRelu" FloatOnly |c| Unary::ThresholdedRelu { alpha: c.float("alpha", 1.0)? }, |k, x| via_f32(k, x);
    SIGMOID "Sigmoid" Elementwise |_c| Unary::Sigmoid, |_k, x| 1.0 / (1.0 + (-x).exp());
    HARD_SIGMOID "HardSigmoid" Elementwise |c| Unary::HardSigmoid { alpha: c.float("alpha", 0.2)?, beta: c.float("beta", 0.5)? }, |k, x| via_f32(k, x);
    HARD_SWISH "HardSwish" Elementwise |_c| Unary::HardSwish, |_k, x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0);
    SWISH "Swish" Elementwise |c| Unary::Silu { alpha: c.float("alpha", 1.0)? }, |k, x| via_f32(k, x);
    TANH "Tanh" Elementwise |_c| Unary::Tanh, |_k, x| x.tanh();
    EXP "Exp" FloatOnly |_c| Unary::Exp, |_k, x| x.exp();
    LOG "Log" FloatOnly |_c| Unary::Log, |_k, x| x.ln();
    SQRT "Sqrt" FloatOnly |_c| Unary::Sqrt, |_k, x| x.sqrt();
    RECIPROCAL "Reciprocal" FloatOnly |_c| Unary::Reciprocal, |_k, x| 1.0 / x;
    ERF "Erf" FloatOnly |_c| Unary::Erf, |k, x| via_f32(k, x);
    GELU "Gelu" Elementwise |c| gelu(c.string("approximate", "none")?), |k, x| via_f32(k, x);
    ELU "Elu" Elementwise |c| Unary::Elu { alpha: c.float("alpha", 1.0)? }, |k, x| via_f32(k, x);
    SELU "Selu" FloatOnly |c| selu(c)?, |k, x| via_f32(k, x);
    CELU "Celu" FloatOnly |c| Unary::Celu { alpha: c.float("alpha", 1.0)? }, |k, x| via_f32(k, x);
    SOFTPLUS "Softplus" FloatOnly |_c| Unary::Softplus, |_k, x| x.max(0.0) + (-x.abs()).exp().ln_1p();
    MISH "Mish" FloatOnly |_c| Unary::Mish, |k, x| via_f32(k, x);
    SOFTSIGN "Softsign" FloatOnly |_c| Unary::Softsign, |_k, x| x / (1.0 + x.abs());
    FLOOR "Floor" FloatOnly |_c| Unary::Floor, |_k, x| x.floor();
    CEIL "Ceil" FloatOnly |_c| Unary::Ceil, |_k, x| x.ceil();
    ROUND "Round" FloatOnly |_c| Unary::Round, |_k, x| x.round_ties_even();
    SIN "Sin" FloatOnly |_c| Unary::Sin, |_k, x| x.sin();
    COS "Cos" FloatOnly |_c| Unary::Cos, |_k, x| x.cos();
}

/// The value of a kernel that is there for `f32` alone.
pub(super) fn via_f32(kernel: Unary, x: f64) -> f64 {
    kernel.apply(x as f32) as f64
}

fn gelu(approximate: &str) -> Unary {
    if approximate == "tanh" { Unary::GeluTanh } else { Unary::Gelu }
}

fn selu(ctx: &EvalCtx) -> Result<Unary> {
    // The defaults of the specification, rounded as it rounds them.
    let alpha = ctx.float("alpha", 1.673_263_2)?;
    Ok(Unary::Selu { alpha, gamma: ctx.float("gamma", 1.050_701)? })
}

/// A function of each element of the first input.
pub(super) fn apply(
    ctx: &mut EvalCtx,
    kernel: Unary,
    f64_value: impl Fn(Unary, f64) -> f64,
) -> Result<Vec<Tensor>> {
    let mut tensor = ctx.take(0)?;
    match tensor.dtype() {
        DType::F32 => unary_f32_in_place(*ctx.kernels, kernel, tensor.as_mut_slice()?),
        DType::F64 => {
            tensor.as_mut_slice::<f64>()?.iter_mut().for_each(|v| *v = f64_value(kernel, *v))
        }
        dtype if kernel == Unary::Relu => {
            for_int!(dtype, T => map(&mut tensor, |v: T| v.larger(T::ZERO)))?;
        }
        other => return Err(unsupported_dtype(other)),
    }
    Ok(vec![tensor])
}

/// `Abs`, `Neg` and `Sign`, which know every type of number.
pub(in crate::ops) const NUMERIC: &[OpDef] = &[
    OpDef::new("Abs", same_as_input, abs),
    OpDef::new("Neg", same_as_input, neg),
    OpDef::new("Sign", same_as_input, sign),
];

fn abs(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    in_place(ctx, abs, |t| for_number!(t.dtype(), T => map(t, |v: T| Number::abs(v))))
}

fn neg(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    in_place(ctx, neg, |t| for_number!(t.dtype(), T => map(t, |v: T| Number::neg(v))))
}

fn sign(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    in_place(ctx, sign, |t| for_number!(t.dtype(), T => map(t, |v: T| Number::sign(v))))
}

fn in_place(
    ctx: &mut EvalCtx,
    eval: fn(&mut EvalCtx) -> Result<Vec<Tensor>>,
    work: impl Fn(&mut Tensor) -> Result<()>,
) -> Result<Vec<Tensor>> {
    if let Some(done) = through_f32(ctx, eval)? {
        return Ok(done);
    }
    let mut tensor = ctx.take(0)?;
    work(&mut tensor)?;
    Ok(vec![tensor])
}

fn map<T: Number>(tensor: &mut Tensor, f: impl Fn(T) -> T) -> Result<()> {
    tensor.as_mut_slice::<T>()?.iter_mut().for_each(|v| *v = f(*v));
    Ok(())
}

/// Functions that only `f64` mathematics has; `f32` is computed there and rounded.
macro_rules! f64_rows {
    ($($op:literal |$x:ident| $value:expr;)*) => {
        /// Rows of functions without a kernel.
        pub(in crate::ops) const PLAIN: &[OpDef] = &[$({
            fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
                in_f64(ctx, |$x: f64| $value)
            }
            OpDef::new($op, same_as_input, eval)
        }),*];
    };
}

f64_rows! {
    "Tan" |x| x.tan();
    "Asin" |x| x.asin();
    "Acos" |x| x.acos();
    "Atan" |x| x.atan();
    "Sinh" |x| x.sinh();
    "Cosh" |x| x.cosh();
    "Asinh" |x| x.asinh();
    "Acosh" |x| x.acosh();
    "Atanh" |x| x.atanh();
}

fn in_f64(ctx: &mut EvalCtx, f: impl Fn(f64) -> f64) -> Result<Vec<Tensor>> {
    let tensor = ctx.take(0)?;
    if !tensor.dtype().is_float() {
        return Err(unsupported_dtype(tensor.dtype()));
    }
    let values: Vec<f64> = tensor.to_f64()?.into_iter().map(f).collect();
    Ok(vec![Tensor::from_f64(tensor.dtype(), tensor.shape().to_vec(), &values)?])
}
