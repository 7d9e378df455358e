//! Tensors, element types, quantization schemes and the graph of fewbit.
//!
//! Start with [`Tensor`] and [`DType`], then [`Graph`] (nodes are plain data, behaviour lives in
//! the operator table of `fewbit-exec`) and [`Patch`], the only way to edit one. [`QuantScheme`]
//! says how a tensor is stored in few bits; [`codec`] defines what stored bytes mean.
//! Every crate of the project reports failures as [`Error`].
//!
//! No I/O and no unsafe code here.

#![forbid(unsafe_code)]

mod bytes;
pub mod codec;
mod dtype;
mod error;
mod graph;
mod scheme;
mod tensor;

pub use bytes::{
    AlignedBytes, Backing, Owner, SharedBytes, UniqueBytes, max_tensor_bytes, set_max_tensor_bytes,
};
pub use dtype::DType;
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use graph::{Attr, Dim, Graph, Model, Node, NodeId, Patch, Uses, Value, ValueId, ValueType};
pub use scheme::{CodeRange, Granularity, QuantScheme, ZeroPoint};
pub use tensor::{Element, Tensor, element_count};
