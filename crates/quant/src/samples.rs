//! Labelled samples, wherever they come from. This crate knows no file format.

use fewbit_core::{Error, Result, Tensor};
use fewbit_exec::Port;

/// One sample: the inputs of one inference, with a batch dimension of 1, which [`bind`] takes off
/// where a model has none.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Inputs by graph name; `None` for the only input of a data set that does not know names.
    pub inputs: Vec<(Option<String>, Tensor)>,
    /// Class index, for classification.
    pub label: Option<i64>,
}

/// What is scored on a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Top-1 and top-5 accuracy against labels.
    Classify,
    /// Error and cosine against the float model's outputs.
    Regress,
    /// Agreement with the float model only.
    None,
}

impl Task {
    /// Word used in cards and reports.
    pub fn name(self) -> &'static str {
        match self {
            Task::Classify => "classify",
            Task::Regress => "regress",
            Task::None => "none",
        }
    }
}

/// A data set that can be read from several threads.
pub trait Samples: Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is scored.
    fn task(&self) -> Task;

    /// Reads one sample.
    ///
    /// # Errors
    /// When the sample cannot be read or does not fit its card.
    fn sample(&self, index: usize) -> Result<Sample>;

    /// Name for messages and reports, such as `imagenet.toml@0..100`.
    fn name(&self) -> String;

    /// SHA-256 of the selected samples, for the report; hexadecimal.
    ///
    /// # Errors
    /// When the samples cannot be read.
    fn fingerprint(&self) -> Result<String>;
}

const STEPS: &str = "the [input] steps of a data card make samples fit: resize, crop, channels, \
                     scale, mean, std, layout";

/// Gives a sample's tensors the names of a session's inputs.
///
/// # Errors
/// When a name is unknown, a nameless tensor meets a model of several inputs, or a tensor does not
/// fit its input.
pub fn bind<'p>(sample: &Sample, ports: &'p [Port]) -> Result<Vec<(&'p str, Tensor)>> {
    let names = || ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
    let bind_one = |(name, tensor): &(Option<String>, Tensor)| {
        let port = match name {
            None if ports.len() == 1 => &ports[0],
            None => {
                return Err(Error::bad_input(format!("the model has {} inputs", ports.len()))
                    .hint(format!(
                        "name the arrays of the data set after the inputs: {}",
                        names()
                    )));
            }
            Some(name) => ports.iter().find(|p| p.name == *name).ok_or_else(|| {
                Error::bad_input(format!("the model has no input `{name}`"))
                    .hint(format!("its inputs: {}", names()))
            })?,
        };
        let tensor = as_taken(port, tensor.clone())?;
        port.check(&tensor).map_err(|e| e.hint(STEPS))?;
        Ok((port.name.as_str(), tensor))
    };
    sample.inputs.iter().map(bind_one).collect()
}

/// A sample as an input takes it: without its batch dimension of 1 where the model declares one
/// dimension less, as detectors do that take an image of `[channels, height, width]`.
///
/// # Errors
/// None that a well-formed tensor meets.
pub fn as_taken(port: &Port, tensor: Tensor) -> Result<Tensor> {
    match tensor.shape() {
        [1, rest @ ..] if port.ty.rank() == Some(rest.len()) => tensor.reshape(rest.to_vec()),
        _ => Ok(tensor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbit_core::{DType, ValueType};

    #[test]
    fn samples_lose_a_batch_dimension_that_the_model_has_not() {
        let port = |shape: &[usize]| Port {
            name: "image".to_string(),
            ty: ValueType::fixed(DType::F32, shape),
        };
        let image = |shape: &[usize]| Tensor::zeros(DType::F32, shape.to_vec()).unwrap();
        let cases: [(&[usize], &[usize], &[usize]); 5] = [
            (&[3, 8, 8], &[1, 3, 8, 8], &[3, 8, 8]),
            (&[1, 3, 8, 8], &[1, 3, 8, 8], &[1, 3, 8, 8]),
            (&[], &[1], &[]),
            // Two images are not one, and what does not fit is refused.
            (&[3, 8, 8], &[2, 3, 8, 8], &[2, 3, 8, 8]),
            (&[8, 8], &[1, 3, 8, 8], &[1, 3, 8, 8]),
        ];
        for (declared, given, taken) in cases {
            let sample = Sample { inputs: vec![(None, image(given))], label: None };
            let ports = [port(declared)];
            assert_eq!(as_taken(&ports[0], image(given)).unwrap().shape(), taken, "{declared:?}");
            assert_eq!(bind(&sample, &ports).is_ok(), declared == taken, "{declared:?}");
        }
    }
}
