//! `NegativeLogLikelihoodLoss` and `SoftmaxCrossEntropyLoss`.

use super::half::from_f32;
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use fewbit_core::{Dim, Error, Result, Tensor, ValueType};
use fewbit_kernels::math;

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("NegativeLogLikelihoodLoss", infer, eval_likelihood).since(12),
    OpDef::new("SoftmaxCrossEntropyLoss", infer, eval_cross_entropy).since(12),
];

/// `[samples, classes, positions]`: all dimensions after the second count as one.
#[derive(Clone, Copy)]
struct Classes {
    samples: usize,
    classes: usize,
    positions: usize,
}

impl Classes {
    fn of(input: &Tensor, targets: &Tensor) -> Result<Classes> {
        let (shape, target) = (input.shape(), targets.shape());
        let fits = shape.len() >= 2
            && target.first() == shape.first()
            && target.get(1..) == shape.get(2..);
        if !fits {
            return Err(Error::bad_input(format!(
                "targets of shape {target:?} for scores of shape {shape:?}; \
                 they must be [N, C, ...] and [N, ...]"
            )));
        }
        let positions = shape[2..].iter().product();
        Ok(Classes { samples: shape[0], classes: shape[1], positions })
    }

    fn at(self, place: usize, class: usize) -> usize {
        let (sample, position) = (place / self.positions, place % self.positions);
        (sample * self.classes + class) * self.positions + position
    }
}

fn eval_likelihood(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let classes = Classes::of(ctx.input(0)?, ctx.input(1)?)?;
    let scores = ctx.input(0)?.to_f32()?;
    Ok(vec![loss(ctx, classes, &scores)?])
}

fn eval_cross_entropy(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let input = ctx.input(0)?;
    let classes = Classes::of(input, ctx.input(1)?)?;
    let mut scores = input.to_f32()?;
    log_softmax(&mut scores, classes);
    let loss = loss(ctx, classes, &scores)?;
    Ok(vec![loss, from_f32(input.dtype(), input.shape().to_vec(), &scores)?])
}

fn log_softmax(scores: &mut [f32], classes: Classes) {
    if scores.is_empty() {
        return;
    }
    for place in 0..classes.samples * classes.positions {
        let line = || (0..classes.classes).map(|class| classes.at(place, class));
        let max = line().fold(f32::NEG_INFINITY, |max, at| math::max(max, scores[at]));
        let sum = line().fold(0.0, |sum, at| sum + math::exp(scores[at] - max));
        let shift = max + math::log(sum);
        line().for_each(|at| scores[at] -= shift);
    }
}

fn loss(ctx: &EvalCtx, classes: Classes, scores: &[f32]) -> Result<Tensor> {
    let (dtype, targets) = (ctx.input(0)?.dtype(), ctx.input(1)?);
    let weights = ctx.opt(2).map(Tensor::to_f32).transpose()?;
    if weights.as_ref().is_some_and(|w| w.len() != classes.classes) {
        return Err(Error::bad_input(format!(
            "weights are needed for {} classes",
            classes.classes
        )));
    }
    let ignored = ctx.node.int("ignore_index")?;
    let (mut losses, mut total) = (Vec::with_capacity(targets.len()), 0.0);
    for (place, target) in targets.to_i64()?.into_iter().enumerate() {
        if Some(target) == ignored {
            losses.push(0.0);
            continue;
        }
        let class = usize::try_from(target).ok().filter(|&class| class < classes.classes);
        let class = class.ok_or_else(|| {
            Error::bad_input(format!("target {target} of {} classes", classes.classes))
        })?;
        let weight = weights.as_ref().map_or(1.0, |w| w[class]);
        total += f64::from(weight);
        losses.push(-scores[classes.at(place, class)] * weight);
    }
    let sum: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
    match ctx.string("reduction", "mean")? {
        "none" => from_f32(dtype, targets.shape().to_vec(), &losses),
        "sum" => from_f32(dtype, Vec::new(), &[sum as f32]),
        "mean" => from_f32(dtype, Vec::new(), &[(sum / total) as f32]),
        other => Err(Error::bad_input(format!("reduction `{other}`; allowed: none, sum, mean"))),
    }
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = ctx.dtype(0);
    let shape = match ctx.node.string("reduction")?.unwrap_or("mean") {
        "none" => ctx.shape(1).map(<[Dim]>::to_vec),
        _ => Some(Vec::new()),
    };
    Ok(vec![typed(dtype, shape), typed(dtype, ctx.shape(0).map(<[Dim]>::to_vec))])
}
