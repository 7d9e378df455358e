//! Arithmetic of two or more tensors, broadcast together.

use crate::eval::EvalCtx;
use crate::infer::broadcast_dims;
use crate::ops::matmul::shape::broadcast_index;
use fewbit_core::{DType, Dim, Element, Error, Result, Tensor};
use fewbit_kernels::elementwise::{Binary, binary_f32};

pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let mut result = ctx.input(0)?.clone();
    for index in 1..ctx.input_count() {
        result = pair(ctx, &result, ctx.input(index)?)?;
    }
    Ok(vec![result])
}

fn pair(ctx: &EvalCtx, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let op = ctx.node.op.as_str();
    let known = |s: &[usize]| s.iter().map(|&d| Dim::Known(d)).collect::<Vec<_>>();
    let dims = broadcast_dims(&known(a.shape()), &known(b.shape()))?;
    let shape: Vec<usize> = dims.iter().filter_map(Dim::known).collect();
    match a.dtype() {
        DType::F32 => {
            let b = b.cast(DType::F32)?;
            let mut y = ctx.alloc(DType::F32, shape.clone())?;
            let (left, right) = ((&*a.cow()?, a.shape()), (&*b.cow()?, b.shape()));
            binary_f32(*ctx.kernels, binary(op)?, left, right, (y.as_mut_slice()?, &shape));
            Ok(y)
        }
        dtype if dtype.is_float() => {
            let (x, y) = (a.to_f64()?, b.to_f64()?);
            let values = zip(&shape, (&x, a.shape()), (&y, b.shape()), |x, y| float(op, x, y));
            Tensor::from_f64(dtype, shape, &values)
        }
        dtype if dtype.is_int() => {
            let (x, y) = (a.to_i64()?, b.to_i64()?);
            let values = zip(&shape, (&x, a.shape()), (&y, b.shape()), |x, y| integer(op, x, y));
            let wide = Tensor::from_slice(shape, &values)?;
            narrow(&wide, dtype)
        }
        dtype => Err(Error::unsupported(format!("{op} of {dtype} values"))),
    }
}

fn zip<T: Copy>(
    shape: &[usize],
    a: (&[T], &[usize]),
    b: (&[T], &[usize]),
    f: impl Fn(T, T) -> T,
) -> Vec<T> {
    let at = |operand: (&[T], &[usize]), index| operand.0[broadcast_index(shape, operand.1, index)];
    (0..shape.iter().product()).map(|index| f(at(a, index), at(b, index))).collect()
}

/// Integers wrap around in their own type.
fn narrow(wide: &Tensor, dtype: DType) -> Result<Tensor> {
    let values = wide.as_slice::<i64>()?;
    fn all<T: Element>(shape: &[usize], values: &[i64], f: impl Fn(i64) -> T) -> Result<Tensor> {
        let values: Vec<T> = values.iter().map(|&v| f(v)).collect();
        Tensor::from_slice(shape.to_vec(), &values)
    }
    let shape = wide.shape();
    match dtype {
        DType::I64 => Ok(wide.clone()),
        DType::I32 => all(shape, values, |v| v as i32),
        DType::I16 => all(shape, values, |v| v as i16),
        DType::I8 => all(shape, values, |v| v as i8),
        DType::U64 => all(shape, values, |v| v as u64),
        DType::U32 => all(shape, values, |v| v as u32),
        DType::U16 => all(shape, values, |v| v as u16),
        DType::U8 => all(shape, values, |v| v as u8),
        other => wide.cast(other),
    }
}

fn binary(op: &str) -> Result<Binary> {
    Ok(match op {
        "Add" | "Sum" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Pow" => Binary::Pow,
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        "PRelu" => Binary::PRelu,
        other => return Err(Error::internal(format!("{other} is no arithmetic"))),
    })
}

fn float(op: &str, a: f64, b: f64) -> f64 {
    match op {
        "Sub" => a - b,
        "Mul" => a * b,
        "Div" => a / b,
        "Pow" => a.powf(b),
        "Min" => a.min(b),
        "Max" => a.max(b),
        "PRelu" if a >= 0.0 => a,
        "PRelu" => a * b,
        _ => a + b,
    }
}

fn integer(op: &str, a: i64, b: i64) -> i64 {
    match op {
        "Sub" => a.wrapping_sub(b),
        "Mul" => a.wrapping_mul(b),
        // What no integer can hold becomes 0.
        "Div" => a.checked_div(b).unwrap_or(0),
        "Pow" => u32::try_from(b).map_or(0, |b| a.wrapping_pow(b)),
        "Min" => a.min(b),
        "Max" => a.max(b),
        "PRelu" if a >= 0 => a,
        "PRelu" => a.wrapping_mul(b),
        _ => a.wrapping_add(b),
    }
}
