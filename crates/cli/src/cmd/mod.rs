//! One file for each command: its flags, what it calls, what it prints.

pub mod bench;
pub mod compare;
pub mod completions;
pub mod convert;
pub mod demo;
pub mod eval;
pub mod inspect;
pub mod plan;
pub mod quantize;
pub mod run;
pub mod text;
mod weight_file;
