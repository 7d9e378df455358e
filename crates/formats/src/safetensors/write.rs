//! Writing: the header first, then tensor after tensor in chunks of any size.

use super::header::{METADATA, dtype_name};
use super::{StoredTensor, layout};
use crate::atomic::OutputOptions;
use crate::fill::{Filling, Slot};
use crate::limits::{MAX_HEADER_BYTES, MAX_METADATA_ENTRIES, MAX_TENSORS};
use crate::mmap::shown;
use fewbit_core::{DType, Error, Result, ResultExt};
use serde_json::{Map, Value, json};
use std::path::Path;

/// What is said of a tensor before its bytes are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl From<&StoredTensor> for TensorSpec {
    fn from(stored: &StoredTensor) -> TensorSpec {
        let StoredTensor { name, dtype, shape, .. } = stored;
        TensorSpec { name: name.clone(), dtype: *dtype, shape: shape.clone() }
    }
}

impl TensorSpec {
    /// Bytes of the tensor.
    ///
    /// # Errors
    /// When the product overflows, or sub-byte elements do not end on a byte.
    pub fn byte_len(&self) -> Result<usize> {
        layout::byte_len(self.dtype, &self.shape).at(|| format!("tensor {:?}", self.name))
    }
}

/// Brings tensors into the order of the reference implementation: wide elements first, then by
/// name. Then every tensor is aligned for its own type.
pub fn sort(tensors: &mut [TensorSpec]) {
    tensors.sort_by(|a, b| b.dtype.bits().cmp(&a.dtype.bits()).then_with(|| a.name.cmp(&b.name)));
}

/// A safetensors file under construction, in bounded memory.
///
/// Names, types and shapes of all tensors are known before the first byte of data. Then each
/// tensor is given in the order of the list ([`sort`] brings it into the usual one), whole or in
/// chunks. The file appears under its name only when [`finish`](Writer::finish) succeeds;
/// dropping the writer leaves nothing.
///
/// ```
/// use fewbit_core::DType;
/// use fewbit_formats::{atomic::OutputOptions, safetensors::{TensorSpec, Writer, read}};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.safetensors");
/// let a = TensorSpec { name: "a".into(), dtype: DType::F16, shape: vec![2, 2] };
/// let metadata = [("format".to_string(), "pt".to_string())];
/// let mut writer = Writer::create(&path, &metadata, &[a], &OutputOptions::default())?;
/// writer.write("a", &[0; 6])?;
/// writer.write("a", &[0; 2])?;
/// writer.finish()?;
/// assert_eq!(read(&path)?.require("a")?.shape, [2, 2]);
/// # Ok::<(), fewbit_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer(pub(super) Filling);

impl Writer {
    /// Checks everything, reserves the space of the whole file and writes the header.
    /// `options.expected_bytes` is computed here.
    ///
    /// # Errors
    /// When the description is not one that [`read`](super::read) takes back (the codes are the
    /// same), or see [`OutputFile::create`](crate::atomic::OutputFile::create).
    pub fn create(
        path: &Path,
        metadata: &[(String, String)],
        tensors: &[TensorSpec],
        options: &OutputOptions,
    ) -> Result<Writer> {
        let place = || format!("output {}", shown(path));
        let head = head(metadata, tensors).at(place)?;
        let slot = |spec: &TensorSpec| {
            Ok(Slot { name: spec.name.clone(), len: spec.byte_len()?, padding: 0 })
        };
        let slots = tensors.iter().map(slot).collect::<Result<_>>().at(place)?;
        Filling::create(path, &head, slots, options).map(Writer)
    }

    /// The tensor that comes next and how many of its bytes are missing; `None` when all are
    /// written. Tensors without elements are passed over.
    pub fn next_tensor(&self) -> Option<(&str, usize)> {
        self.0.next()
    }

    /// Appends bytes to the tensor `name`, which must be the next one.
    ///
    /// # Errors
    /// When writing fails; an internal error when another tensor is due, or fewer bytes.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.0.write(name, bytes)
    }

    /// Brings the file to the disk and to its final name; the number of its bytes.
    ///
    /// # Errors
    /// When the disk fails; an internal error when bytes are missing.
    pub fn finish(self) -> Result<u64> {
        self.0.complete()?.commit()
    }
}

/// Length and header, padded with spaces so that the data begins at a multiple of 8.
fn head(metadata: &[(String, String)], tensors: &[TensorSpec]) -> Result<Vec<u8>> {
    let mut map = Map::new();
    if metadata.len() > MAX_METADATA_ENTRIES || tensors.len() > MAX_TENSORS {
        let what = format!("{} tensors, {} notes", tensors.len(), metadata.len());
        return Err(Error::unsupported(what).code("FB-4503"));
    }
    let texts: Map<String, Value> =
        metadata.iter().map(|(key, text)| (key.clone(), json!(text))).collect();
    if texts.len() < metadata.len() {
        return Err(Error::bad_input("a key of the metadata stands twice").code("FB-3503"));
    }
    if !texts.is_empty() {
        map.insert(METADATA.into(), texts.into());
    }
    let mut end = 0usize;
    for spec in tensors {
        if spec.name == METADATA {
            return Err(Error::bad_input("a tensor is called `__metadata__`").code("FB-3509"));
        }
        let begin = end;
        let next = begin.checked_add(spec.byte_len()?).filter(|&end| i64::try_from(end).is_ok());
        end = next
            .ok_or_else(|| Error::bad_input("the tensors together have no size").code("FB-3505"))?;
        let entry = entry(spec, begin, end).at(|| format!("tensor {:?}", spec.name))?;
        if map.insert(spec.name.clone(), entry).is_some() {
            return Err(
                Error::bad_input(format!("key {:?} stands twice", spec.name)).code("FB-3503")
            );
        }
    }
    let mut text = Value::from(map).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    if text.len() > MAX_HEADER_BYTES {
        let what = format!("the header has {} bytes; {MAX_HEADER_BYTES} are allowed", text.len());
        return Err(Error::unsupported(what).code("FB-4503").hint("write several files"));
    }
    Ok([&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat())
}

fn entry(spec: &TensorSpec, begin: usize, end: usize) -> Result<Value> {
    let dtype = dtype_name(spec.dtype).ok_or_else(|| {
        Error::unsupported(format!("safetensors have no element type {}", spec.dtype))
            .code("FB-4501")
    })?;
    if spec.shape.len() > crate::limits::MAX_RANK {
        let found = format!("{} dimensions are too many", spec.shape.len());
        return Err(Error::unsupported(found).code("FB-4502"));
    }
    Ok(json!({ "dtype": dtype, "shape": spec.shape, "data_offsets": [begin, end] }))
}
