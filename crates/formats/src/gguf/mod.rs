//! GGUF: metadata, then the tensors of a language model in the block formats of ggml
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), versions 2 and 3.
//!
//! [`read`] takes a file or any part of a split model; tensors are views into the mapped files.
//! Everything the head says is checked before it returns: every tensor lies where the ones
//! before it end, within the file, and has whole blocks in a row.
//!
//! ```no_run
//! let model = fewbit_formats::gguf::read("SmolLM2-135M.Q4_1.gguf".as_ref())?;
//! let layers: usize = model.metadata().require("llama.block_count")?;
//! let tokens: &[String] = model.metadata().require("tokenizer.ggml.tokens")?;
//! let q = model.require("blk.0.attn_q.weight")?;
//! println!("{layers} {} {} {:?} {}", tokens.len(), q.ty, q.shape, q.bytes.as_ref().len());
//! # Ok::<(), fewbit_core::Error>(())
//! ```
//!
//! [`Writer`] writes a file in bounded memory, chunk after chunk, or several, into which
//! [`divide`] divides a model; [`write()`] writes tensors that were read, as they are.
//!
//! # Stable codes
//!
//! | code | meaning |
//! |---|---|
//! | FB-2103, FB-2104, FB-2106 | the name of an output; too many files; a tensor is larger than a file may be |
//! | FB-3001 to FB-3005 | the file cannot be opened, is no regular file, is empty, is of no known format, changed meanwhile |
//! | FB-3601, FB-3602 | version 0; a number of tensors or keys that cannot be |
//! | FB-3603, FB-3604 | the file ends within its head; a text is not UTF-8 or a boolean neither 0 nor 1 |
//! | FB-3605, FB-3606, FB-3607 | a key is empty, too long or stands twice; a value is of another type than needed; is missing |
//! | FB-3608, FB-3609 | a value of unknown type; no valid alignment |
//! | FB-3610, FB-3611 | a tensor name is empty, too long or stands twice; a shape is damaged, too large or no whole number of blocks |
//! | FB-3612, FB-3613 | a tensor is not where it should be; leaves the file |
//! | FB-3614, FB-3615 | parts of a split model do not fit together; no tensor of that name |
//! | FB-4101 | a tensor type that is unknown or was removed |
//! | FB-4601 to FB-4604 | another version; big-endian; arrays of arrays; too many tensors or keys |

mod cursor;
mod header;
mod layout;
mod metadata;
mod parts;
mod split;
mod value;
mod write;

use crate::detect;
use crate::mmap::{self, InputFile, shown};
use bytes::Bytes;
use fewbit_core::codec::block::BlockType;
use fewbit_core::{DType, Error, Result, ResultExt, SharedBytes, Tensor};
use std::ops::Deref;
use std::path::Path;

pub(crate) use cursor::Cursor;
pub use metadata::{FromValue, Metadata};
pub use parts::{Part, PartLimits, divide, part_paths};
pub use split::part_path;
pub use value::{Array, Value};
pub use write::{Writer, file_size, write};

/// The key that says to what multiple the data of tensors is padded.
pub const ALIGNMENT_KEY: &str = "general.alignment";

/// Padding where the metadata says nothing of it.
pub const DEFAULT_ALIGNMENT: usize = 32;

/// Longest name of a tensor, in bytes, that llama.cpp reads.
pub const MAX_NAME: usize = 63;

/// What the head of a file says of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, from an untrusted file: escape it before it reaches a terminal.
    pub name: String,
    /// Dimensions, outermost first as everywhere in fewbit; the last one counts elements of a
    /// row, which is a whole number of blocks. [`ne`](TensorInfo::ne) has the order of the file.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub ty: BlockType,
}

impl TensorInfo {
    /// Dimensions in the order of ggml, innermost first.
    pub fn ne(&self) -> Vec<usize> {
        self.shape.iter().rev().copied().collect()
    }

    /// Elements of one row; 1 for a scalar.
    pub fn row_elements(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows; 1 for a vector or a scalar. 0 where the product overflows, which
    /// [`byte_len`](TensorInfo::byte_len) refuses.
    pub fn rows(&self) -> usize {
        let outer = self.shape.split_last().map_or(&[][..], |(_, outer)| outer);
        fewbit_core::element_count(outer).unwrap_or(0)
    }

    /// Bytes of all rows, without padding.
    ///
    /// # Errors
    /// When a row is no whole number of blocks, or the product overflows.
    pub fn byte_len(&self) -> Result<usize> {
        let wrong = |what: String| Error::bad_input(what).code("FB-3611");
        let row = self.ty.row_bytes(self.row_elements()).map_err(|e| e.code("FB-3611"))?;
        let outer = self.shape.split_last().map_or(&[][..], |(_, outer)| outer);
        // As ggml: not only the bytes but also the elements must be countable in 63 bits.
        let countable = |n: &usize| i64::try_from(*n).is_ok();
        let elements = fewbit_core::element_count(&self.shape).filter(countable);
        let bytes = fewbit_core::element_count(outer).and_then(|rows| rows.checked_mul(row));
        match (elements, bytes.filter(countable)) {
            (Some(0), _) => Ok(0),
            (Some(_), Some(bytes)) => Ok(bytes),
            _ => Err(wrong(format!("a {} tensor of shape {:?} has no size", self.ty, self.shape))),
        }
    }
}

/// One tensor as it is stored; its [`TensorInfo`] is reached through it.
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// Name, shape and type.
    pub info: TensorInfo,
    /// Its blocks, row after row, exactly as many as the shape needs.
    pub bytes: SharedBytes,
    /// Index into [`GgufFile::files`]; 0 for a file read from memory.
    pub file: usize,
}

