//! `ReduceSum` and its kin: `f32` on the kernels, integers in their own type, the rest in `f64`.

use super::axes::{Reduced, infer};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::ops::broadcast::for_each_row;
use crate::ops::half::through_f32;
use crate::ops::number::{Number, for_int};
use fewbit_core::{DType, Result, Tensor};
use fewbit_kernels::reduce::{Reduce, reduce_f32};
use fewbit_kernels::transpose::transpose;

/// A reduction in `f64`: the start value, the step, and what is made of the total and the number
/// of elements.
struct Wide {
    start: f64,
    step: fn(f64, f64) -> f64,
    finish: fn(f64, usize) -> f64,
}

/// A row: operator, kernel, and its start value, step and finish in `f64`.
macro_rules! rows {
    ($($name:ident $op:literal $kernel:ident $start:expr, $step:expr, $finish:expr;)*) => {
        $(pub(in crate::ops) const $name: OpDef = {
            fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
                if let Some(done) = through_f32(ctx, eval)? {
                    return Ok(done);
                }
                let wide = Wide { start: $start, step: $step, finish: $finish };
                reduce(ctx, Reduce::$kernel, &wide)
            }
            OpDef::new($op, infer, eval)
        };)*
    };
}

rows! {
    SUM "ReduceSum" Sum 0.0, |a, v| a + v, |a, _| a;
    MEAN "ReduceMean" Mean 0.0, |a, v| a + v, |a, n| a / n as f64;
    MAX "ReduceMax" Max f64::NEG_INFINITY, <f64 as Number>::larger, |a, _| a;
    MIN "ReduceMin" Min f64::INFINITY, <f64 as Number>::smaller, |a, _| a;
    PROD "ReduceProd" Prod 1.0, |a, v| a * v, |a, _| a;
    L1 "ReduceL1" L1 0.0, |a, v| a + v.abs(), |a, _| a;
    L2 "ReduceL2" L2 0.0, |a, v| v.mul_add(v, a), |a, _| a.sqrt();
    SUM_SQUARE "ReduceSumSquare" SumSquare 0.0, |a, v| v.mul_add(v, a), |a, _| a;
    LOG_SUM "ReduceLogSum" LogSum 0.0, |a, v| a + v, |a, _| a.ln();
    LOG_SUM_EXP "ReduceLogSumExp" LogSumExp f64::NEG_INFINITY, log_add_exp, |a, _| a;
}

/// `ln(e^a + e^b)` without overflow.
fn log_add_exp(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        return f64::NAN;
    }
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if high.is_infinite() { high } else { high + (low - high).exp().ln_1p() }
}

fn reduce(ctx: &mut EvalCtx, op: Reduce, wide: &Wide) -> Result<Vec<Tensor>> {
    let x = ctx.input(0)?;
    let axes = Reduced::new(ctx, x.shape())?;
    let dtype = x.dtype();
    if dtype == DType::F32 {
        return Ok(vec![float(ctx, x, &axes, op)?]);
    }
    if dtype.is_int() && matches!(op, Reduce::Sum | Reduce::Max | Reduce::Min | Reduce::Prod) {
        return Ok(vec![for_int!(dtype, T => whole::<T>(ctx, x, &axes, op))?]);
    }
    let totals = totals(x, &axes, wide)?;
    Ok(vec![narrow(dtype, axes.output_shape(), &totals)?])
}

/// The kernel wants one run of axes to reduce; others are brought together first.
fn float(ctx: &EvalCtx, x: &Tensor, axes: &Reduced, op: Reduce) -> Result<Tensor> {
    let data = x.cow::<f32>()?;
    let mut out = ctx.alloc(DType::F32, axes.output_shape())?;
    if let Some(dims) = axes.as_one_run() {
        reduce_f32(*ctx.kernels, op, &data, dims, out.as_mut_slice()?);
        return Ok(out);
    }
    let mut gathered = ctx.alloc(DType::F32, x.shape().to_vec())?;
    let order = axes.kept_first();
    transpose(
        *ctx.kernels,
        4,
        bytemuck::cast_slice(&data),
        x.shape(),
        &order,
        gathered.bytes_mut(),
    );
    let dims = [out.len(), axes.count(), 1];
    reduce_f32(*ctx.kernels, op, gathered.as_slice()?, dims, out.as_mut_slice()?);
    Ok(out)
}

