//! Evaluation: run a data set, score it, compare with the float model on the same samples.

use crate::metric::{Comparison, Judgement, Likeness, Paired, judge_outputs};
use crate::progress::Progress;
use crate::samples::{Sample, Samples, Task, bind};
use fewbit_core::{Error, Model, Result, ResultExt, Tensor};
use fewbit_exec::{Mode, Session, SessionOptions};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How evaluation runs.
#[derive(Clone, Copy, Debug)]
pub struct EvaluateOptions {
    /// How the graph is run.
    pub mode: Mode,
    /// Samples in flight at once; 0 takes all cores.
    pub threads: usize,
}

/// Scores of one model.
#[derive(Clone, Debug)]
pub struct Scores {
    /// What was scored.
    pub task: Task,
    /// One judgement for each sample, in order.
    pub judgements: Vec<Judgement>,
}

impl Scores {
    /// Share of samples whose label has the largest score.
    pub fn top1(&self) -> f64 {
        self.share(|j| j.top1)
    }

    /// Share of samples whose label is among the five largest scores.
    pub fn top5(&self) -> f64 {
        self.share(|j| j.top5)
    }

    /// Number of samples whose outputs were not all finite.
    pub fn not_finite(&self) -> usize {
        self.judgements.iter().filter(|j| !j.finite).count()
    }

    fn share(&self, f: impl Fn(&Judgement) -> bool) -> f64 {
        self.judgements.iter().filter(|j| f(j)).count() as f64 / self.judgements.len().max(1) as f64
    }
}

/// Opens a session that runs one sample on one thread; samples run side by side instead.
///
/// # Errors
/// As [`Session::new`].
pub fn session(model: &Model, mode: Mode) -> Result<Session> {
    let mut options = SessionOptions::new(mode);
    options.threads = 1;
    Session::new(model, &options)
}

/// Scores a classification model.
///
/// # Errors
/// When the data set has no labels or a sample does not fit the model.
pub fn evaluate(
    model: &Model,
    samples: &dyn Samples,
    options: EvaluateOptions,
    progress: &dyn Progress,
) -> Result<Scores> {
    let session = session(model, options.mode)?;
    let judgements = for_all(samples, options.threads, progress, "evaluate", |sample| {
        judge_outputs(&run(&session, sample)?, sample.label)
    })?;
    Ok(Scores { task: samples.task(), judgements })
}

/// Compares models with one float original on one data set.
///
/// For classification the original runs once; for other tasks it runs beside each candidate, so
/// that no outputs have to be kept. Between runs no session of the original is alive.
pub struct Reference<'a> {
    original: &'a Model,
    samples: &'a dyn Samples,
    threads: usize,
    scores: Option<Scores>,
}

impl<'a> Reference<'a> {
    /// Prepares the original, and scores it where that is enough.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn new(
        model: &'a Model,
        samples: &'a dyn Samples,
        threads: usize,
        progress: &dyn Progress,
    ) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::bad_input("the evaluation set is empty").at(samples.name()));
        }
        let classify = samples.task() == Task::Classify;
        let options = EvaluateOptions { mode: Mode::Float, threads };
        let scores =
            if classify { Some(evaluate(model, samples, options, progress)?) } else { None };
        Ok(Reference { original: model, samples, threads, scores })
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Runs a candidate and compares.
    ///
    /// # Errors
    /// When a sample does not fit the candidate, or its outputs differ in shape.
    pub fn compare(
        &self,
        candidate: &Model,
        mode: Mode,
        progress: &dyn Progress,
    ) -> Result<Comparison> {
        let candidate = session(candidate, mode)?;
        let pairs = match &self.scores {
            Some(scores) => self.against_scores(&candidate, scores, progress)?,
            None => self.side_by_side(&candidate, progress)?,
        };
        Ok(Comparison::score(self.samples.task(), &pairs))
    }

    fn against_scores(
        &self,
        candidate: &Session,
        scores: &Scores,
        progress: &dyn Progress,
    ) -> Result<Vec<Paired>> {
        let judged = for_all(self.samples, self.threads, progress, "evaluate", |sample| {
            judge_outputs(&run(candidate, sample)?, sample.label)
        })?;
        let pairs = scores.judgements.iter().zip(judged);
        Ok(pairs
            .map(|(&float, quantized)| Paired { float, quantized, likeness: Likeness::default() })
            .collect())
    }

    fn side_by_side(&self, candidate: &Session, progress: &dyn Progress) -> Result<Vec<Paired>> {
        let original = session(self.original, Mode::Float)?;
        for_all(self.samples, self.threads, progress, "compare", |sample| {
            let (a, b) = (run(&original, sample)?, run(candidate, sample)?);
            let mut likeness = Likeness::default();
            for ((name, a), (_, b)) in a.iter().zip(&b) {
                if a.shape() != b.shape() {
                    return Err(Error::bad_input(format!(
                        "output `{name}` has shape {:?} and {:?}",
                        a.shape(),
                        b.shape()
                    )));
                }
                likeness.add(&a.to_f32()?, &b.to_f32()?);
            }
            let (float, quantized) = (judge_outputs(&a, None)?, judge_outputs(&b, None)?);
            Ok(Paired { float, quantized, likeness })
        })
    }
}

fn run(session: &Session, sample: &Sample) -> Result<Vec<(String, Tensor)>> {
    session.run(&bind(sample, session.inputs())?)
}

/// Runs `work` on every sample, several at once; results come in the order of the samples.
///
/// # Errors
/// The error of the first sample that fails.
pub fn for_all<T: Send>(
    samples: &dyn Samples,
    threads: usize,
    progress: &dyn Progress,
    stage: &str,
    work: impl Fn(&Sample) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let workers = if threads == 0 { cores } else { threads }.min(samples.len().max(1));
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<T>>>> =
        Mutex::new((0..samples.len()).map(|_| None).collect());
    let failed = AtomicUsize::new(usize::MAX);
    progress.start(stage, samples.len());
    let worker = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            // Samples behind a failed one need not run; those before it decide which error is first.
            if index >= samples.len() || index > failed.load(Ordering::Relaxed) {
                break;
            }
            let result = samples.sample(index).and_then(|s| work(&s));
            let result = result.at(|| format!("sample {index} of {}", samples.name()));
            if result.is_err() {
                failed.fetch_min(index, Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(|e| e.into_inner())[index] = Some(result);
            progress.step();
        }
    };
    thread::scope(|scope| {
        // The caller is a worker too, which goes on where the system refuses threads.
        for _ in 1..workers {
            if thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
    progress.finish();
    let results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.into_iter().flatten().collect()
}
