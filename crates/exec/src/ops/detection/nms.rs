//! `NonMaxSuppression`: the best boxes of each class that do not overlap a better one.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::params::{scalar, scalar_int};
use fewbit_core::{DType, Dim, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("NonMaxSuppression", infer, eval).since(10);

/// A box by its lower and upper corner.
#[derive(Clone, Copy, Debug)]
struct Corners {
    low: [f32; 2],
    high: [f32; 2],
}

impl Corners {
    /// From two opposite corners `[y1, x1, y2, x2]`, in any order.
    fn opposite(b: &[f32]) -> Corners {
        let low = [b[0].min(b[2]), b[1].min(b[3])];
        Corners { low, high: [b[0].max(b[2]), b[1].max(b[3])] }
    }

    /// From `[x, y, width, height]` around a centre.
    fn centred(b: &[f32]) -> Corners {
        let (half_w, half_h) = (b[2] / 2.0, b[3] / 2.0);
        Corners { low: [b[1] - half_h, b[0] - half_w], high: [b[1] + half_h, b[0] + half_w] }
    }

    fn area(&self) -> f32 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// Intersection over union.
    fn overlap(&self, other: &Corners) -> f32 {
        let side =
            |i: usize| (self.high[i].min(other.high[i]) - self.low[i].max(other.low[i])).max(0.0);
        let shared = side(0) * side(1);
        let union = self.area() + other.area() - shared;
        if shared <= 0.0 || union <= 0.0 { 0.0 } else { shared / union }
    }
}

struct Limits {
    count: usize,
    overlap: f32,
    score: Option<f32>,
}

/// The boxes that stay, best first; of equal ones the earlier.
fn keep(boxes: &[Corners], scores: &[f32], limits: &Limits) -> Vec<usize> {
    let good = |&i: &usize| limits.score.is_none_or(|least| scores[i] > least);
    let mut order: Vec<usize> = (0..boxes.len()).filter(good).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        if kept.len() >= limits.count {
            break;
        }
        if kept.iter().all(|&k| boxes[i].overlap(&boxes[k]) <= limits.overlap) {
            kept.push(i);
        }
    }
    kept
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (boxes, scores) = (ctx.input(0)?, ctx.input(1)?);
    let (&[batch, count, 4], &[batches, classes, per_class]) = (boxes.shape(), scores.shape())
    else {
        return Err(mismatch(boxes, scores));
    };
    if batch != batches || count != per_class {
        return Err(mismatch(boxes, scores));
    }
    let limits = Limits {
        count: ctx.opt(2).map_or(Ok(0), scalar_int)?.max(0) as usize,
        overlap: ctx.opt(3).map_or(Ok(0.0), scalar)? as f32,
        score: ctx.opt(4).map(scalar).transpose()?.map(|v| v as f32),
    };
    let corners =
        if ctx.int("center_point_box", 0)? != 0 { Corners::centred } else { Corners::opposite };
    let boxes: Vec<Corners> = boxes.to_f32()?.chunks_exact(4).map(corners).collect();
    let scores = scores.to_f32()?;
    let mut found: Vec<i64> = Vec::new();
    for group in 0..batch * classes {
        let (image, class) = (group / classes, group % classes);
        let boxes = &boxes[image * count..][..count];
        for kept in keep(boxes, &scores[group * count..][..count], &limits) {
            found.extend([image as i64, class as i64, kept as i64]);
        }
    }
    Ok(vec![Tensor::from_slice(vec![found.len() / 3, 3], &found)?])
}

fn mismatch(boxes: &Tensor, scores: &Tensor) -> Error {
    Error::bad_input(format!(
        "boxes {boxes:?} and scores {scores:?}; [N,count,4] and [N,classes,count] are expected"
    ))
}

fn infer(_: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![typed(Some(DType::I64), Some(vec![Dim::Unknown, Dim::Known(3)]))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlapped_box_is_dropped() {
        let boxes = [[0.0, 0.0, 1.0, 1.0], [0.1, 0.0, 1.1, 1.0], [3.0, 3.0, 2.0, 2.0f32]];
        let boxes = boxes.map(|b| Corners::opposite(&b));
        let limits = |count, score| Limits { count, overlap: 0.5, score };
        assert_eq!(keep(&boxes, &[0.5, 0.9, 0.7], &limits(9, None)), [1, 2]);
        assert_eq!(keep(&boxes, &[0.5, 0.9, 0.7], &limits(1, None)), [1]);
        assert_eq!(keep(&boxes, &[0.5, 0.9, 0.7], &limits(9, Some(0.8))), [1]);
        assert_eq!(keep(&boxes, &[0.9, 0.9, f32::NAN], &limits(9, Some(0.1))), [0]);
    }
}
