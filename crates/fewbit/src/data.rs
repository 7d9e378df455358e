//! Data sets of `fewbit-formats`, seen as samples by `fewbit-quant`.

use fewbit_core::Result;
use fewbit_formats::data::{self, Dataset};
use fewbit_quant::{Sample, Samples, Task};

/// An open data set with the name the user gave it.
pub struct Data {
    name: String,
    set: Dataset,
}

impl Data {
    /// Opens `PATH` or `PATH@A..B`: a card, a folder of images, `.npz`, `.npy`, `.csv`, `.txt`.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open(spec: &str) -> Result<Data> {
        Ok(Data { name: spec.to_string(), set: Dataset::open(spec)? })
    }

    /// The data set itself, with true values for regression.
    pub fn dataset(&self) -> &Dataset {
        &self.set
    }
}

impl Samples for Data {
    fn len(&self) -> usize {
        self.set.len()
    }

    fn task(&self) -> Task {
        match self.set.task() {
            data::Task::Classify => Task::Classify,
            data::Task::Regress => Task::Regress,
            // Other tasks are refused when a data set is opened.
            _ => Task::None,
        }
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let sample = self.set.sample(index)?;
        Ok(Sample { inputs: sample.inputs, label: sample.label })
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn fingerprint(&self) -> Result<String> {
        self.set.fingerprint()
    }
}

/// The first samples of a set.
pub(crate) struct First<'a> {
    pub all: &'a dyn Samples,
    pub count: usize,
}

impl Samples for First<'_> {
    fn len(&self) -> usize {
        self.all.len().min(self.count)
    }

    fn task(&self) -> Task {
        self.all.task()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        self.all.sample(index)
    }

    fn name(&self) -> String {
        self.all.name()
    }

    fn fingerprint(&self) -> Result<String> {
        self.all.fingerprint()
    }
}
