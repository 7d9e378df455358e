//! Reading and writing ONNX, from sound files over strange ones to hostile ones.

mod bounds;
mod corpus;
mod features;
mod hostile;
mod samples;
mod sweep;
