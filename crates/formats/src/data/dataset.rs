//! A data set: samples as model inputs, with what is known to be true of them.

use super::card::{Card, InputSteps, Task};
use super::file::show;
use super::preprocess::Preprocess;
use super::source::{self, Samples};
use super::spec::DataSpec;
use fewbit_core::{AlignedBytes, DType, Error, Result, ResultExt, Tensor};
use sha2::{Digest, Sha256};
use std::path::Path;

/// One sample, ready for a model.
#[derive(Clone, Debug)]
pub struct Sample {
    /// One tensor per input, each with a leading batch dimension of 1. The name is the graph's
    /// input name where the data says it; `None` means the only input.
    pub inputs: Vec<(Option<String>, Tensor)>,
    /// The class, for [`Task::Classify`].
    pub label: Option<i64>,
    /// The true values, `f32` with a leading dimension of 1, for [`Task::Regress`] where known.
    pub target: Option<Tensor>,
}

/// An open data set. Samples are read when asked for, from any number of threads.
pub struct Dataset {
    task: Task,
    preprocess: Preprocess,
    samples: Samples,
    first: usize,
    truth: Truth,
    card: Option<Card>,
}

enum Truth {
    Unknown,
    Classes(Vec<i64>),
    /// One row of `f32` per sample.
    Values(Tensor),
}

impl Dataset {
    /// Opens `PATH` or `PATH@A..B`: a card, a folder of images, `.npz`, `.npy`, `.csv`, `.txt`
    /// or a single image.
    ///
    /// # Errors
    /// `FB-2301` for a wrong range, `FB-2302` when it cannot be told what the data is, `FB-33xx`
    /// for damaged data, `FB-43xx` for data that is sound but not handled.
    pub fn open(spec: &str) -> Result<Dataset> {
        Dataset::open_spec(&DataSpec::parse(spec)?)
    }

    /// Opens a path with a range; see [`open`](Dataset::open).
    ///
    /// # Errors
    /// As [`open`](Dataset::open).
    pub fn open_spec(spec: &DataSpec) -> Result<Dataset> {
        let is_card = spec.path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"));
        if !is_card {
            return Dataset::build(&spec.path, None, spec);
        }
        let card = Card::read(&spec.path)?;
        let folder = spec.path.parent().unwrap_or(Path::new(""));
        let path = folder.join(&card.path);
        Dataset::build(&path, Some(card), spec).at(|| format!("card {}", show(&spec.path)))
    }

    fn build(path: &Path, card: Option<Card>, spec: &DataSpec) -> Result<Dataset> {
        let asked = card.as_ref().and_then(|c| c.task);
        asked.map(Task::supported).transpose()?;
        let loaded = source::open(path, card.as_ref(), &spec.range)?;
        let steps = card.as_ref().map_or_else(InputSteps::default, |c| c.input.clone());
        check_single_input(&loaded.samples, &steps)?;
        let (task, truth) = settle(asked, loaded.truth, loaded.first).at(|| show(path))?;
        let preprocess = Preprocess::new(steps)?;
        let (samples, first) = (loaded.samples, loaded.first);
        Ok(Dataset { task, preprocess, samples, first, truth, card })
    }

    /// Number of selected samples, at least 1.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Never true: data without samples does not open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is scored: as the card says, otherwise by the labels (integers classify, real
    /// numbers regress, none means agreement only).
    pub fn task(&self) -> Task {
        self.task
    }

