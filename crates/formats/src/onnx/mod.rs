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
//!
//! # Stable codes
//!
//! | code | meaning |
//! |---|---|
//! | FB-3001 to FB-3005 | the file cannot be opened, is no regular file, is empty, is of no known format, changed meanwhile |
//! | FB-3101, FB-3102 | a value has no name; a value is defined twice |
//! | FB-3103, FB-3110 | an attribute is of another kind than declared; stands twice |
//! | FB-3104, FB-3105 | the graph has a cycle; subgraphs nest too deep |
//! | FB-3106, FB-3107 | an output is never computed; a node reads what nothing defines |
//! | FB-3108, FB-3109 | a default contradicts its input's type; a node has no operator |
//! | FB-3201, FB-3203, FB-3204 | the encoding is damaged; a text is not UTF-8; a required field is missing |
//! | FB-3210, FB-3211, FB-3212 | no graph; no valid IR version; no valid operator sets |
//! | FB-3220, FB-3221, FB-3222 | a tensor contradicts itself; has another size than its shape; an element is out of range |
//! | FB-3230, FB-3231, FB-3232 | external data is badly described; leads out of the folder; leaves its file |
//! | FB-3240 to FB-3243 | a function is defined twice; calls itself; gets too many arguments; an attribute reference stands outside |
//! | FB-4001 | another format, recognized, with advice |
//! | FB-4101 to FB-4103 | unknown element type; segments; too many dimensions |
//! | FB-4104 | external data of a model that was not read from a folder |
//! | FB-4105, FB-4106, FB-4107 | IR or operator set version not read; a function needs another operator set; functions expand too far |
//! | FB-4108 | larger than protobuf allows without external data |
//! | FB-5201, FB-5202, FB-5203 | reading failed; mapping failed; more messages than fit in memory |

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
