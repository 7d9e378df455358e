//! Metrics: what a prediction is worth, and what changed between two models.

use crate::samples::Task;
use fewbit_core::{Error, Result, Tensor};
use serde::Serialize;

/// What one sample's output says, reduced to what the metrics need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Index of the largest score; the first among equals. None where a score is NaN.
    pub prediction: Option<usize>,
    /// Whether the label has the largest score.
    pub top1: bool,
    /// Whether the label is among the five largest scores.
    pub top5: bool,
    /// Whether all outputs are finite.
    pub finite: bool,
}

impl Judgement {
    /// Whether both predict the same; what predicts nothing agrees with nothing.
    pub fn agrees(&self, other: &Judgement) -> bool {
        self.prediction.is_some() && self.prediction == other.prediction
    }
}

/// Judges a model's outputs; the first one holds the class scores.
///
/// # Errors
/// When there is no output, or as [`judge`].
pub fn judge_outputs(outputs: &[(String, Tensor)], label: Option<i64>) -> Result<Judgement> {
    let first = outputs.first().ok_or_else(|| Error::bad_input("the model has no output"))?;
    let mut judgement = judge(&first.1, label)?;
    for (_, tensor) in outputs.iter().skip(1).filter(|(_, t)| t.dtype().is_float()) {
        judgement.finite &= all_finite(&tensor.to_f32()?);
    }
    Ok(judgement)
}

/// Judges class scores; a score counts as larger than an equal one behind it. Where one is NaN
/// there is no largest, and no label is right.
///
/// # Errors
/// When there are no scores, or the label is no class.
pub fn judge(scores: &Tensor, label: Option<i64>) -> Result<Judgement> {
    let values = scores.to_f32()?;
    if values.is_empty() {
        return Err(Error::bad_input("the model's output is empty"));
    }
    let (prediction, finite) = (argmax(&values), all_finite(&values));
    let Some(label) = label else {
        return Ok(Judgement { prediction, top1: false, top5: false, finite });
    };
    let class = usize::try_from(label).ok().filter(|&c| c < values.len()).ok_or_else(|| {
        Error::bad_input(format!(
            "label {label} is outside the {} classes of the model",
            values.len()
        ))
        .code("FB-3401")
    })?;
    let own = values[class];
    let ahead = values.iter().enumerate().filter(|&(i, &v)| v > own || (v == own && i < class));
    let rank = prediction.map(|_| ahead.count());
    let within = |places: usize| rank.is_some_and(|rank| rank < places);
    Ok(Judgement { prediction, top1: within(1), top5: within(5), finite })
}

/// Index of the first of the largest values; none where one is NaN.
fn argmax(values: &[f32]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (i, &v) in values.iter().enumerate() {
        if v.is_nan() {
            return None;
        }
        best = if best.is_none_or(|b| v > values[b]) { Some(i) } else { best };
    }
    best
}

fn all_finite(values: &[f32]) -> bool {
    values.iter().all(|v| v.is_finite())
}

/// Sums for error and likeness of two outputs; they add up over samples. What is computed from
/// them is NaN where a value was not finite on one side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Likeness {
    dot: f64,
    a: f64,
    b: f64,
    error: f64,
    count: u64,
}

impl Likeness {
    /// Compares two tensors of one shape, value by value. Equal infinities, as of masks, count as
    /// zeros; any other value that is not finite makes both incomparable.
    pub fn add(&mut self, a: &[f32], b: &[f32]) {
        for (&a, &b) in a.iter().zip(b) {
            let (a, b) = match (a.is_finite() && b.is_finite(), a == b) {
                (true, _) => (a as f64, b as f64),
                (false, true) => (0.0, 0.0),
                (false, false) => (f64::NAN, f64::NAN),
            };
            self.dot += a * b;
            self.a += a * a;
            self.b += b * b;
            self.error += (a - b) * (a - b);
        }
        self.count += a.len().min(b.len()) as u64;
    }

    /// Adds the sums of another part.
    pub fn merge(&mut self, other: &Likeness) {
        self.dot += other.dot;
        self.a += other.a;
        self.b += other.b;
        self.error += other.error;
        self.count += other.count;
    }

    /// Mean squared error.
    pub fn mse(&self) -> f64 {
        self.error / self.count.max(1) as f64
    }