    /// The card, where there is one.
    pub fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }

    /// The class of sample `i`.
    pub fn label(&self, i: usize) -> Option<i64> {
        match &self.truth {
            Truth::Classes(labels) => labels.get(i).copied(),
            _ => None,
        }
    }

    /// The largest class, to be checked against the number of classes of a model.
    pub fn max_label(&self) -> Option<i64> {
        match &self.truth {
            Truth::Classes(labels) => labels.iter().copied().max(),
            _ => None,
        }
    }

    /// A name for sample `i` in reports: its file, or its index in the whole data.
    pub fn name(&self, i: usize) -> String {
        self.samples.file_name(i).unwrap_or_else(|| format!("#{}", self.first + i))
    }

    /// Reads sample `i` and applies the input steps.
    ///
    /// # Errors
    /// When the sample is damaged or does not fit the steps; `FB-2301` when there is none.
    pub fn sample(&self, i: usize) -> Result<Sample> {
        if i >= self.len() {
            let what = format!("there is no sample {i}; the data has {}", self.len());
            return Err(Error::usage(what).code("FB-2301"));
        }
        let inputs = self.samples.read(i, &self.preprocess).at(|| self.place(i))?;
        Ok(Sample { inputs, label: self.label(i), target: self.target(i)? })
    }

    fn place(&self, i: usize) -> String {
        format!("sample {}", self.first + i)
    }

    fn target(&self, i: usize) -> Result<Option<Tensor>> {
        let Truth::Values(values) = &self.truth else { return Ok(None) };
        let row = values.bytes().len() / self.len();
        let bytes = AlignedBytes::copy_of(&values.bytes()[i * row..(i + 1) * row]);
        let mut shape = values.shape().to_vec();
        shape[0] = 1;
        Tensor::from_bytes(DType::F32, shape, bytes.into()).map(Some)
    }

    /// SHA-256 in hexadecimal over the task, the input steps, and the stored bytes and labels of
    /// the selected samples: equal for equal data, wherever it lies.
    ///
    /// # Errors
    /// When a sample cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(b"fewbit data 1\0");
        hash.update(self.task.name());
        if let Some(card) = &self.card {
            let steps = serde_json::to_vec(&card.input);
            hash.update(steps.map_err(|e| Error::internal(format!("input steps: {e}")))?);
        }
        for i in 0..self.len() {
            self.samples.hash(i, &mut hash).at(|| self.place(i))?;
        }
        match &self.truth {
            Truth::Unknown => {}
            Truth::Classes(labels) => labels.iter().for_each(|l| hash.update(l.to_le_bytes())),
            Truth::Values(values) => hash.update(values.bytes()),
        }
        Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }
}

fn check_single_input(samples: &Samples, steps: &InputSteps) -> Result<()> {
    match samples {
        Samples::Arrays(arrays) if arrays.len() > 1 && *steps != InputSteps::default() => {
            let error = Error::bad_input("input steps for samples of several arrays");
            let hint = "name the one array in the card, x = \"...\", or leave out the steps";
            Err(error.code("FB-3303").at("[input]").hint(hint))
        }
        _ => Ok(()),
    }
}

/// The task and what is true, from what the card asks and what the data has.
fn settle(asked: Option<Task>, found: Option<Tensor>, first: usize) -> Result<(Task, Truth)> {
    let task = asked.unwrap_or(match &found {
        Some(t) if t.dtype().is_float() => Task::Regress,
        Some(_) => Task::Classify,
        None => Task::None,
    });
    match (task, found) {
        (Task::Classify, Some(t)) => Ok((task, Truth::Classes(classes(&t, first)?))),
        (Task::Classify, None) => {
            let error = Error::bad_input("the task is `classify`, but there are no labels");
            Err(error.code("FB-3340").hint("add labels, or write task = \"none\""))
        }
        (Task::Regress, Some(t)) => {
            // A column of single numbers is a value per sample.
            let shape = if t.rank() == 1 { vec![t.len(), 1] } else { t.shape().to_vec() };
            Ok((task, Truth::Values(t.cast(DType::F32)?.reshape(shape)?)))
        }
        _ => Ok((task, Truth::Unknown)),
    }
}

fn classes(truth: &Tensor, first: usize) -> Result<Vec<i64>> {
    let n = truth.shape().first().copied().unwrap_or(0);
    if truth.len() != n {
        let what = format!("labels of shape {:?}; one class per sample is needed", truth.shape());
        let hint = "turn one-hot rows into classes: y = y.argmax(1)";
        return Err(Error::bad_input(what).code("FB-3341").at("labels").hint(hint));
    }
    let values = truth.to_f64()?;
    let class = |(i, v): (usize, &f64)| {
        if *v >= 0.0 && v.fract() == 0.0 && *v < 2f64.powi(31) {
            return Ok(*v as i64);
        }
        let error = Error::bad_input(format!("the label {v} is not a class 0, 1, 2, ..."));
        Err(error.code("FB-3341").at(format!("sample {}", first + i)))
    };
    values.iter().enumerate().map(class).collect()
}
