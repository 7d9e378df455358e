//! Safetensors: a JSON header, then the bytes of all tensors
//! (<https://huggingface.co/docs/safetensors>).
//!
//! [`read`] takes a file, a folder in the layout of Hugging Face, or the index of such a folder;
//! tensors are views into the mapped files. Everything the header says is checked before it
//! returns: the tensors lie one after the other, fill the file exactly, and have the size that
//! their shape needs.
//!
//! ```no_run
//! let model = fewbit_formats::safetensors::read("SmolLM2-135M".as_ref())?;
//! let norm = model.require("model.norm.weight")?;
//! println!("{} {:?} {} bytes", norm.dtype, norm.shape, norm.bytes.as_ref().len());
//! # Ok::<(), fewbit_core::Error>(())
//! ```
//!
//! [`Writer`] writes one file in bounded memory, chunk after chunk, [`FolderWriter`] a folder.
//!
//! # Stable codes
//!
//! | code | meaning |
//! |---|---|
//! | FB-3001 to FB-3005 | the file cannot be opened, is no regular file, is empty, is of no known format, changed meanwhile |
//! | FB-3501, FB-3502 | the length of the header is no valid one; the header is damaged JSON |
//! | FB-3503, FB-3504 | a key stands twice; a field is missing or of the wrong kind |
//! | FB-3505, FB-3506 | a shape has no size, or another one than the bytes; a tensor leaves the file |
//! | FB-3507, FB-3508 | tensors overlap or leave a hole; bytes follow the last tensor |
//! | FB-3509 | the metadata is no map from text to text |
//! | FB-3510, FB-3511, FB-3512 | the index of a folder is damaged; names a file that is outside, missing or named twice; contradicts the files |
//! | FB-3513, FB-3514 | a folder without safetensors, or with several and no index; no tensor of that name |
//! | FB-3515 | `config.json` is damaged |
//! | FB-4501, FB-4502, FB-4503 | unknown element type; too many dimensions; too many tensors |

mod folder;
mod header;
mod json;
mod layout;
mod shards;
mod write;

use crate::detect::{self, Format};
use crate::mmap::{self, InputFile, shown};
use bytes::Bytes;
use fewbit_core::{AlignedBytes, DType, Error, Result, ResultExt, SharedBytes, Tensor};
use std::collections::HashSet;
use std::path::Path;

pub use folder::{INDEX_NAME, read_config};
pub use shards::{DEFAULT_SHARD_BYTES, FolderWriter};
pub use write::{TensorSpec, Writer, sort};

/// One tensor as it is stored.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Its name, from an untrusted file: escape it before it reaches a terminal.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its elements, little-endian and dense, exactly as many as the shape needs; at any address.
    pub bytes: SharedBytes,
    /// Index into [`SafetensorsFile::files`]; 0 for a file read from memory.
    pub file: usize,
}

impl StoredTensor {
    /// The tensor over the same bytes; only booleans other than 0 and 1 are copied, as 1.
    ///
    /// # Errors
    /// Never for a tensor that was read.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let bytes = self.bytes.as_ref();
        if self.dtype == DType::Bool && bytes.iter().any(|&b| b > 1) {
            let clean: Vec<u8> = bytes.iter().map(|&b| (b != 0) as u8).collect();
            let clean = AlignedBytes::copy_of(&clean).into();
            return Tensor::from_bytes(self.dtype, self.shape.clone(), clean);
        }
        Tensor::from_bytes(self.dtype, self.shape.clone(), self.bytes.clone())
    }
}

/// The tensors of one safetensors file, or of all files of a folder.
#[derive(Debug, Default)]
pub struct SafetensorsFile {
    tensors: Vec<StoredTensor>,
    /// Indices of `tensors`, by name.
    by_name: Vec<usize>,
    metadata: Vec<(String, String)>,
    files: Vec<InputFile>,
}

