//! Filling a file whose layout is known with tensors that come one after the other, in chunks.

use crate::atomic::{OutputFile, OutputOptions, write_failed};
use fewbit_core::{Error, Result};
use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The place of one tensor in the output.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    /// Bytes of the tensor.
    pub(crate) len: usize,
    /// Zeros behind it.
    pub(crate) padding: usize,
}

/// An output under construction: its head is written, tensors follow in the order of the slots.
#[derive(Debug)]
pub(crate) struct Filling {
    path: PathBuf,
    output: OutputFile,
    slots: VecDeque<Slot>,
    /// Bytes of the first slot that are written.
    done: usize,
}

impl Filling {
    /// Reserves the space of the whole file and writes its head.
    pub(crate) fn create(
        path: &Path,
        head: &[u8],
        slots: Vec<Slot>,
        options: &OutputOptions,
    ) -> Result<Filling> {
        let bytes = slots.iter().map(|slot| (slot.len + slot.padding) as u64);
        let expected_bytes = head.len() as u64 + bytes.sum::<u64>();
        let options = OutputOptions { expected_bytes, ..options.clone() };
        let output = OutputFile::create(path, &options)?;
        let slots = slots.into();
        let mut filling = Filling { path: path.to_path_buf(), output, slots, done: 0 };
        filling.put(head)?;
        filling.advance()?;
        Ok(filling)
    }

    /// The tensor that comes next, and how many of its bytes are missing.
    pub(crate) fn next(&self) -> Option<(&str, usize)> {
        self.slots.front().map(|slot| (slot.name.as_str(), slot.len - self.done))
    }

    /// Appends bytes to the tensor `name`, which must be the next one.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self.next() {
            Some((next, missing)) if next == name && bytes.len() <= missing => {}
            next => return Err(out_of_turn(name, bytes.len(), next)),
        }
        self.put(bytes)?;
        self.done += bytes.len();
        self.advance()
    }

    /// Leaves all slots that are full behind.
    fn advance(&mut self) -> Result<()> {
        while let Some(slot) = self.slots.front() {
            if self.done < slot.len {
                break;
            }
            let padding = slot.padding;
            self.put(&vec![0; padding])?;
            self.slots.pop_front();
            self.done = 0;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(|e| write_failed(&self.path, &e))
    }

    /// The output with all bytes on the disk, still under its partial name.
    pub(crate) fn complete(mut self) -> Result<OutputFile> {
        if let Some((name, missing)) = self.next() {
            let what = format!("tensor {name:?} lacks {missing} bytes");
            return Err(Error::internal(what));
        }
        self.output.sync()?;
        Ok(self.output)
    }
}

fn out_of_turn(name: &str, len: usize, next: Option<(&str, usize)>) -> Error {
    let next = next.map_or("no more".to_string(), |(name, left)| format!("{left} of {name:?}"));
    Error::internal(format!("{len} bytes of tensor {name:?} are written; {next} are wanted"))
}
