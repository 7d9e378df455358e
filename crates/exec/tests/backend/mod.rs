//! Running the backend test suite of the `onnx` package.

pub mod case;
pub mod compare;
pub mod tally;