/// Integer sums and products wrap, as in numpy.
fn whole<T: Number>(ctx: &EvalCtx, x: &Tensor, axes: &Reduced, op: Reduce) -> Result<Tensor> {
    let (start, step): (T, fn(T, T) -> T) = match op {
        Reduce::Prod => (T::ONE, T::mul),
        Reduce::Max => (T::LOWEST, T::larger),
        Reduce::Min => (T::HIGHEST, T::smaller),
        _ => (T::ZERO, T::add),
    };
    let values = x.cow::<T>()?;
    ctx.output(axes.output_shape(), |out| {
        out.fill(start);
        fold(x.shape(), axes, &values, out, step);
        Ok(())
    })
}

fn totals(x: &Tensor, axes: &Reduced, wide: &Wide) -> Result<Vec<f64>> {
    let values = x.to_f64()?;
    let mut totals = Tensor::zeros(DType::F64, axes.output_shape())?.to_vec::<f64>()?;
    totals.fill(wide.start);
    fold(x.shape(), axes, &values, &mut totals, wide.step);
    Ok(totals.into_iter().map(|t| (wide.finish)(t, axes.count())).collect())
}

/// Folds every element into its output, in the order of the input.
fn fold<T: Copy>(
    shape: &[usize],
    axes: &Reduced,
    values: &[T],
    out: &mut [T],
    step: impl Fn(T, T) -> T,
) {
    if values.is_empty() {
        return;
    }
    for_each_row([&axes.kept], shape, |start, [offset], [stride], len| {
        for i in 0..len {
            let total = &mut out[offset + i * stride];
            *total = step(*total, values[start + i]);
        }
    });
}

/// Integer results truncate, as integer arithmetic would.
fn narrow(dtype: DType, shape: Vec<usize>, totals: &[f64]) -> Result<Tensor> {
    if dtype.is_int() {
        let whole: Vec<f64> = totals.iter().map(|t| t.trunc()).collect();
        return Tensor::from_f64(dtype, shape, &whole);
    }
    if dtype == DType::Bool {
        let holds: Vec<f64> = totals.iter().map(|&t| (t > 0.0) as u8 as f64).collect();
        return Tensor::from_f64(dtype, shape, &holds);
    }
    Tensor::from_f64(dtype, shape, totals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Arena;
    use fewbit_core::{Attr, Node};
    use fewbit_kernels::{Ctx, Isa, Pool};

    fn reduced(def: &OpDef, x: Tensor) -> Vec<i64> {
        let (pool, arena) = (Pool::single(), Arena::new());
        let node = Node::default().with("axes", Attr::Ints(vec![1]));
        let kernels = Ctx { isa: Isa::scalar(), pool: &pool };
        let mut ctx = EvalCtx {
            node: &node,
            opset: 11,
            kernels: &kernels,
            arena: &arena,
            subgraphs: None,
            inputs: vec![Some(x)],
        };
        (def.eval)(&mut ctx).unwrap()[0].to_i64().unwrap()
    }

    #[test]
    fn large_integers_stay_exact_and_wrap() {
        let large = (1i64 << 60) + 1;
        let x = Tensor::from_slice(vec![2, 2], &[large, 2, i64::MAX, 1]).unwrap();
        assert_eq!(reduced(&SUM, x.clone()), [large + 2, i64::MIN]);
        assert_eq!(reduced(&MAX, x), [large, i64::MAX]);
        let bytes = Tensor::from_slice(vec![1, 2], &[16u8, 17]).unwrap();
        assert_eq!(reduced(&PROD, bytes), [16]);
    }
}
