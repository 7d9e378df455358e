//! Calibration: run samples through the float model and keep statistics, never activations.

use crate::observer::{Observer, Range, observer_for};
use crate::placement::Placement;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::samples::{Sample, Samples, bind};
use fewbit_core::{Error, Graph, Model, QuantScheme, Result, ResultExt};
use fewbit_exec::kernels::quantize::{Extent, column_sums};
use fewbit_exec::{Mode, Session, SessionOptions, TapEvent};
use std::collections::HashMap;
use std::io;
use std::thread::{self, ScopedJoinHandle};

/// What calibration knows of one activation.
pub struct ValueStatistics {
    /// The observer of the recipe's method.
    pub observer: Box<dyn Observer>,
    /// Mean of each channel, for values that weighted operators read.
    pub channels: Option<ChannelSums>,
}

/// Sums over everything but the channel axis.
#[derive(Clone, Debug)]
pub struct ChannelSums {
    axis: ChannelAxis,
    sums: Vec<f64>,
    count: u64,
}

/// Where the channels of an activation are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelAxis {
    /// Axis 1 of `[N, C, ...]`, as convolution reads it.
    Second,
    /// The last axis, as matrix multiplication reads it.
    Last,
}

impl ChannelSums {
    fn new(axis: ChannelAxis) -> Self {
        ChannelSums { axis, sums: Vec::new(), count: 0 }
    }

    fn add(&mut self, event: &TapEvent, values: &[f32]) {
        let shape = event.tensor.shape();
        let last = self.axis == ChannelAxis::Last || event.channels_last || shape.len() < 2;
        let axis = if last { shape.len().saturating_sub(1) } else { 1 };
        let channels = shape.get(axis).copied().unwrap_or(1);
        let inner: usize = shape.iter().skip(axis + 1).product();
        if self.sums.is_empty() {
            self.sums = vec![0.0; channels];
        }
        if channels != self.sums.len() || values.is_empty() {
            return;
        }
        if inner == 1 {
            column_sums(*event.kernels, values, &mut self.sums);
        } else {
            for (plane, index) in values.chunks_exact(inner).zip((0..channels).cycle()) {
                self.sums[index] += plane.iter().map(|&v| v as f64).sum::<f64>();
            }
        }
        self.count += (values.len() / channels) as u64;
    }

    /// Mean of each channel; empty when nothing was seen.
    pub fn means(&self) -> Vec<f64> {
        self.sums.iter().map(|s| s / self.count.max(1) as f64).collect()
    }
}

/// The result of calibration, by value name.
pub struct Statistics {
    values: HashMap<String, ValueStatistics>,
    /// Number of samples seen.
    pub samples: usize,
}

impl Statistics {
    /// What is known of a value.
    ///
    /// # Errors
    /// When calibration did not see it.
    pub fn of(&self, value: &str) -> Result<&ValueStatistics> {
        self.values.get(value).ok_or_else(|| {
            Error::bad_input(format!("calibration never saw the value `{value}`"))
                .hint("a branch that the calibration data does not reach cannot be quantized")
        })
    }

    /// The range of a value for codes of `scheme`.
    ///
    /// # Errors
    /// When calibration did not see it.
    pub fn range(&self, value: &str, scheme: &QuantScheme) -> Result<Range> {
        Ok(self.of(value)?.observer.finish(scheme))
    }

    /// Warnings about values that were not numbers, which the ranges pass over.
    pub fn warnings(&self) -> Vec<String> {
        let spoiled = |(name, count)| format!("calibration: `{name}` holds {count} NaN");
        self.nan().map(spoiled).collect()
    }

    /// # Errors
    /// When an input never was a finite number. (What becomes NaN within the model is its own
    /// matter, and warned of.)
    fn check_inputs(&self, graph: &Graph) -> Result<()> {
        let names = graph.inputs().iter().map(|&v| graph.name_of(v));
        let seen = |name: &str| self.values.get(name).map(|v| v.observer.extent());
        let empty = |seen: Extent| seen.is_empty() && seen.nan > 0;
        match names.into_iter().find(|name| seen(name).is_some_and(empty)) {
            None => Ok(()),
            Some(name) => Err(Error::bad_input(format!("`{name}` holds nothing but NaN"))
                .code("FB-3402")
                .hint("look at what made the calibration data")),
        }
    }

    /// Values that held NaN, with how many, by name.
    fn nan(&self) -> impl Iterator<Item = (&str, u64)> {
        let counts = self.values.iter().map(|(name, v)| (name.as_str(), v.observer.extent().nan));
        let mut found: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        found.sort_unstable();
        found.into_iter()
    }

