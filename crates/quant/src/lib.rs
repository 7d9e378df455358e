//! Plan, calibrate, quantize, search, evaluate, explain: the product inside fewbit.
//!
//! The way of a model: [`prepare`] it, resolve a [`Plan`] from a [`Recipe`] and a [`Target`],
//! [`calibrate`] the plan's activations, write the quantization into the graph.

#![forbid(unsafe_code)]

pub mod affine;
pub mod algo;
mod calibrate;
mod evaluate;
pub mod explain;
pub mod metric;
pub mod observer;
mod placement;
mod plan;
mod prepare;
mod progress;
mod quantize;
mod recipe;
pub mod report;
mod samples;
mod search;
mod sensitivity;
mod target;
mod upgrade;

pub use calibrate::{ChannelSums, Statistics, ValueStatistics, calibrate, for_each_sample};
pub use evaluate::{EvaluateOptions, Reference, Scores, evaluate, for_all};
pub use placement::{Decision, Placement, place};
pub use plan::{NodeLine, Plan, ValueLine, select};
pub use prepare::{equalize, prepare};
pub use progress::{Progress, Silent};
pub use quantize::{
    QuantizedWeight, quantize_dynamic, quantize_static, quantize_weight_only, to_bf16_weights,
    to_fp16,
};
pub use recipe::{BUILT_IN as BUILT_IN_RECIPES, Calibration, Method, Recipe, Rounding, Selector};
pub use samples::{Sample, Samples, Task, as_taken, bind};
pub use search::{Attempt, Outcome, Search, constant_bytes};
pub use sensitivity::{Sensitivity, rank};
pub use target::{BUILT_IN as BUILT_IN_TARGETS, Target};
pub use upgrade::upgrade;
