//! `CumSum` and `CumProd`: running sums and products along an axis.

use super::half::through_f32;
use super::number::{Number, for_number};
use crate::def::OpDef;
use crate::eval::{EvalCtx, axis_index};
use crate::infer::same_as_input;
use crate::ops::params::scalar_int;
use fewbit_core::{Result, Tensor};

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("CumSum", same_as_input, eval_sum).since(11),
    OpDef::new("CumProd", same_as_input, eval_product).since(26),
];

/// Where the elements of one running total lie, and which way it runs.
struct Lines {
    dim: usize,
    inner: usize,
    exclusive: bool,
    reverse: bool,
}

fn eval_sum(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(outputs) = through_f32(ctx, eval_sum)? {
        return Ok(outputs);
    }
    let lines = Lines::of(ctx)?;
    let mut values = ctx.take(0)?;
    for_number!(values.dtype(), T => {
        values.as_mut_slice::<T>().map(|v| run(v, &lines, T::ZERO, T::add))
    })?;
    Ok(vec![values])
}

fn eval_product(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    if let Some(outputs) = through_f32(ctx, eval_product)? {
        return Ok(outputs);
    }
    let lines = Lines::of(ctx)?;
    let mut values = ctx.take(0)?;
    for_number!(values.dtype(), T => {
        values.as_mut_slice::<T>().map(|v| run(v, &lines, T::ONE, T::mul))
    })?;
    Ok(vec![values])
}

impl Lines {
    fn of(ctx: &EvalCtx) -> Result<Lines> {
        let shape = ctx.input(0)?.shape();
        let axis = axis_index(scalar_int(ctx.input(1)?)?, shape.len())?;
        Ok(Lines {
            dim: shape[axis],
            inner: shape[axis + 1..].iter().product(),
            exclusive: ctx.int("exclusive", 0)? != 0,
            reverse: ctx.int("reverse", 0)? != 0,
        })
    }
}

fn run<T: Copy>(values: &mut [T], lines: &Lines, start: T, f: impl Fn(T, T) -> T) {
    if values.is_empty() {
        return;
    }
    let step = |total: &mut T, value: &mut T| {
        let next = f(*total, *value);
        *value = if lines.exclusive { *total } else { next };
        *total = next;
    };
    let mut totals = vec![start; lines.inner];
    for block in values.chunks_exact_mut(lines.dim * lines.inner) {
        if lines.inner == 1 {
            let mut total = start;
            match lines.reverse {
                true => block.iter_mut().rev().for_each(|value| step(&mut total, value)),
                false => block.iter_mut().for_each(|value| step(&mut total, value)),
            }
            continue;
        }
        // Totals of a row run side by side, so that memory is walked in its order.
        totals.fill(start);
        for row in 0..lines.dim {
            let row = if lines.reverse { lines.dim - 1 - row } else { row };
            let row = &mut block[row * lines.inner..][..lines.inner];
            totals.iter_mut().zip(row).for_each(|(total, value)| step(total, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_run_both_ways() {
        let mut lines = Lines { dim: 3, inner: 2, exclusive: false, reverse: false };
        let mut values = [1, 10, 2, 20, 3, 30];
        run(&mut values, &lines, 0, i64::add);
        assert_eq!(values, [1, 10, 3, 30, 6, 60]);
        (lines.exclusive, lines.reverse) = (true, true);
        run(&mut values, &lines, 0, i64::add);
        assert_eq!(values, [9, 90, 6, 60, 0, 0]);
    }

    #[test]
    fn totals_are_those_of_the_definition() {
        for (dim, inner) in [(1, 1), (7, 1), (1, 5), (7, 5)] {
            for (exclusive, reverse) in [(false, false), (false, true), (true, false), (true, true)]
            {
                let lines = Lines { dim, inner, exclusive, reverse };
                let values: Vec<i64> = (0..3 * dim * inner).map(|i| (i * i % 11) as i64).collect();
                let want = |i: usize| -> i64 {
                    let (line, row) = (i / inner / dim * dim * inner + i % inner, i / inner % dim);
                    let rows = if reverse {
                        row + usize::from(exclusive)..dim
                    } else {
                        0..row + usize::from(!exclusive)
                    };
                    rows.map(|row| values[line + row * inner]).sum()
                };
                let want: Vec<i64> = (0..values.len()).map(want).collect();
                let mut got = values.clone();
                run(&mut got, &lines, 0, i64::add);
                assert_eq!(got, want, "{dim} {inner} {exclusive} {reverse}");
            }
        }
    }
}
