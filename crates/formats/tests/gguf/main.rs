//! Reading and writing GGUF: sound files, split models, and hostile ones.

mod corpus;
mod hostile;
mod oracle;
mod parts;
mod samples;
mod sound;
mod split;
mod write;
