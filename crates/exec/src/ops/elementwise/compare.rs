//! Comparisons and logic: boolean results.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, broadcast, broadcast_to_bool};
use crate::ops::broadcast::{broadcast_shapes, for_each_row, zip};
use crate::ops::half::widen;
use crate::ops::movement::{by_size, move_elements};
use crate::ops::number::{for_number, mixed_dtypes, unsupported_dtype};
use fewbit_core::{DType, Result, Tensor, ValueType};

pub(in crate::ops) const DEFS: &[OpDef] = &[
    OpDef::new("Equal", broadcast_to_bool, equal).since(7),
    OpDef::new("Greater", broadcast_to_bool, greater).since(7),
    OpDef::new("GreaterOrEqual", broadcast_to_bool, greater_or_equal),
    OpDef::new("Less", broadcast_to_bool, less).since(7),
    OpDef::new("LessOrEqual", broadcast_to_bool, less_or_equal),
    OpDef::new("And", broadcast_to_bool, and).since(7),
    OpDef::new("Or", broadcast_to_bool, or).since(7),
    OpDef::new("Xor", broadcast_to_bool, xor).since(7),
    OpDef::new("Not", bool_like_input, not),
    OpDef::new("IsNaN", bool_like_input, is_nan),
    OpDef::new("IsInf", bool_like_input, is_inf),
    OpDef::new("Where", infer_where, select),
];

fn bool_like_input(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![ValueType { dtype: Some(DType::Bool), ..ctx.ty(0) }])
}

/// A comparison for every type of number.
macro_rules! comparison {
    ($name:ident, $a:ident, $b:ident, $holds:expr) => {
        fn $name(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
            widen(ctx)?;
            let (a, b) = (ctx.input(0)?, ctx.input(1)?);
            if a.dtype() != b.dtype() {
                return Err(mixed_dtypes(a.dtype(), b.dtype()));
            }
            let result = for_number!(a.dtype(), T => zip(ctx, a, b, |$a: T, $b: T| $holds as u8))?;
            Ok(vec![result.reinterpret(DType::Bool)?])
        }
    };
}

comparison!(greater, a, b, (a > b));
comparison!(greater_or_equal, a, b, (a >= b));
comparison!(less, a, b, (a < b));
comparison!(less_or_equal, a, b, (a <= b));
comparison!(equal_numbers, a, b, (a == b));

fn equal(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    match ctx.input(0)?.dtype() {
        DType::Bool => logic(ctx, |a, b| a == b),
        DType::String => Ok(vec![equal_strings(ctx)?]),
        _ => equal_numbers(ctx),
    }
}

fn equal_strings(ctx: &EvalCtx) -> Result<Tensor> {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    let (Some(av), Some(bv)) = (a.strings(), b.strings()) else {
        return Err(mixed_dtypes(a.dtype(), b.dtype()));
    };
    let shape = broadcast_shapes(&[a.shape(), b.shape()])?;
    let mut out = vec![false; shape.iter().product()];
    for_each_row([a.shape(), b.shape()], &shape, |start, [ao, bo], [astep, bstep], len| {
        for i in 0..len {
            out[start + i] = av[ao + i * astep] == bv[bo + i * bstep];
        }
    });
    Tensor::from_bools(shape, &out)
}

fn and(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    logic(ctx, |a, b| a && b)
}

fn or(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    logic(ctx, |a, b| a || b)
}

fn xor(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    logic(ctx, |a, b| a != b)
}

fn logic(ctx: &EvalCtx, f: impl Fn(bool, bool) -> bool) -> Result<Vec<Tensor>> {
    let (a, b) = (ctx.input(0)?, ctx.input(1)?);
    if let Some(other) = [a, b].into_iter().find(|t| t.dtype() != DType::Bool) {
        return Err(unsupported_dtype(other.dtype()));
    }
    let result = zip(ctx, a, b, |a: u8, b: u8| f(a != 0, b != 0) as u8)?;
    Ok(vec![result.reinterpret(DType::Bool)?])
}

fn not(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let mut tensor = ctx.take(0)?;
    if tensor.dtype() != DType::Bool {
        return Err(unsupported_dtype(tensor.dtype()));
    }
    tensor.bytes_mut().iter_mut().for_each(|b| *b = (*b == 0) as u8);
    Ok(vec![tensor])
}

fn is_nan(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    classify(ctx, f64::is_nan)
}

fn is_inf(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let positive = ctx.int("detect_positive", 1)? != 0;
    let negative = ctx.int("detect_negative", 1)? != 0;
    classify(ctx, |v| v.is_infinite() && if v > 0.0 { positive } else { negative })
}

fn classify(ctx: &EvalCtx, f: impl Fn(f64) -> bool) -> Result<Vec<Tensor>> {
    let tensor = ctx.input(0)?;
    let holds: Vec<bool> = tensor.to_f64()?.into_iter().map(f).collect();
    Ok(vec![Tensor::from_bools(tensor.shape().to_vec(), &holds)?])
}

fn infer_where(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = broadcast(ctx)?;
    types[0].dtype = ctx.dtype(1);
    Ok(types)
}

