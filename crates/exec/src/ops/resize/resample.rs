//! Linear and cubic interpolation, one axis after the other.

use super::Mode;
use super::coordinates::Transform;
use super::plan::Plan;
use super::taps::{Filter, Taps};
use crate::eval::EvalCtx;
use fewbit_core::{DType, Element, Result, Tensor};
use std::ops::{AddAssign, Mul};

pub(super) fn resize(
    ctx: &EvalCtx,
    input: &Tensor,
    plan: &Plan,
    transform: Transform,
    mode: Mode,
) -> Result<Tensor> {
    let filter = Filter::of(ctx.node, mode)?;
    if input.dtype() == DType::F64 {
        return resampled::<f64>(ctx, input.clone(), plan, transform, filter);
    }
    let numbers = input.cast(DType::F32)?;
    resampled::<f32>(ctx, numbers, plan, transform, filter)?.cast(input.dtype())
}

/// A float that interpolation is computed in.
trait Real: Element + Send + Sync + Default + AddAssign + Mul<Output = Self> {
    fn of(value: f64) -> Self;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
}

fn resampled<T: Real>(
    ctx: &EvalCtx,
    mut data: Tensor,
    plan: &Plan,
    transform: Transform,
    filter: Filter,
) -> Result<Tensor> {
    let fill = T::of(ctx.float("extrapolation_value", 0.0)? as f64);
    for (axis, step) in plan.axes.iter().enumerate() {
        if step.is_identity(transform) {
            continue;
        }
        let mut shape = data.shape().to_vec();
        shape[axis] = step.output;
        // Refuses impossible sizes before the taps are listed.
        let mut out = ctx.alloc(T::DTYPE, shape)?;
        if !out.is_empty() {
            let inner = data.shape()[axis + 1..].iter().product();
            let line = Line { taps: &filter.taps(step, transform), input: step.input, inner, fill };
            line.run(ctx, &data.cow::<T>()?, out.as_mut_slice::<T>()?);
        }
        ctx.arena.recycle(std::mem::replace(&mut data, out));
    }
    Ok(data)
}

/// One axis: its taps, and how far neighbours along it lie apart.
struct Line<'t, T> {
    taps: &'t Taps,
    input: usize,
    inner: usize,
    fill: T,
}

impl<T: Real> Line<'_, T> {
    fn run(&self, ctx: &EvalCtx, input: &[T], out: &mut [T]) {
        let plane = self.taps.outside.len() * self.inner;
        let weights: Vec<T> = self.taps.weight.iter().map(|&w| T::of(w)).collect();
        ctx.kernels.pool.for_each_chunk(out, plane, |outer, out| {
            let input = &input[outer * self.input * self.inner..][..self.input * self.inner];
            match self.taps.count {
                2 => self.plane::<2>(input, &weights, out),
                4 => self.plane::<4>(input, &weights, out),
                _ => self.any_plane(input, &weights, out),
            }
        });
    }

    /// All elements of the axis, `N` taps for each, for all positions of the inner axes.
    fn plane<const N: usize>(&self, input: &[T], weights: &[T], out: &mut [T]) {
        let taps = self.taps.index.as_chunks::<N>().0.iter().zip(weights.as_chunks::<N>().0);
        let outputs = out.chunks_exact_mut(self.inner).zip(&self.taps.outside);
        for ((out, &outside), (index, weights)) in outputs.zip(taps) {
            match out {
                _ if outside => out.fill(self.fill),
                // The last axis: a loop over one number would cost more than the number.
                [out] => *out = weighed(index.map(|index| input[index]), weights),
                _ => {
                    let rows = index.map(|index| &input[index * self.inner..][..self.inner]);
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = weighed(rows.map(|row| row[i]), weights);
                    }
                }
            }
        }
    }

    /// As [`Line::plane`], for any number of taps.
    fn any_plane(&self, input: &[T], weights: &[T], out: &mut [T]) {
        for (x, out) in out.chunks_exact_mut(self.inner).enumerate() {
            if self.taps.outside[x] {
                out.fill(self.fill);
                continue;
            }
            out.fill(T::default());
            let taps = x * self.taps.count..(x + 1) * self.taps.count;
            for (&index, &weight) in self.taps.index[taps.clone()].iter().zip(&weights[taps]) {
                let row = &input[index * self.inner..][..self.inner];
                out.iter_mut().zip(row).for_each(|(slot, &v)| *slot += v * weight);
            }
        }
    }
}

/// The sum of weighed values, in their order.
#[inline(always)]
fn weighed<T: Real, const N: usize>(values: [T; N], weights: &[T; N]) -> T {
    let mut sum = T::default();
    for (value, &weight) in values.into_iter().zip(weights) {
        sum += value * weight;
    }
    sum
}
