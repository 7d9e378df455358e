//! Graphs of ONNX operators from a [`Decoder`](decoder::Decoder) or
//! [`Encoder`](encoder::Encoder) and the weights of a checkpoint.

pub mod attention;
mod builder;
mod cache;
pub mod decoder;
pub mod encoder;
mod feed_forward;
mod norm;
mod portable;
mod rotary;

pub use cache::{CacheType, CacheTypes};
pub use feed_forward::{Activation, FeedForward};
pub use norm::Norm;
pub use portable::BlockForm;
pub use rotary::{Long, Rotary};

use fewbit_core::{Graph, Model};

/// Operator sets that the graphs are written in.
const OPSET: i64 = 24;

/// Names of the inputs and outputs of the graphs.
pub mod names {
    /// Token ids, `i64[batch, sequence]`.
    pub const TOKENS: &str = "input_ids";
    /// Position of each token, `i64[batch, sequence]`; consecutive with a cache.
    pub const POSITIONS: &str = "position_ids";
    /// Positions in the sequence whose logits are wanted, `i64[rows]`.
    pub const ROWS: &str = "logits_positions";
    /// `f32[batch, rows, vocabulary]`.
    pub const LOGITS: &str = "logits";
    /// Output of an encoder, `f32[batch, sequence, hidden]`, or of a decoder without its head,
    /// `f32[batch, rows, hidden]`.
    pub const HIDDEN: &str = "last_hidden_state";
    /// Output of one layer alone, `f32[batch, sequence, hidden]`.
    pub const LAYER: &str = "layer_output";
    /// Which of two sentences a token belongs to, `i64[batch, sequence]`.
    pub const TOKEN_TYPES: &str = "token_type_ids";

    /// Keys or values of a layer before the run, `[batch, cache, heads * size]`, or
    /// `[batch, heads, cache, size]` where heads lie apart, in the type that the cache has; of block
    /// types the last dimension counts bytes.
    pub fn past(layer: usize, what: &str) -> String {
        format!("past_key_values.{layer}.{what}")
    }

    /// Position of the first row in the caches of layers that see a window of so many tokens,
    /// `i64[batch]`: rows before it are gone.
    pub fn first(window: usize) -> String {
        format!("past_key_values.first.{window}")
    }

    /// Keys or values of a layer after the run.
    pub fn present(layer: usize, what: &str) -> String {
        format!("present.{layer}.{what}")
    }
}

fn model(graph: Graph, form: BlockForm) -> Model {
    let other = match form {
        BlockForm::Stored => builder::FEWBIT,
        BlockForm::Portable { .. } => portable::MICROSOFT,
    };
    let opsets = vec![(String::new(), OPSET), (other.to_string(), 1)];
    let producer = ("fewbit".to_string(), env!("CARGO_PKG_VERSION").to_string());
    Model { graph, opsets, ir_version: 11, producer, ..Default::default() }
}
