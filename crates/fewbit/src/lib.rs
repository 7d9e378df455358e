//! Quantize trained networks, within the accuracy bound you set, and with the proof.
//!
//! # The way of a model
//!
//! ```text
//! load -> plan -> calibrate -> quantize -> evaluate -> export
//! Model   Plan    Statistics   Model       Report      file
//! ```
//!
//! [`QuantizeJob`] goes the whole way; every step is also a function of its own:
//!
//! | verb | here | finer steps |
//! |---|---|---|
//! | read a model | [`load`] | [`formats::onnx`] |
//! | look at it | [`inspect`], [`inspect_weights`] | [`Session::plan`] |
//! | decide | [`plan`] | [`quant::Plan`], [`Recipe`], [`Target`] |
//! | quantize | [`QuantizeJob`] | [`quant::calibrate`], [`quant::quantize_static`] |
//! | score | [`evaluate`] | [`quant::evaluate`] |
//! | compare two models | [`compare`] | [`quant::explain`] |
//! | time | [`bench`](bench()) | [`Session`] |
//! | run | [`Session`] | [`read_input`], [`formats::data`] |
//!
//! Every failure is an [`Error`]: what, where, how to fix it, a stable code.
//!
//! ```no_run
//! use fewbit::{Data, QuantizeJob, Recipe, Silent, load};
//!
//! # fn main() -> fewbit::Result<()> {
//! let source = load("model.onnx".as_ref())?;
//! let calibration = Data::open("card.toml@0..200")?;
//! let mut job = QuantizeJob::new(&source, Recipe::built_in("int8")?)?;
//! job.calibration = Some(&calibration);
//! let mut quantized = job.run(&Silent)?;
//! quantized.write("model-int8.onnx".as_ref(), false)?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod bench;
mod compare;
mod data;
mod estimate;
mod evaluate;
mod folder;
mod gguf;
mod inputs;
mod inspect;
mod job;
mod load;
mod machine;
mod plan;
mod portable;
mod report;
mod text;
mod weight_file;
mod weights;

/// Readers and writers of models and data.
pub use fewbit_formats as formats;
/// Language models: architectures, tokenizers, generation, perplexity.
pub use fewbit_llm as llm;
/// Calibration, search, metrics and everything else that makes the product.
pub use fewbit_quant as quant;

pub use bench::{Bench, BenchOptions, OperatorTime, Ratio, Slower, StepMedian, bench};
pub use compare::{CompareOptions, Compared, compare};
pub use data::Data;
pub use estimate::{Estimate, estimate};
pub use evaluate::{Evaluation, evaluate};
pub use fewbit_core::{
    Attr, DType, Dim, Error, ErrorKind, Granularity, Graph, Model, Node, Patch, QuantScheme,
    Result, ResultExt, Tensor, ValueType, ZeroPoint, max_tensor_bytes, set_max_tensor_bytes,
};
pub use fewbit_exec::{
    EvalCtx, InferCtx, Mode, NodePlan, OpDef, OpTable, Port, Role, Session, SessionOptions,
    StepTime, TapEvent, same_as_input,
};
pub use fewbit_kernels::{Isa, Level};
pub use fewbit_quant::{
    Calibration, Method, Plan, Progress, Recipe, Sample, Samples, Selector, Silent, Target, Task,
    report::{Latency, Report, Verdict},
};
pub use folder::{FolderJob, FolderType};
pub use gguf::{GgufJob, GgufReport, Rounding, TensorLine, TextCalibration};
pub use inputs::{named_inputs, read_input, read_inputs_npz};
pub use inspect::{Inspection, inspect};
pub use job::{QuantizeJob, Quantized};
pub use load::{Source, load};
pub use machine::{cores, describe_machine, peak_rss_bytes};
pub use plan::{plan, read_plan, recipe, target};
pub use portable::{OnnxJob, OnnxReport};
pub use report::write_report;
pub use text::{TextOptions, evaluate_text};
pub use weight_file::{
    MetadataFacts, TensorFacts, TypeFacts, WeightFileInspection, inspect_weights,
};
