//! ONNX models: protobuf in, graph out, and back.
//!
//! [`read`] maps the file, [scans](scan) its bytes, decodes the [messages](schema), inlines
//! model-local functions, folds `Constant` nodes into constants of the graph and verifies the
//! result. Weights stay views into the file. [`write()`] streams the graph back, with weights in
//! a file of their own where the model is larger than protobuf allows.
//!
//! What fewbit does not model passes from file to file: unknown operators and domains, types
//! that are no tensors, sparse constants, sharding, training graphs, notes and metadata. Unknown
//! protobuf *fields*, which no published version of the format has, are dropped.

mod read;
pub mod scan;
pub mod schema;
mod write;

pub use bytes::Bytes;
pub use read::{
    IR_VERSIONS, OPSETS, read, read_bytes, read_tensor, read_with_files, tensor_from_bytes,
    tensor_from_proto,
};
pub use write::{ExternalData, WriteOptions, to_bytes, write};