    /// Cosine of the angle between both; 1 when both are zero.
    pub fn cosine(&self) -> f64 {
        let norm = (self.a * self.b).sqrt();
        if norm == 0.0 { (self.a == self.b) as u8 as f64 } else { self.dot / norm }
    }

    /// Signal-to-quantization-noise ratio of the first in decibels; `inf` when equal.
    pub fn sqnr_db(&self) -> f64 {
        if self.error == 0.0 { f64::INFINITY } else { 10.0 * (self.a / self.error).log10() }
    }
}

/// The outcome of comparing a quantized model with its float original on one data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Metric that decides: `top1`, `cosine` or `agreement`.
    pub name: String,
    /// Its value for the float model.
    pub float: f64,
    /// Its value for the quantized model.
    pub quantized: f64,
    /// `float - quantized`, in percentage points; negative when the quantized model is better.
    pub drop_points: f64,
    /// Half the width of the 95% confidence interval of the drop, in points (paired samples).
    pub interval_points: f64,
    /// Number of samples.
    pub samples: usize,
    /// Predictions that differ between both models.
    pub flips: usize,
    /// Samples for which the float model's outputs were not all finite.
    pub float_not_finite: usize,
    /// Samples for which the quantized model's outputs were not all finite.
    pub quantized_not_finite: usize,
    /// Top-5 of both models, for classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top5: Option<(f64, f64)>,
    /// Mean squared error of the outputs, for regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mse: Option<f64>,
}

/// One sample seen by both models.
#[derive(Clone, Copy, Debug)]
pub struct Paired {
    /// The float model's judgement.
    pub float: Judgement,
    /// The quantized model's judgement.
    pub quantized: Judgement,
    /// Likeness of the outputs, where outputs are compared.
    pub likeness: Likeness,
}

impl Comparison {
    /// Scores paired samples for a task.
    pub fn score(task: Task, pairs: &[Paired]) -> Self {
        let count = pairs.len().max(1) as f64;
        let number = |f: fn(&Paired) -> bool| pairs.iter().filter(|p| f(p)).count();
        let share = |f: fn(&Paired) -> bool| number(f) as f64 / count;
        // Of a float model that predicts nothing, nothing can be lost.
        let measurable = pairs.is_empty() || number(|p| p.float.prediction.is_some()) > 0;
        let flips = number(|p| !p.float.agrees(&p.quantized));
        let mut total = Likeness::default();
        pairs.iter().for_each(|p| total.merge(&p.likeness));
        let losses: Vec<f64> = pairs.iter().map(|p| loss(task, p)).collect();
        let (name, float, quantized) = match task {
            Task::Classify => ("top1", share(|p| p.float.top1), share(|p| p.quantized.top1)),
            Task::Regress => ("cosine", 1.0, 1.0 - mean(&losses)),
            Task::None => ("agreement", 1.0, 1.0 - flips as f64 / count),
        };
        Comparison {
            name: name.to_string(),
            float,
            quantized,
            drop_points: if measurable { 100.0 * (float - quantized) } else { f64::NAN },
            interval_points: 100.0 * half_interval(&losses),
            samples: pairs.len(),
            flips,
            float_not_finite: number(|p| !p.float.finite),
            quantized_not_finite: number(|p| !p.quantized.finite),
            top5: (task == Task::Classify)
                .then(|| (share(|p| p.float.top5), share(|p| p.quantized.top5))),
            mse: (task == Task::Regress).then(|| total.mse()),
        }
    }

    /// Whether the drop is within a bound; one that cannot be computed is within none.
    pub fn within(&self, bound: f64) -> bool {
        self.drop_points <= bound
    }

    /// Warnings about outputs that are not finite, with what the two models are called.
    pub fn not_finite(&self, float: &str, quantized: &str) -> Vec<String> {
        let sides = [(float, self.float_not_finite), (quantized, self.quantized_not_finite)];
        let found = sides.into_iter().filter(|(_, count)| *count > 0);
        found.map(|(model, count)| not_finite(model, count, self.samples)).collect()
    }
}

/// A warning about outputs that are not finite.
pub fn not_finite(model: &str, count: usize, samples: usize) -> String {
    format!("outputs of {model} hold NaN or infinite numbers on {count} of {samples} samples")
}

