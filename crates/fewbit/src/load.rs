//! From a file to a model, by content.

use fewbit_core::{Error, Model, Result, ResultExt};
use fewbit_formats::mmap::{InputFile, shown};
use fewbit_formats::onnx;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A model with where it came from.
pub struct Source {
    /// Path as given.
    pub path: PathBuf,
    /// The model as the file says it.
    pub model: Model,
    /// All files it was read from: the model file first, then external data.
    pub files: Vec<PathBuf>,
    /// Size of all files together.
    pub bytes: u64,
    /// Wall time of reading.
    pub seconds: f64,
    opened: Vec<InputFile>,
}

impl Source {
    /// A model that is in memory, for jobs that want a [`Source`]; `bytes` is its size as a file.
    pub fn in_memory(name: &str, model: Model, bytes: u64) -> Self {
        Source {
            path: PathBuf::from(name),
            model,
            files: Vec::new(),
            bytes,
            seconds: 0.0,
            opened: Vec::new(),
        }
    }

    /// Gives the memory of weights back that were read from a mapped file; they are read again
    /// when they are wanted again.
    pub fn release_pages(&self) {
        self.opened.iter().for_each(InputFile::release_pages);
    }

    /// Checks that no other program has changed the files since they were opened.
    ///
    /// # Errors
    /// When one did; what was computed may then belong to neither version.
    pub fn check_unchanged(&self) -> Result<()> {
        self.opened.iter().try_for_each(InputFile::check_unchanged)
    }

    /// SHA-256 of all files one after another, hexadecimal; empty for models in memory.
    ///
    /// # Errors
    /// When a file cannot be read again.
    pub fn sha256(&self) -> Result<String> {
        if self.files.is_empty() { Ok(String::new()) } else { sha256_of(&self.files) }
    }
}

/// Reads a model, whatever its name says: the content decides.
///
/// Weights stay views into the mapped file.
///
/// # Errors
/// When the file is damaged (`BadInput`), or of a format or version that is not read
/// (`Unsupported`, with how to convert it).
pub fn load(path: &Path) -> Result<Source> {
    let started = Instant::now();
    let (model, opened) = onnx::read_with_files(path)?;
    Ok(Source {
        path: path.to_path_buf(),
        model,
        files: opened.iter().map(|f| f.path().to_path_buf()).collect(),
        bytes: opened.iter().map(|f| f.bytes().len() as u64).sum(),
        seconds: started.elapsed().as_secs_f64(),
        opened,
    })
}

/// SHA-256 over the content of files, in order, hexadecimal.
pub(crate) fn sha256_of(files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files {
        digest(path, &mut hash).at(|| shown(path))?;
    }
    let mut text = String::new();
    for byte in hash.finalize().iter() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

fn digest(path: &Path, hash: &mut Sha256) -> Result<()> {
    let cannot_read = |e: std::io::Error| Error::resource(format!("cannot read: {e}"));
    let mut file = File::open(path).map_err(cannot_read)?;
    let mut block = vec![0; 1 << 18];
    loop {
        match file.read(&mut block).map_err(cannot_read)? {
            0 => return Ok(()),
            n => hash.update(&block[..n]),
        }
    }
}
