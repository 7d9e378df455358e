//! The report: everything there is to say about one quantization, as data.
//!
//! Serialized as JSON it is the output of `fewbit quantize --json`; the text and the HTML page
//! are renderings of the same data.

mod html;
mod quantities;
mod tables;
mod text;

pub use html::render as to_html;
pub use text::render as to_text;

use crate::explain::Bars;
use crate::metric::Comparison;
use crate::search::Attempt;
use serde::Serialize;

/// A model file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileFacts {
    /// Path as given by the user.
    pub path: String,
    /// Size, external data included.
    pub bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// A data set that was used.
#[derive(Clone, Debug, Serialize)]
pub struct DataFacts {
    /// Name as given by the user.
    pub name: String,
    /// Number of samples.
    pub samples: usize,
    /// SHA-256 of the samples, hexadecimal.
    pub sha256: String,
}

/// How the bound came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The measured drop fits the bound.
    Met,
    /// It does not.
    Missed,
    /// Measured, without a bound.
    Measured,
    /// Nothing was measured.
    Unmeasured,
}

/// One layer: what it became, why, and what it lost.
#[derive(Clone, Debug, Serialize)]
pub struct LayerCard {
    /// Node name.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Whether it computes on integers.
    pub quantized: bool,
    /// Why it is so.
    pub reason: String,
    /// Scheme of its weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Signal-to-quantization-noise ratio of its output in decibels, earlier layers included.
    pub sqnr_db: Option<f64>,
    /// The same of its weight alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_sqnr_db: Option<f64>,
    /// Distribution of its weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_bars: Option<Bars>,
    /// Distribution of its output with the chosen range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_bars: Option<Bars>,
    /// Range chosen for its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(f32, f32)>,
}

/// Median latencies of one sample, measured in turns on one machine.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Float model, milliseconds.
    pub float_ms: f64,
    /// Quantized model, milliseconds.
    pub quantized_ms: f64,
    /// Threads of both.
    pub threads: usize,
    /// Runs of each.
    pub runs: usize,
}

/// Wall time of the stages in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seconds {
    /// Reading and preparing the model.
    pub load: f64,
    /// Running calibration samples.
    pub calibrate: f64,
    /// Choosing scales and writing the graph.
    pub quantize: f64,
    /// Measuring accuracy, attempts of the search included.
    pub evaluate: f64,
    /// From start to end.
    pub total: f64,
}

/// What it takes to do it again.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reproduction {
    /// Version of fewbit.
    pub fewbit: String,
    /// The command line.
    pub command: Vec<String>,
    /// Random seed.
    pub seed: u64,
    /// Processor and instruction set.
    pub machine: String,
}

/// Everything about one quantization.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this layout; keys are only added within one version.
    pub schema: u32,
    /// How the bound came out.
    pub verdict: Verdict,
    /// The bound, in percentage points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drop_points: Option<f64>,
    /// The float model.
    pub float: FileFacts,
    /// The quantized model.
    pub quantized: FileFacts,
    /// Recipe and target.
    pub recipe: String,
    /// Name of the target.
    pub target: String,
    /// Accuracy against the float model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Comparison>,
    /// Latency of both models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// One card for each node of the prepared model.
    pub layers: Vec<LayerCard>,
    /// What the search tried.
    pub attempts: Vec<Attempt>,
    /// Data sets: calibration, evaluation.
    pub data: Vec<DataFacts>,
    /// Things a user should know: clipped values, NaN in the data, substitutions.
    pub warnings: Vec<String>,
    /// Advice on what to do next.
    pub advice: Vec<String>,
    /// Largest resident memory of the process, bytes.
    pub peak_rss_bytes: u64,
    /// Wall times.
    pub seconds: Seconds,
    /// How to do it again.
    pub reproduce: Reproduction,
}

#[cfg(test)]
mod tests;