impl Deref for GgufTensor {
    type Target = TensorInfo;

    fn deref(&self) -> &TensorInfo {
        &self.info
    }
}

impl GgufTensor {
    /// The tensor over the same bytes; `None` when it is stored in blocks.
    ///
    /// # Errors
    /// Never for a tensor that was read.
    pub fn to_plain(&self) -> Option<Result<Tensor>> {
        let dtype: DType = self.ty.dtype()?;
        Some(Tensor::from_bytes(dtype, self.shape.clone(), self.bytes.clone()))
    }

    /// The tensor as `F32`, whatever its type.
    ///
    /// # Errors
    /// When it is larger than one tensor in memory may be.
    pub fn to_f32(&self) -> Result<Tensor> {
        let mut tensor = Tensor::zeros(DType::F32, self.shape.clone())?;
        let out = tensor.as_mut_slice::<f32>()?;
        fewbit_core::codec::block::dequantize(self.ty, self.bytes.as_ref(), out)?;
        Ok(tensor)
    }
}

/// The content of a GGUF file, or of all parts of a split model.
#[derive(Debug)]
pub struct GgufFile {
    version: u32,
    metadata: Metadata,
    tensors: Vec<GgufTensor>,
    /// Indices of `tensors`, by name.
    by_name: Vec<usize>,
    files: Vec<InputFile>,
}

impl GgufFile {
    /// Version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata; of a split model that of the first part, without the `split.` keys.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the file, part after part.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&GgufTensor> {
        let found = self.by_name.binary_search_by(|&i| self.tensors[i].name.as_str().cmp(name));
        found.ok().map(|i| &self.tensors[self.by_name[i]])
    }

    /// The tensor of this name, or an error that names it.
    ///
    /// # Errors
    /// When there is none.
    pub fn require(&self, name: &str) -> Result<&GgufTensor> {
        self.get(name).ok_or_else(|| {
            let place = self.files.first().map(|f| shown(f.path())).unwrap_or_default();
            Error::bad_input(format!("has no tensor {name:?}")).code("FB-3615").at(place)
        })
    }

    /// The files that were read, in the order of parts; none when read from memory.
    pub fn files(&self) -> &[InputFile] {
        &self.files
    }

    /// Bytes of all tensors together, without padding.
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

    fn decode(bytes: &Bytes, file: Option<&InputFile>) -> Result<GgufFile> {
        require_magic(bytes)?;
        let header = header::read(bytes)?;
        let ranges = layout::ranges(&header, bytes.len())?;
        let owner = mmap::owner(bytes.clone(), file);
        let view = |(info, range)| {
            let bytes = SharedBytes::view(owner.clone(), range)
                .ok_or_else(|| Error::internal("a checked tensor leaves its file"))?;
            Ok(GgufTensor { info, bytes, file: 0 })
        };
        let infos = header.tensors.into_iter().map(|(info, _)| info);
        let tensors = infos.zip(ranges).map(view).collect::<Result<Vec<_>>>()?;
        let (version, metadata) = (header.version, header.metadata);
        let mut found =
            GgufFile { version, metadata, tensors, by_name: Vec::new(), files: Vec::new() };
        found.index()?;
        Ok(found)
    }

    /// Sorts the names; no name may stand twice.
    fn index(&mut self) -> Result<()> {
        let mut by_name: Vec<usize> = (0..self.tensors.len()).collect();
        by_name.sort_by(|&a, &b| self.tensors[a].name.cmp(&self.tensors[b].name));
        let twin = by_name.windows(2).find(|w| self.tensors[w[0]].name == self.tensors[w[1]].name);
        if let Some(&[_, second]) = twin {
            let name = &self.tensors[second].name;
            return Err(Error::bad_input(format!("tensor {name:?} stands twice")).code("FB-3610"));
        }
        self.by_name = by_name;
        Ok(())
    }
}

fn require_magic(bytes: &[u8]) -> Result<()> {
    if bytes.starts_with(b"GGUF") {
        return Ok(());
    }
    let what = match detect::detect(bytes) {
        Some(format) => format!("expected a GGUF file, found {}", format.name()),
        None if bytes.starts_with(b"FUGG") => "the file is for big-endian machines".to_string(),
        None => "expected a GGUF file, which begins with `GGUF`".to_string(),
    };
    Err(Error::bad_input(what).code("FB-3004"))
}

/// Reads a GGUF file; of a split model, all parts, whichever of them `path` names.
///
/// # Errors
/// When something is damaged or contradicts itself (`BadInput`), or is of a kind that fewbit
/// does not know (`Unsupported`). The place names the file, the key or tensor, and the byte.
pub fn read(path: &Path) -> Result<GgufFile> {
    let mut found = read_file(path)?;
    match split::parts(&found.metadata).at(|| shown(path))? {
        Some(count) => split::read(path, count),
        None => {
            split::forget(&mut found.metadata);
            Ok(found)
        }
    }
}

/// Reads a GGUF file from memory; tensors are views into `bytes`. A part of a split model is
/// read as it is.
///
/// # Errors
/// See [`read`].
pub fn read_bytes(bytes: &Bytes) -> Result<GgufFile> {
    GgufFile::decode(bytes, None)
}

fn read_file(path: &Path) -> Result<GgufFile> {
    let file = InputFile::open(path)?;
    let mut found = GgufFile::decode(file.bytes(), Some(&file)).at(|| shown(path))?;
    file.check_unchanged()?;
    found.files.push(file);
    Ok(found)
}
