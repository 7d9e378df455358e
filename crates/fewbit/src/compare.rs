//! Two models on the same samples: how often they agree, what each scores, where they part.

use fewbit_core::{Error, Model, Result, Tensor};
use fewbit_exec::{Mode, Session, SessionOptions};
use fewbit_quant::explain::{LayerLoss, layer_losses};
use fewbit_quant::metric::{Comparison, Likeness, Paired, judge_outputs};
use fewbit_quant::{Progress, Samples, bind, for_all};
use serde::Serialize;

/// How two models are compared.
#[derive(Clone, Copy, Debug)]
pub struct CompareOptions {
    /// How the first model is run.
    pub mode_a: Mode,
    /// How the second model is run.
    pub mode_b: Mode,
    /// Samples in flight at once; 0 takes all cores.
    pub threads: usize,
    /// Also compare the outputs of all layers that both models have.
    pub per_layer: bool,
}

/// What comes out of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Number of samples.
    pub samples: usize,
    /// Share of samples on which both models predict the same.
    pub agreement: f64,
    /// Samples on which they do not.
    pub flips: usize,
    /// Scores of both models.
    pub metrics: Metrics,
    /// Layers in the order of the first model; empty unless asked for.
    pub layers: Vec<LayerLoss>,
}

/// Scores of both models and the likeness of their outputs.
#[derive(Clone, Debug, Serialize)]
pub struct Metrics {
    /// The deciding metric of the task, paired: `top1`, `cosine` or `agreement`. `float` is the
    /// first model, `quantized` the second.
    pub deciding: Comparison,
    /// Cosine between all outputs of both models, seen as one vector.
    pub cosine: f64,
    /// Mean squared difference of the outputs.
    pub mse: f64,
    /// Signal-to-noise ratio of the second model's outputs in decibels; none when equal, and,
    /// with a cosine of NaN, when outputs that are not finite leave nothing to compare.
    pub sqnr_db: Option<f64>,
}

/// Compares two models on a data set.
///
/// # Errors
/// When a sample does not fit one of the models, or their outputs differ in shape.
pub fn compare(
    a: &Model,
    b: &Model,
    samples: &dyn Samples,
    options: CompareOptions,
    progress: &dyn Progress,
) -> Result<Compared> {
    let (first, second) =
        (Side { model: a, mode: options.mode_a }, Side { model: b, mode: options.mode_b });
    let pairs = pair_up(first, second, samples, options.threads, progress)?;
    let deciding = Comparison::score(samples.task(), &pairs);
    let mut total = Likeness::default();
    pairs.iter().for_each(|p| total.merge(&p.likeness));
    let layers = match options.per_layer {
        true => layer_losses(
            (a, options.mode_a),
            (b, options.mode_b),
            samples,
            options.threads,
            progress,
        )?,
        false => Vec::new(),
    };
    Ok(Compared {
        samples: pairs.len(),
        agreement: 1.0 - deciding.flips as f64 / pairs.len().max(1) as f64,
        flips: deciding.flips,
        metrics: Metrics {
            deciding,
            cosine: total.cosine(),
            mse: total.mse(),
            sqnr_db: Some(total.sqnr_db()).filter(|db| db.is_finite()),
        },
        layers,
    })
}

/// A model and how it is run.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub model: &'a Model,
    pub mode: Mode,
}

impl Side<'_> {
    /// A session that runs one sample on one thread; samples run side by side instead.
    fn session(self) -> Result<Session> {
        Session::new(self.model, &SessionOptions::new(self.mode).threads(1))
    }
}

/// Runs every sample through both models.
pub(crate) fn pair_up(
    a: Side,
    b: Side,
    samples: &dyn Samples,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<Paired>> {
    let (a, b) = (a.session()?, b.session()?);
    for_all(samples, threads, progress, "compare", |sample| {
        let left = a.run(&bind(sample, a.inputs())?)?;
        let right = b.run(&bind(sample, b.inputs())?)?;
        Ok(Paired {
            float: judge_outputs(&left, sample.label)?,
            quantized: judge_outputs(&right, sample.label)?,
            likeness: likeness(&left, &right)?,
        })
    })
}

fn likeness(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> Result<Likeness> {
    let mut likeness = Likeness::default();
    if a.len() != b.len() {
        return Err(Error::bad_input(format!(
            "one model has {} outputs, the other {}",
            a.len(),
            b.len()
        )));
    }
    for ((name, a), (_, b)) in a.iter().zip(b) {
        if a.shape() != b.shape() {
            return Err(Error::bad_input(format!(
                "output `{name}` has shape {:?} in one model and {:?} in the other",
                a.shape(),
                b.shape()
            )));
        }
        likeness.add(&a.to_f32()?, &b.to_f32()?);
    }
    Ok(likeness)
}
