//! `STFT`: Fourier transforms of overlapping frames.

use super::fourier::{Complex, Plan};
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::params::{scalar_int, size};
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};

pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, window) = (ctx.input(0)?, ctx.opt(2));
    let (batch, len, parts) = match *input.shape() {
        [batch, len, parts] => (batch, len, parts),
        // Exporters leave the axis of a real signal's only part out, and other runtimes allow it.
        [batch, len] => (batch, len, 1),
        _ => return Err(Error::bad_input(format!("a signal of shape {:?}", input.shape()))),
    };
    let step = size(scalar_int(ctx.input(1)?)?, "frame_step")?;
    let n = match (ctx.opt(3), window) {
        (Some(length), _) => size(scalar_int(length)?, "frame_length")?,
        (None, Some(window)) => window.len(),
        (None, None) => len,
    };
    let onesided = ctx.int("onesided", 1)? != 0;
    let weights = window.map(Tensor::to_f64).transpose()?;
    let fits =
        step > 0 && (1..=len).contains(&n) && matches!((parts, onesided), (1, _) | (2, false));
    if !fits || weights.as_ref().is_some_and(|w| w.len() > n) {
        return Err(Error::bad_input(format!(
            "frames of {n} samples, {step} apart, of a signal of shape {:?}",
            input.shape()
        ))
        .hint(
            "a one-sided transform needs a real signal; a window may not be longer than a frame",
        ));
    }
    let frames = 1 + (len - n) / step;
    let bins = if onesided { n / 2 + 1 } else { n };
    let mut out = ctx.alloc(DType::F64, vec![batch, frames, bins, 2])?;
    let (values, plan) = (input.to_f64()?, Plan::new(n, false));
    for (row, y) in out.as_mut_slice::<f64>()?.chunks_exact_mut(bins * 2).enumerate() {
        let start = row / frames * len + row % frames * step;
        let sample = |i: usize| -> Complex {
            let weight = weights.as_ref().map_or(1.0, |w| w.get(i).copied().unwrap_or(0.0));
            let at = (start + i) * parts;
            (values[at] * weight, if parts == 2 { values[at + 1] * weight } else { 0.0 })
        };
        let frame: Vec<Complex> = (0..n).map(sample).collect();
        let spectrum = plan.run(&frame);
        for (y, &(re, im)) in y.chunks_exact_mut(2).zip(&spectrum) {
            y.copy_from_slice(&[re, im]);
        }
    }
    Ok(vec![out.cast(input.dtype())?])
}

pub(super) fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let known = |index: usize| ctx.constant(index).map(scalar_int).transpose();
    let (step, length) = (known(1)?, known(3)?);
    let window = ctx.shape(2).and_then(|dims| dims.first()).and_then(Dim::known);
    let signal = ctx.shape(0).and_then(|dims| dims.get(1)).and_then(Dim::known);
    let n = match (length, ctx.has(3), ctx.has(2)) {
        (Some(length), ..) => Some(size(length, "frame_length")?),
        (None, true, _) => None,
        (None, false, true) => window,
        (None, false, false) => signal,
    };
    let dim = |value: Option<usize>| value.map_or(Dim::Unknown, Dim::Known);
    let frames = match (signal, n, step) {
        (Some(len), Some(n), Some(step)) if n <= len && step > 0 => {
            Some(1 + (len - n) / step as usize)
        }
        _ => None,
    };
    let onesided = ctx.node.int("onesided")?.unwrap_or(1) != 0;
    let bins = n.map(|n| if onesided { n / 2 + 1 } else { n });
    let batch = ctx.shape(0).and_then(|dims| dims.first()).cloned().unwrap_or(Dim::Unknown);
    let shape = vec![batch, dim(frames), dim(bins), Dim::Known(2)];
    Ok(vec![typed(ctx.dtype(0), Some(shape))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Arena;
    use fewbit_core::Node;
    use fewbit_kernels::{Ctx, Isa, Pool};

    fn transformed(signal: Tensor) -> Result<Vec<Tensor>> {
        let (pool, arena, node) = (Pool::single(), Arena::new(), Node::default());
        let [step, length] = [3i64, 8].map(|number| Tensor::vector(&[number]));
        let mut ctx = EvalCtx {
            node: &node,
            opset: 17,
            kernels: &Ctx { isa: Isa::scalar(), pool: &pool },
            arena: &arena,
            subgraphs: None,
            inputs: vec![Some(signal), Some(step), None, Some(length)],
        };
        eval(&mut ctx)
    }

    #[test]
    fn a_real_signal_may_lack_the_axis_of_its_part() {
        let values: Vec<f32> = (0..40).map(|i| (i * i % 13) as f32).collect();
        let [flat, whole] = [vec![2, 20], vec![2, 20, 1]]
            .map(|shape| transformed(Tensor::from_slice(shape, &values).unwrap()).unwrap());
        assert_eq!(flat[0].shape(), [2, 5, 5, 2]);
        assert_eq!(flat, whole);
        assert!(transformed(Tensor::vector(&values)).is_err());
    }
}
