//! Language models: from a checkpoint to a graph of ONNX operators, and to text.
//!
//! - [`Checkpoint`]: a Hugging Face folder or a GGUF file; weights stay mapped.
//! - [`arch`]: the architectures; each turns settings into a [`graph::decoder::Decoder`] or a
//!   [`graph::encoder::Encoder`], which build the graph.
//! - [`LanguageModel`]: a checkpoint with its network. [`Generator`] speaks, [`perplexity`]
//!   measures, [`Embedder`] turns texts into vectors, [`walk`] shows what each weight matrix
//!   multiplies.
//! - [`export`]: a checkpoint in the layout of another program.
//! - [`Tokenizer`], [`chat`]: text to tokens, and conversations to text.
//!
//! Stable codes: `FB-370x` damaged or contradictory models, `FB-371x` tokenizers and templates,
//! `FB-470x` what is sound but not handled.

#![forbid(unsafe_code)]

pub mod arch;
mod batch;
pub mod chat;
pub mod embed;
pub mod export;
mod generate;
pub mod graph;
mod model;
pub mod perplexity;
mod runner;
mod sample;
mod source;
mod state;
mod tokenizer;
pub mod walk;
mod writer;

pub use batch::{Answer, Batch, BatchListener, Event, Request, Ticket};
pub use embed::Embedder;
pub use generate::{Finish, Generation, Generator, GeneratorOptions, Speed};
pub use graph::{CacheType, CacheTypes};
pub use model::LanguageModel;
pub use sample::{Sampler, Sampling};
pub use source::{
    Checkpoint, Coded, Pooling, Settings, TensorNames, Weight, Weights, is_language_model,
};
pub use tokenizer::{TextStream, Tokenizer};