/// What quantization lost on one sample, 0..1 (negative: gained).
fn loss(task: Task, pair: &Paired) -> f64 {
    match task {
        Task::Classify => pair.float.top1 as i32 as f64 - pair.quantized.top1 as i32 as f64,
        Task::Regress => 1.0 - pair.likeness.cosine(),
        Task::None => !pair.float.agrees(&pair.quantized) as i32 as f64,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Half the 95% interval of the mean: 1.96 standard errors.
fn half_interval(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return f64::INFINITY;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    let n = values.len() as f64;
    1.96 * (squares / (n - 1.0) / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_first_class() {
        let scores = Tensor::vector(&[0.5f32, 2.0, 2.0, f32::NEG_INFINITY, 1.0, 0.1, 0.0]);
        let at = |label| judge(&scores, Some(label)).unwrap();
        let first = Judgement { prediction: Some(1), top1: true, top5: true, finite: false };
        assert_eq!(at(1), first);
        assert_eq!(at(2), Judgement { top1: false, ..first });
        assert!(!at(6).top5 && !at(3).top5);
        assert!(judge(&scores, Some(7)).is_err());
        assert!(judge(&scores, Some(-1)).is_err());
    }

    #[test]
    fn nothing_is_right_where_a_score_is_nan() {
        let wrong = Judgement { prediction: None, top1: false, top5: false, finite: false };
        for scores in [[f32::NAN; 3], [3.0, f32::NAN, 1.0], [f32::NAN, 3.0, 1.0]] {
            for label in 0..3 {
                assert_eq!(judge(&Tensor::vector(&scores), Some(label)).unwrap(), wrong);
            }
        }
        assert!(!wrong.agrees(&wrong));
    }

    #[test]
    fn no_bound_holds_where_outputs_are_not_finite() {
        let bad = Judgement { prediction: None, top1: false, top5: false, finite: false };
        let mut likeness = Likeness::default();
        likeness.add(&[1.0, f32::NAN], &[1.0, f32::NAN]);
        let pairs = [Paired { float: bad, quantized: bad, likeness }; 3];
        let scored = |task| Comparison::score(task, &pairs);
        assert!(!scored(Task::Regress).within(100.0));
        assert!(!scored(Task::None).within(99.0));
        let scored = scored(Task::Classify);
        assert!(!scored.within(100.0));
        assert_eq!((scored.float_not_finite, scored.quantized_not_finite, scored.flips), (3, 3, 3));
        assert_eq!(scored.not_finite("A", "B").len(), 2);
    }

    #[test]
    fn the_drop_is_paired() {
        let right = Judgement { prediction: Some(0), top1: true, top5: true, finite: true };
        let wrong = Judgement { prediction: Some(1), top1: false, ..right };
        let pair = |float, quantized| Paired { float, quantized, likeness: Likeness::default() };
        let mut pairs = vec![pair(right, right); 98];
        pairs.extend([pair(right, wrong), pair(wrong, right)]);
        let c = Comparison::score(Task::Classify, &pairs);
        assert_eq!((c.drop_points, c.flips, c.samples), (0.0, 2, 100));
        assert!(c.interval_points > 2.0 && c.interval_points < 4.0, "{}", c.interval_points);
    }

    #[test]
    fn likeness_of_equal_and_of_different_outputs() {
        let mut same = Likeness::default();
        same.add(&[1.0, 2.0], &[1.0, 2.0]);
        assert_eq!((same.cosine(), same.mse(), same.sqnr_db()), (1.0, 0.0, f64::INFINITY));
        let mut other = Likeness::default();
        other.add(&[1.0, 0.0], &[0.0, 1.0]);
        assert_eq!((other.cosine(), other.mse()), (0.0, 1.0));
    }

    #[test]
    fn masks_are_equal_and_nan_is_like_nothing() {
        let infinite = f32::INFINITY;
        let mut masked = Likeness::default();
        masked.add(&[1.0, -infinite], &[1.0, -infinite]);
        assert_eq!((masked.cosine(), masked.mse(), masked.sqnr_db()), (1.0, 0.0, f64::INFINITY));
        for (a, b) in
            [(1.0, f32::NAN), (f32::NAN, f32::NAN), (1.0, infinite), (-infinite, infinite)]
        {
            let mut likeness = masked;
            likeness.add(&[a], &[b]);
            let all = [likeness.cosine(), likeness.mse(), likeness.sqnr_db()];
            assert!(all.iter().all(|v| v.is_nan()), "{a} {b}: {all:?}");
        }
    }
}
