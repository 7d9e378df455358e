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
            match (self.inner, self.taps.count) {
                (1, 2) => self.line::<2>(input, &weights, out),
                (1, 4) => self.line::<4>(input, &weights, out),
                _ => self.plane(input, &weights, out),
            }
        });
    }

    /// All elements of the axis, for all positions of the inner axes.
    fn plane(&self, input: &[T], weights: &[T], out: &mut [T]) {
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

    /// As [`Line::plane`], of the last axis with `N` taps for each element: a loop over a single
    /// number costs more than the number.
    fn line<const N: usize>(&self, input: &[T], weights: &[T], out: &mut [T]) {
        let (indices, weights) = (self.taps.index.as_chunks::<N>().0, weights.as_chunks::<N>().0);
        let taps = indices.iter().zip(weights).zip(&self.taps.outside);
        for (out, ((index, weights), &outside)) in out.iter_mut().zip(taps) {
            let mut sum = T::default();
            for n in 0..N {
                sum += input[index[n]] * weights[n];
            }
            *out = if outside { self.fill } else { sum };
        }
    }
}
