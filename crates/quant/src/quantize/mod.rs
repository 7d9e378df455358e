//! Writing quantization into the graph, by plan and statistics.

mod bias;
mod dynamic;
mod half;
mod static_int8;
mod weight;
mod weight_only;

pub use dynamic::quantize_dynamic;
pub use half::{to_bf16_weights, to_fp16};
pub use static_int8::quantize_static;
pub use weight::QuantizedWeight;
pub use weight_only::quantize_weight_only;