/// `Where`: any type of element, moved by its bytes.
fn select(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (condition, x, y) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
    if condition.dtype() != DType::Bool {
        return Err(unsupported_dtype(condition.dtype()));
    }
    let shapes = [condition.shape(), x.shape(), y.shape()];
    let shape = broadcast_shapes(&shapes)?;
    let out = move_elements(ctx, &[x, y], shape.clone(), |inputs, out, size| {
        let inputs = [condition.bytes(), inputs[0], inputs[1]];
        by_size!(size, choose(shapes, &shape, inputs, out));
        Ok(())
    })?;
    Ok(vec![out])
}

fn choose<const N: usize>(
    shapes: [&[usize]; 3],
    shape: &[usize],
    [chosen, x, y]: [&[u8]; 3],
    out: &mut [u8],
) {
    let (x, y, out) = (x.as_chunks::<N>().0, y.as_chunks::<N>().0, out.as_chunks_mut::<N>().0);
    for_each_row(shapes, shape, |start, [at, from_x, from_y], [step, x_step, y_step], len| {
        let out = &mut out[start..][..len];
        let (x, y) = (Row::new(x, from_x, x_step, len), Row::new(y, from_y, y_step, len));
        match (step, chosen.get(at)) {
            (0, Some(0)) => y.copy_to(out),
            (0, _) => x.copy_to(out),
            _ => mix(&chosen[at..][..len], x, y, out),
        }
    });
}

/// An operand along a row of the output.
#[derive(Clone, Copy)]
enum Row<'a, const N: usize> {
    Many(&'a [[u8; N]]),
    One([u8; N]),
}

impl<'a, const N: usize> Row<'a, N> {
    fn new(values: &'a [[u8; N]], from: usize, step: usize, len: usize) -> Row<'a, N> {
        match values.get(from) {
            Some(&value) if step == 0 => Row::One(value),
            _ => Row::Many(&values[from..][..len]),
        }
    }

    fn copy_to(self, out: &mut [[u8; N]]) {
        match self {
            Row::Many(values) => out.copy_from_slice(values),
            Row::One(value) => out.fill(value),
        }
    }
}

fn mix<const N: usize>(chosen: &[u8], x: Row<N>, y: Row<N>, out: &mut [[u8; N]]) {
    let slots = out.iter_mut().zip(chosen);
    let pick = |chosen: u8, x: [u8; N], y: [u8; N]| if chosen == 0 { y } else { x };
    match (x, y) {
        (Row::Many(x), Row::Many(y)) => {
            slots.zip(x.iter().zip(y)).for_each(|((slot, &c), (&x, &y))| *slot = pick(c, x, y));
        }
        (Row::Many(x), Row::One(y)) => {
            slots.zip(x).for_each(|((slot, &c), &x)| *slot = pick(c, x, y));
        }
        (Row::One(x), Row::Many(y)) => {
            slots.zip(y).for_each(|((slot, &c), &y)| *slot = pick(c, x, y));
        }
        (Row::One(x), Row::One(y)) => slots.for_each(|(slot, &c)| *slot = pick(c, x, y)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_takes_the_elements_of_the_definition() {
        let cases: [[&[usize]; 3]; 8] = [
            [&[2, 3, 5], &[2, 3, 5], &[2, 3, 5]],
            [&[3, 5], &[2, 3, 5], &[]],
            [&[2, 1, 5], &[1], &[3, 1]],
            [&[2, 3, 1], &[5], &[2, 3, 5]],
            [&[], &[3, 5], &[2, 1, 1]],
            [&[2, 1, 5], &[3, 1], &[2, 3, 5]],
            [&[1], &[], &[1, 1]],
            [&[3, 1], &[3, 0], &[1]],
        ];
        for shapes in cases {
            check::<1>(shapes);
            check::<2>(shapes);
            check::<4>(shapes);
            check::<8>(shapes);
            check::<16>(shapes);
        }
    }

    fn check<const N: usize>(shapes: [&[usize]; 3]) {
        let len = |k: usize| shapes[k].iter().product::<usize>();
        let chosen: Vec<u8> = (0..len(0)).map(|i| u8::from(i % 3 != 1)).collect();
        let element = |k: usize, i: usize| [(100 * k + i) as u8; N];
        let [x, y] = [1, 2].map(|k| (0..len(k)).flat_map(|i| element(k, i)).collect::<Vec<u8>>());
        let shape = broadcast_shapes(&shapes).unwrap();
        let count = shape.iter().product::<usize>();
        let mut out = vec![0; count * N];
        choose::<N>(shapes, &shape, [&chosen, &x, &y], &mut out);
        let want = |i: usize| {
            let at = |k: usize| place(i, &shape, shapes[k]);
            if chosen[at(0)] == 0 { element(2, at(2)) } else { element(1, at(1)) }
        };
        assert_eq!(out, (0..count).flat_map(want).collect::<Vec<u8>>(), "{shapes:?}");
    }

    /// Where element `i` of a value of shape `out` lies in an operand.
    fn place(mut i: usize, out: &[usize], operand: &[usize]) -> usize {
        let (mut at, mut step) = (0, 1);
        for (back, &size) in out.iter().rev().enumerate() {
            if let Some(&own) = operand.iter().rev().nth(back) {
                at += i % size % own * step;
                step *= own;
            }
            i /= size;
        }
        at
    }
}
