//! Writing a model into a folder: one file, or several and their index.

use super::INDEX_NAME;
use super::write::{TensorSpec, Writer};
use crate::atomic::{OutputFile, OutputOptions, check_destination, commit_all, write_failed};
use crate::fill::Filling;
use crate::mmap::shown;
use fewbit_core::{Error, Result, ResultExt};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The one file of a small model.
const SINGLE_NAME: &str = "model.safetensors";

/// Size of one file that Hugging Face writes by default.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// Files that are open at once while a model is written.
const MAX_SHARDS: usize = 512;

/// A model under construction in a folder, in bounded memory.
///
/// Used like [`Writer`]. All files and their index appear only when
/// [`finish`](FolderWriter::finish) succeeds, the index last.
#[derive(Debug)]
pub struct FolderWriter {
    shards: VecDeque<Filling>,
    complete: Vec<OutputFile>,
    index: Option<OutputFile>,
    /// Files of an earlier model in this folder, which would be read instead of ours.
    stale: Vec<PathBuf>,
}

impl FolderWriter {
    /// Distributes the tensors over files of at most `shard_bytes` of data each (a larger tensor
    /// gets one of its own), checks everything and reserves the space of all files.
    ///
    /// One file is called `model.safetensors`, several `model-00001-of-0000N.safetensors`.
    ///
    /// # Errors
    /// See [`Writer::create`]; also when there were more than 512 files.
    pub fn create(
        folder: &Path,
        metadata: &[(String, String)],
        tensors: &[TensorSpec],
        shard_bytes: u64,
        options: &OutputOptions,
    ) -> Result<FolderWriter> {
        let parts = distribute(tensors, shard_bytes)?;
        let name = |no: usize| match parts.len() {
            1 => SINGLE_NAME.to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", no + 1),
        };
        let other = if parts.len() == 1 { INDEX_NAME } else { SINGLE_NAME };
        check_destination(&folder.join(other), options)
            .at(|| format!("output {}", shown(&folder.join(other))))?;
        let mut shards = VecDeque::with_capacity(parts.len());
        let mut map = BTreeMap::new();
        for (no, part) in parts.iter().enumerate() {
            let path = folder.join(name(no));
            shards.push_back(Writer::create(&path, metadata, part, options)?.0);
            map.extend(part.iter().map(|spec| (spec.name.as_str(), name(no))));
        }
        if map.len() != tensors.len() {
            return Err(Error::bad_input("a tensor stands twice").code("FB-3503"));
        }
        let index = match parts.len() {
            1 => None,
            _ => Some(index(&folder.join(INDEX_NAME), &map, tensors, options)?),
        };
        let stale = vec![folder.join(other)];
        let mut writer = FolderWriter { shards, complete: Vec::new(), index, stale };
        writer.advance()?;
        Ok(writer)
    }

    /// The tensor that comes next and how many of its bytes are missing; `None` when all are
    /// written.
    pub fn next_tensor(&self) -> Option<(&str, usize)> {
        self.shards.front().and_then(Filling::next)
    }

    /// Appends bytes to the tensor `name`, which must be the next one.
    ///
    /// # Errors
    /// When writing fails; an internal error when another tensor is due, or fewer bytes.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.shards.front_mut() {
            Some(shard) => shard.write(name, bytes)?,
            None if bytes.is_empty() => {}
            None => return Err(Error::internal(format!("tensor {name:?} is one too many"))),
        }
        self.advance()
    }

    /// Brings all files to the disk and to their final names; the number of their bytes.
    ///
    /// # Errors
    /// When the disk fails; an internal error when bytes are missing.
    pub fn finish(mut self) -> Result<u64> {
        for shard in self.shards {
            self.complete.push(shard.complete()?);
        }
        for path in &self.stale {
            remove(path)?;
        }
        commit_all(self.complete.into_iter().chain(self.index).collect())
    }

    /// Takes the shards that are full to the disk.
    fn advance(&mut self) -> Result<()> {
        while self.shards.front().is_some_and(|shard| shard.next().is_none()) {
            let full = self.shards.pop_front().map(Filling::complete).transpose()?;
            self.complete.extend(full);
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(write_failed(path, &e)),
        _ => Ok(()),
    }
}

fn distribute(tensors: &[TensorSpec], shard_bytes: u64) -> Result<Vec<Vec<TensorSpec>>> {
    let mut parts: Vec<Vec<TensorSpec>> = vec![Vec::new()];
    let mut filled = 0u64;
    for spec in tensors {
        let bytes = spec.byte_len()? as u64;
        let full = filled.saturating_add(bytes) > shard_bytes;
        match parts.last_mut() {
            Some(part) if part.is_empty() || !full => {
                part.push(spec.clone());
                filled += bytes;
            }
            _ => {
                parts.push(vec![spec.clone()]);
                filled = bytes;
            }
        }
    }
    if parts.len() > MAX_SHARDS {
        let what = format!("{} files; at most {MAX_SHARDS} are written", parts.len());
        return Err(Error::usage(what).code("FB-2104").hint("choose larger files"));
    }
    Ok(parts)
}

fn index(
    path: &Path,
    map: &BTreeMap<&str, String>,
    tensors: &[TensorSpec],
    options: &OutputOptions,
) -> Result<OutputFile> {
    let mut total = 0u64;
    for spec in tensors {
        total += spec.byte_len()? as u64;
    }
    let map: Map<String, Value> =
        map.iter().map(|(name, file)| (name.to_string(), json!(file))).collect();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    let text = format!("{index:#}\n");
    let options = OutputOptions { expected_bytes: text.len() as u64, ..options.clone() };
    let mut output = OutputFile::create(path, &options)?;
    output.write_all(text.as_bytes()).map_err(|e| write_failed(path, &e))?;
    Ok(output)
}
