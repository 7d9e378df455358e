//! The operator table and executor of fewbit: one graph, three ways to run it.
//!
//! - [`OpDef`]: one row for each operator; [`OpTable`] holds the rows.
//! - [`EvalCtx`], [`InferCtx`]: what an operator sees.
//! - [`Session`]: a model made ready to run in one [`Mode`].

#![forbid(unsafe_code)]

mod def;
mod eval;
mod infer;
mod memory;
mod ops;
mod plan;
mod session;

pub use def::{EvalFn, InferFn, OpDef, OpTable, Role};
pub use eval::{EvalCtx, Subgraphs, axis_index};
/// The kernels, for callers of taps that compute on what they see.
pub use fewbit_kernels as kernels;
pub use infer::{
    InferCtx, broadcast, broadcast_dims, broadcast_to_bool, only_dtype, same_as_input, typed,
    unknown,
};
pub use memory::Arena;
pub use session::{
    Mode, NodePlan, Port, Session, SessionOptions, StepTime, Tap, TapEvent, fold_constants,
    infer_types, write_fused_products,
};
