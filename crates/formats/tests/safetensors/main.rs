//! Reading safetensors: sound files, folders, and hostile ones.

mod folders;
mod hostile;
mod samples;
mod sound;
