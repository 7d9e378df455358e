//! Reading GGUF: sound files, split models, and hostile ones.

mod samples;
mod sound;
mod split;
