//! ONNX models: protobuf in, graph out, and back.

pub mod schema;
