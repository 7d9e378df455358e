//! Reading and writing safetensors: sound files, folders, and hostile ones.

mod folders;
mod hostile;
mod oracle;
mod samples;
mod sound;
mod write;