impl SafetensorsFile {
    /// All tensors, in the order of their bytes, file after file.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        let found = self.by_name.binary_search_by(|&i| self.tensors[i].name.as_str().cmp(name));
        found.ok().map(|i| &self.tensors[self.by_name[i]])
    }

    /// The tensor of this name, or an error that names it.
    ///
    /// # Errors
    /// When there is none.
    pub fn require(&self, name: &str) -> Result<&StoredTensor> {
        self.get(name).ok_or_else(|| {
            let place = self.files.first().map(|f| shown(f.path())).unwrap_or_default();
            Error::bad_input(format!("has no tensor {name:?}")).code("FB-3514").at(place)
        })
    }

    /// `__metadata__`, in the order of the file; that of the first file for a folder.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The files that were read; none when read from memory.
    pub fn files(&self) -> &[InputFile] {
        &self.files
    }

    /// Bytes of all tensors together.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes.as_ref().len() as u64).sum()
    }

    /// Fails when one of the files has changed on disk since it was opened; a long job calls it
    /// before it relies on what it read.
    ///
    /// # Errors
    /// When another program has changed a file.
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(InputFile::check_unchanged)
    }

    /// Adds the tensors of one more file.
    fn add(&mut self, bytes: &Bytes, from: Option<&InputFile>) -> Result<()> {
        let (mut header, data) = header::read(bytes).map_err(|e| other_format(bytes, e))?;
        layout::check(&mut header.tensors, data.len())?;
        if self.tensors.is_empty() {
            self.metadata = header.metadata;
        }
        let file = self.files.len();
        let owner = mmap::owner(data, from);
        for entry in header.tensors {
            let bytes = SharedBytes::view(owner.clone(), entry.range.clone())
                .ok_or_else(|| Error::internal("a checked tensor leaves its file"))?;
            let header::Entry { name, dtype, shape, .. } = entry;
            self.tensors.push(StoredTensor { name, dtype, shape, bytes, file });
        }
        Ok(())
    }

    /// Sorts the names; no name may stand twice.
    fn index(&mut self) -> Result<()> {
        let mut by_name: Vec<usize> = (0..self.tensors.len()).collect();
        by_name.sort_by(|&a, &b| self.tensors[a].name.cmp(&self.tensors[b].name));
        let twin = by_name.windows(2).find(|w| self.tensors[w[0]].name == self.tensors[w[1]].name);
        if let Some(&[first, second]) = twin {
            return Err(self.twice(first, second));
        }
        self.by_name = by_name;
        Ok(())
    }

    fn twice(&self, first: usize, second: usize) -> Error {
        let (first, second) = (&self.tensors[first], &self.tensors[second]);
        if first.file == second.file {
            return Error::bad_input(format!("key {:?} stands twice", first.name)).code("FB-3503");
        }
        let path =
            |t: &StoredTensor| self.files.get(t.file).map(|f| shown(f.path())).unwrap_or_default();
        let (a, b) = (path(first), path(second));
        Error::bad_input(format!("tensor {:?} stands in {a} and in {b}", first.name))
            .code("FB-3512")
            .hint("files of two models lie in one folder, or the folder is damaged")
    }
}

/// Reads a safetensors file, a folder of them, or the `.safetensors.index.json` of a folder.
///
/// A folder is read by its `model.safetensors.index.json` if there is one, else its
/// `model.safetensors`, else the only `.safetensors` file in it.
///
/// # Errors
/// When something is damaged or contradicts itself (`BadInput`), or is of a kind that fewbit
/// does not know (`Unsupported`). The place names the file and the tensor or byte.
pub fn read(path: &Path) -> Result<SafetensorsFile> {
    if path.is_dir() {
        return folder::read(path);
    }
    if path.to_string_lossy().ends_with(".safetensors.index.json") {
        return folder::read_index(path);
    }
    read_files([path.to_path_buf()])
}

/// Reads one safetensors file from memory; tensors are views into `bytes`.
///
/// # Errors
/// See [`read`].
pub fn read_bytes(bytes: &Bytes) -> Result<SafetensorsFile> {
    let mut found = SafetensorsFile::default();
    found.add(bytes, None)?;
    found.index()?;
    Ok(found)
}

/// Reads these files as one model.
fn read_files(paths: impl IntoIterator<Item = std::path::PathBuf>) -> Result<SafetensorsFile> {
    let mut found = SafetensorsFile::default();
    let mut seen = HashSet::new();
    for path in paths {
        let file = InputFile::open(&path)?;
        if !seen.insert(file.identity()) {
            return Err(Error::bad_input("is another name of a file named before")
                .code("FB-3511")
                .at(shown(&path)));
        }
        found.add(file.bytes(), Some(&file)).at(|| shown(&path))?;
        found.files.push(file);
    }
    found.index().map_err(|e| match &found.files[..] {
        [only] => e.at(shown(only.path())),
        _ => e,
    })?;
    found.check_unchanged()?;
    Ok(found)
}

/// Says what a file is that begins with no valid header.
fn other_format(bytes: &[u8], error: Error) -> Error {
    match detect::detect(bytes) {
        Some(format) if format != Format::Safetensors && error.stable_code() == "FB-3501" => {
            Error::bad_input(format!("expected a safetensors file, found {}", format.name()))
                .code("FB-3004")
        }
        _ => error,
    }
}
