//! Readers and writers of model files, and readers of data sets: untrusted bytes stop here.
//!
//! [`onnx`] reads and writes models, [`safetensors`] and [`gguf`] the weights of language models,
//! [`imatrix`] how much each column of them matters, [`packed`] codes of few bits in words,
//! [`predictions`] what a language model made of a text, [`data`] reads samples, arrays and images, [`detect`] says what a file is by its content,
//! [`atomic`] writes files that are there whole or not at all, [`mmap`] opens inputs, [`limits`]
//! bounds what a file may make us do. Every failure is an [`Error`](fewbit_core::Error) with a
//! stable code and the place in the file.

#![deny(unsafe_code)]

pub mod atomic;
pub mod data;
pub mod detect;
mod fill;
pub mod gguf;
pub mod imatrix;
pub mod limits;
pub mod mmap;
pub mod onnx;
pub mod packed;
pub mod predictions;
pub mod safetensors;
