//! Reading and writing GGUF: sound files, split models, and hostile ones.

mod oracle;
mod samples;
mod sound;
mod split;
mod write;
