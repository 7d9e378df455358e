//! From a graph to a program: fold, match, choose layouts, number slots.
//!
//! [`build`] is the way through: [`fused`] writes what ONNX Runtime fused as operators of ONNX,
//! [`float`] drops activation quantization where the mode ignores it, [`qoperator`] writes operators
//! on codes as Q/DQ, [`padding`] moves zeros into windows, [`factor`] makes sums exact where the
//! mode simulates, [`analyze`] derives types and folds constants, [`lower`] turns nodes (and groups
//! of nodes) into prepared kernels, [`layout`] decides which values lie channels-last, [`planes`] and
//! [`sequence`] let convolutions work together, and the result is a [`program::Program`].

pub(crate) mod analyze;
pub(crate) mod axes;
pub(crate) mod build;
mod chain;
mod factor;
mod float;
pub(crate) mod fuse;
pub(crate) mod fused;
mod identity;
pub(crate) mod integer;
pub(crate) mod kernel;
pub(crate) mod layout;
pub(crate) mod lower;
mod padding;
pub(crate) mod permute;
mod planes;
pub(crate) mod program;
pub(crate) mod qoperator;
pub(crate) mod scope;
mod sequence;
pub(crate) mod weights;
