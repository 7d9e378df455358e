//! What a long job has done so far, so that the same command goes on where it was killed.
//!
//! Beside the output stands a folder `OUT.fewbit-journal`: the fingerprint of the job, and a file
//! for each finished layer that appears whole or not at all. Work is done again only for layers
//! without a file, and what is computed does not depend on where it was interrupted.

use fewbit_core::{Error, Result, ResultExt};
use fewbit_formats::atomic::{OutputFile, OutputOptions, write_file};
use fewbit_kernels::encode::Loss;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Bytes of the hash at the end of a record.
const HASH: usize = 32;
const FINGERPRINT: &str = "fingerprint";
const WRITTEN: &str = "written";
const LOCK: &str = "lock";

/// One tensor that is done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Done {
    pub(super) name: String,
    pub(super) loss: Loss,
    /// Sum of squares of each column of its inputs.
    pub(super) squares: Vec<f32>,
    /// Inputs behind the sums.
    pub(super) tokens: u64,
    pub(super) bytes: Vec<u8>,
}

/// What stands before the bytes of the tensors.
#[derive(Serialize, Deserialize)]
struct Head {
    tensors: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: usize,
    columns: usize,
    tokens: u64,
    /// Bits of the numbers of the loss.
    loss: [u64; 2],
}

/// The folder of one job, locked while this process works on it.
pub(super) struct Journal {
    folder: PathBuf,
    _lock: File,
}

/// The folder for an output.
pub(super) fn folder(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".fewbit-journal");
    out.with_file_name(name)
}

impl Journal {
    /// Opens the folder of an output, or makes it.
    ///
    /// # Errors
    /// When another process works on it, when it is of another job, or the disk fails.
    pub(super) fn open(out: &Path, fingerprint: &str) -> Result<Journal> {
        let folder = folder(out);
        let place = || folder.display().to_string();
        fs::create_dir_all(&folder).map_err(|e| failed("cannot make the journal", &e)).at(place)?;
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK));
        let lock = lock.map_err(|e| failed("cannot make the journal", &e)).at(place)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::usage("another process is making this output")
                    .code("FB-2702")
                    .hint("wait for it, or choose another output")
                    .at(place()));
            }
            // Not every file system can lock.
            Err(TryLockError::Error(_)) => {}
        }
        let journal = Journal { folder, _lock: lock };
        journal.check(fingerprint)?;
        Ok(journal)
    }

    fn check(&self, fingerprint: &str) -> Result<()> {
        let path = self.folder.join(FINGERPRINT);
        match fs::read_to_string(&path) {
            Ok(found) if found == fingerprint => Ok(()),
            Ok(_) => {
                let folder = self.folder.display();
                Err(Error::bad_input("the journal beside the output is of another job")
                    .code("FB-3715")
                    .hint(format!("give the arguments it was begun with, or remove {folder}"))
                    .at(folder.to_string()))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                write_file(&path, fingerprint.as_bytes(), &OutputOptions::default()).map(|_| ())
            }
            Err(e) => Err(failed("cannot read the journal", &e).at(path.display().to_string())),
        }
    }

    /// Reserves bytes on the disk for a moment, so that a job that cannot end does not begin.
    ///
    /// # Errors
    /// When there is not so much space; a journal without layers is then removed.
    pub(super) fn with_space(self, bytes: u64) -> Result<Journal> {
        let options = OutputOptions { expected_bytes: bytes, ..Default::default() };
        match OutputFile::create(&self.folder.join("space"), &options) {
            Ok(_) => Ok(self),
            Err(error) => {
                if !self.path(0).exists() {
                    self.remove()?;
                }
                Err(error)
            }
        }
    }

    pub(super) fn path(&self, layer: usize) -> PathBuf {
        self.folder.join(format!("layer-{layer:05}"))
    }

    /// The tensors of a layer; `None` where it is not done, or its file is damaged.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn read(&self, layer: usize) -> Result<Option<Vec<Done>>> {
        match fs::read(self.path(layer)) {
            Ok(bytes) => Ok(decode(&bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => {
                Err(failed("cannot read the journal", &e)
                    .at(self.path(layer).display().to_string()))
            }
        }
    }

    /// Where the bytes of each tensor of a finished layer begin in its file.
    ///
    /// # Errors
    /// When the file is gone or damaged.
    pub(super) fn offsets(&self, layer: usize) -> Result<Vec<u64>> {
        let gone = || Error::resource("the journal was changed by somebody else").code("FB-5303");
        let record = fs::read(self.path(layer)).map_err(|_| gone())?;
        let tensors = decode(&record).ok_or_else(gone)?;
        let mut end = record.iter().position(|&b| b == b'\n').ok_or_else(gone)? + 1;
        let places = tensors.iter().map(|tensor| {
            let start = end + tensor.squares.len() * 4;
            end = start + tensor.bytes.len();
            start as u64
        });
        Ok(places.collect())
    }

    /// Keeps a layer; when this returns, it is on the disk.
    ///
    /// # Errors
    /// When writing fails.
    pub(super) fn write(&self, layer: usize, tensors: &[Done]) -> Result<()> {
        let mut output = OutputFile::create(&self.path(layer), &OutputOptions::default())?;
        let bytes = encode(tensors)?;
        output.write_all(&bytes).map_err(|e| failed("cannot write the journal", &e))?;
        output.commit().map(|_| ())
    }

    /// Notes that the output has all its bytes, in one file or several, and is about to appear
    /// under its name.
    ///
    /// # Errors
    /// When writing fails.
    pub(super) fn set_written(&self, bytes: u64) -> Result<()> {
        let text = bytes.to_string();
        let options = OutputOptions::default();
        write_file(&self.folder.join(WRITTEN), text.as_bytes(), &options).map(|_| ())
    }

    /// Whether the files are the finished output of this job, which was killed before it could
    /// remove the journal.
    pub(super) fn is_written(&self, files: &[PathBuf]) -> bool {
        let bytes: Option<u64> =
            files.iter().map(|file| Some(fs::metadata(file).ok()?.len())).sum();
        bytes.is_some() && bytes == self.noted()
    }

    /// Whether a file of `bytes` bytes is, as far as can be told, one that this job has brought to
    /// its name.
    pub(super) fn has_written(&self, file: &Path, bytes: u64) -> bool {
        self.noted().is_some() && fs::metadata(file).is_ok_and(|m| m.len() == bytes)
    }

    /// Bytes of the output, once it has all of them.
    fn noted(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join(WRITTEN)).ok()?.parse().ok()
    }

    /// Removes the folder.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder)
            .map_err(|e| failed("cannot remove the journal", &e))
            .at(|| self.folder.display().to_string())
    }
}

fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::resource(format!("{what}: {error}")).code("FB-5301")
}

/// Removes what killed processes left half-written beside the output.
pub(super) fn remove_remains(out: &Path) {
    let (Some(folder), Some(name)) = (out.parent(), out.file_name().and_then(|n| n.to_str()))
    else {
        return;
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let prefix = format!("{name}.partial-");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let process = name.to_str().and_then(|n| n.strip_prefix(&prefix));
        let process = process.and_then(|p| p.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|p| Path::new("/proc/self").exists() && !alive(p)) {
            // What cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn alive(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

/// A line of JSON, the numbers of each tensor, a hash of everything before.
fn encode(tensors: &[Done]) -> Result<Vec<u8>> {
    let entry = |t: &Done| Entry {
        name: t.name.clone(),
        bytes: t.bytes.len(),
        columns: t.squares.len(),
        tokens: t.tokens,
        loss: [t.loss.error.to_bits(), t.loss.signal.to_bits()],
    };
    let head = Head { tensors: tensors.iter().map(entry).collect() };
    let mut out = serde_json::to_vec(&head).map_err(|e| Error::internal(e.to_string()))?;
    out.push(b'\n');
    for tensor in tensors {
        out.extend(tensor.squares.iter().flat_map(|x| x.to_le_bytes()));
        out.extend(&tensor.bytes);
    }
    let hash = Sha256::digest(&out);
    out.extend_from_slice(&hash);
    Ok(out)
}

fn decode(record: &[u8]) -> Option<Vec<Done>> {
    let (content, hash) = record.split_at_checked(record.len().checked_sub(HASH)?)?;
    if Sha256::digest(content).as_slice() != hash {
        return None;
    }
    let end = content.iter().position(|&b| b == b'\n')?;
    let head: Head = serde_json::from_slice(&content[..end]).ok()?;
    let mut rest = &content[end + 1..];
    let mut take = |len: usize| -> Option<&[u8]> {
        let (taken, left) = rest.split_at_checked(len)?;
        rest = left;
        Some(taken)
    };
    let tensors = head.tensors.into_iter().map(|entry| {
        let squares = take(entry.columns.checked_mul(4)?)?.as_chunks().0;
        let squares = squares.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let bytes = take(entry.bytes)?.to_vec();
        let [error, signal] = entry.loss.map(f64::from_bits);
        let (name, tokens) = (entry.name, entry.tokens);
        Some(Done { name, loss: Loss { error, signal }, squares, tokens, bytes })
    });
    tensors.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> Vec<Done> {
        let loss = Loss { error: 0.1, signal: f64::MIN_POSITIVE };
        let (squares, bytes) = (vec![1.0, 0.3], vec![1, 2, b'\n']);
        vec![Done { name: "blk.0.x.weight".into(), loss, squares, tokens: 7, bytes }]
    }

    #[test]
    fn records_come_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.gguf");
        let journal = Journal::open(&out, "a job").unwrap();
        assert_eq!(journal.read(3).unwrap(), None);
        journal.write(3, &layer()).unwrap();
        assert_eq!(journal.read(3).unwrap(), Some(layer()));
        let whole = fs::read(journal.path(3)).unwrap();
        for len in 0..whole.len() {
            fs::write(journal.path(3), &whole[..len]).unwrap();
            assert_eq!(journal.read(3).unwrap(), None);
        }
        journal.remove().unwrap();
        assert!(!folder(&out).exists());
    }

    #[test]
    fn another_job_or_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.gguf");
        let journal = Journal::open(&out, "a job").unwrap();
        let error = Journal::open(&out, "a job").err().unwrap();
        assert_eq!(error.stable_code(), "FB-2702");
        drop(journal);
        let error = Journal::open(&out, "another").err().unwrap();
        assert_eq!(error.stable_code(), "FB-3715");
        Journal::open(&out, "a job").unwrap();
    }

    #[test]
    fn remains_of_the_dead_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            format!("out.partial-{}", std::process::id()),
            "out.partial-4294967294".to_string(),
            "other.partial-4294967294".to_string(),
        ];
        names.iter().for_each(|name| fs::write(dir.path().join(name), b"").unwrap());
        remove_remains(&dir.path().join("out"));
        let left: Vec<bool> = names.iter().map(|n| dir.path().join(n).exists()).collect();
        assert_eq!(left, [true, false, true]);
    }
}