    /// Takes in what another calibration run over the same plan has seen.
    ///
    /// # Errors
    /// When the runs observed different values or used different methods.
    pub fn merge(&mut self, other: &Statistics) -> Result<()> {
        for (name, theirs) in &other.values {
            let ours = self.values.get_mut(name);
            let ours = ours.ok_or_else(|| {
                Error::internal(format!("`{name}` was observed on one side only"))
            })?;
            ours.observer.merge(theirs.observer.as_ref())?;
            if let (Some(a), Some(b)) = (&mut ours.channels, &theirs.channels) {
                a.sums.iter_mut().zip(&b.sums).for_each(|(a, b)| *a += b);
                a.count += b.count;
            }
        }
        self.samples += other.samples;
        Ok(())
    }

    fn observe(&mut self, event: &TapEvent) -> Result<()> {
        let Some(statistics) = self.values.get_mut(event.name) else {
            return Ok(());
        };
        let values = event.tensor.as_slice::<f32>()?;
        statistics.observer.update(values, *event.kernels);
        if let Some(channels) = &mut statistics.channels {
            channels.add(event, values);
        }
        Ok(())
    }
}

/// Runs all samples through the float model and observes every value of the placement.
///
/// Memory: one sample's activations plus fixed statistics for each value, however many samples.
///
/// # Errors
/// When there are no samples, one does not fit the model, a value turns out not to be f32, or an
/// input holds nothing but NaN.
pub fn calibrate(
    model: &Model,
    placement: &Placement,
    recipe: &Recipe,
    samples: &dyn Samples,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Statistics> {
    if samples.is_empty() {
        return Err(Error::bad_input("the calibration set is empty").at(samples.name()));
    }
    let mut statistics = observers(model, placement, recipe);
    let mut options = SessionOptions::new(Mode::Float);
    options.threads = threads;
    options.taps = statistics.values.keys().cloned().collect();
    let session = Session::new(model, &options)?;
    progress.start("calibrate", samples.len());
    for_each_sample(samples, threads, |index, sample| {
        let mut tap = |event: &TapEvent| statistics.observe(event);
        bind(&sample, session.inputs())
            .and_then(|inputs| session.run_tapped(&inputs, &mut tap))
            .at(|| format!("sample {index} of {}", samples.name()))?;
        progress.step();
        Ok(())
    })?;
    progress.finish();
    statistics.samples = samples.len();
    statistics.check_inputs(&model.graph).at(|| samples.name())?;
    Ok(statistics)
}

fn observers(model: &Model, placement: &Placement, recipe: &Recipe) -> Statistics {
    let graph = &model.graph;
    let fresh = || ValueStatistics { observer: observer_for(&recipe.calibration), channels: None };
    let mut values: HashMap<String, ValueStatistics> =
        placement.values().map(|v| (graph.name_of(v).to_string(), fresh())).collect();
    for &(id, _) in placement.weights() {
        let node = graph.node(id);
        let input = node.input(0).map(|v| graph.name_of(v)).unwrap_or_default();
        let axis =
            if node.op.starts_with("Conv") { ChannelAxis::Second } else { ChannelAxis::Last };
        if let Some(statistics) = values.get_mut(input) {
            statistics.channels = Some(ChannelSums::new(axis));
        }
    }
    Statistics { values, samples: 0 }
}

/// Reads samples a few ahead on several threads and hands them over in order.
///
/// # Errors
/// The first error of reading or of `work`.
pub fn for_each_sample(
    samples: &dyn Samples,
    threads: usize,
    mut work: impl FnMut(usize, Sample) -> Result<()>,
) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let ahead = if threads == 0 { cores } else { threads };
    for start in (0..samples.len()).step_by(ahead) {
        let batch: Vec<Result<Sample>> = thread::scope(|scope| {
            let indices = start..samples.len().min(start + ahead);
            let read = |i| move || samples.sample(i);
            let start = |i| (i, thread::Builder::new().spawn_scoped(scope, read(i)));
            let readers: Vec<_> = indices.map(start).collect();
            let finish = |(i, reader): (usize, io::Result<ScopedJoinHandle<_>>)| match reader {
                Ok(reader) => {
                    let sample = reader.join();
                    sample.unwrap_or_else(|_| Err(Error::internal("a reader thread panicked")))
                }
                // The system refuses threads.
                Err(_) => samples.sample(i),
            };
            readers.into_iter().map(finish).collect()
        });
        for (offset, sample) in batch.into_iter().enumerate() {
            let index = start + offset;
            work(index, sample.at(|| format!("sample {index} of {}", samples.name()))?)?;
        }
    }
    Ok(())
}
