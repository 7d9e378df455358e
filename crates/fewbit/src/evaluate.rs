//! Scoring one model on one data set.

use crate::compare::{Side, pair_up};
use crate::data::Data;
use fewbit_core::{Error, Model, Result};
use fewbit_exec::{Mode, Session, SessionOptions};
use fewbit_quant::metric::{Comparison, Likeness};
use fewbit_quant::{EvaluateOptions, Progress, Samples, Task, bind};
use serde::Serialize;
use std::collections::BTreeMap;

/// Scores of one model.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// What was scored: `classify`, `regress` or `none`.
    pub task: String,
    /// `float`, `simulate` or `integer`.
    pub mode: String,
    /// Number of samples.
    pub samples: usize,
    /// Values by name. Classification: `top1`, `top5` (shares). Regression: `mse` against the
    /// true values where the data has them. Regression and no task: `cosine` and
    /// `agreement` with the same model computed in float.
    pub metrics: BTreeMap<String, f64>,
    /// Samples for which outputs hold NaN or infinite numbers.
    pub not_finite: usize,
}

/// Scores a model on a data set, running `threads` samples side by side (0: all cores).
///
/// # Errors
/// When a sample does not fit the model, or the model cannot be run.
pub fn evaluate(
    model: &Model,
    data: &Data,
    mode: Mode,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Evaluation> {
    let mut metrics = BTreeMap::new();
    let not_finite = if data.task() == Task::Classify {
        let options = EvaluateOptions { mode, threads };
        let scores = fewbit_quant::evaluate(model, data, options, progress)?;
        metrics.insert("top1".to_string(), scores.top1());
        metrics.insert("top5".to_string(), scores.top5());
        scores.not_finite()
    } else {
        let (float, own) = (Side { model, mode: Mode::Float }, Side { model, mode });
        let pairs = pair_up(float, own, data, threads, progress)?;
        let likeness = Comparison::score(Task::Regress, &pairs).quantized;
        metrics.insert("cosine".to_string(), likeness);
        let agreement = Comparison::score(Task::None, &pairs);
        metrics.insert("agreement".to_string(), agreement.quantized);
        agreement.quantized_not_finite
    };
    if let Some(mse) = error_against_truth(model, data, mode, threads, progress)? {
        metrics.insert("mse".to_string(), mse);
    }
    Ok(Evaluation {
        task: data.task().name().to_string(),
        mode: mode_name(mode).to_string(),
        samples: data.len(),
        metrics,
        not_finite,
    })
}

/// Word for a mode in reports.
pub(crate) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Float => "float",
        Mode::Simulate => "simulate",
        Mode::Integer => "integer",
    }
}

/// Mean squared error of the first output against the data's true values, if it has any.
fn error_against_truth(
    model: &Model,
    data: &Data,
    mode: Mode,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Option<f64>> {
    if data.task() != Task::Regress {
        return Ok(None);
    }
    let session = Session::new(model, &SessionOptions::new(mode).threads(threads))?;
    let mut likeness = Likeness::default();
    progress.start("score", data.len());
    for index in 0..data.len() {
        let Some(target) = data.dataset().sample(index)?.target else {
            return Ok(None);
        };
        let sample = data.sample(index)?;
        let outputs = session.run(&bind(&sample, session.inputs())?)?;
        let Some((name, output)) = outputs.first() else {
            return Err(Error::bad_input("the model has no output"));
        };
        if output.len() != target.len() {
            return Err(Error::bad_input(format!(
                "output `{name}` has {} values, the data has {} for each sample",
                output.len(),
                target.len()
            )));
        }
        likeness.add(&target.to_f32()?, &output.to_f32()?);
        progress.step();
    }
    progress.finish();
    Ok(Some(likeness.mse()))
}
