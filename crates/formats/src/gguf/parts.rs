//! How a model is divided into files: `NAME-00001-of-00003.gguf` and so on, as llama.cpp's
//! gguf-split makes them.

use super::metadata::Metadata;
use super::split::{COUNT, NO, TENSORS, has_number, part_path};
use super::write::{Plan, encode, plan};
use super::{ALIGNMENT_KEY, TensorInfo};
use fewbit_core::{Error, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Files that are open at once while a model is written.
const MAX_PARTS: usize = 512;

/// How much one file of a model may hold. Without limits a model is one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartLimits {
    /// Most bytes of a file, head and padding included.
    pub bytes: Option<u64>,
    /// Most tensors in a file, at least one.
    pub tensors: Option<usize>,
}

impl PartLimits {
    /// Whether there is any limit.
    pub fn any(&self) -> bool {
        self.bytes.is_some() || self.tensors.is_some()
    }
}

/// One file of a model.
#[derive(Clone, Debug)]
pub struct Part {
    /// All metadata in the first part; in others only what says which part it is.
    pub metadata: Metadata,
    /// Which of the model's tensors are in it; the first part may have none.
    pub tensors: Range<usize>,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Divides a model into files: each takes as many tensors, in order, as the limits allow.
///
/// # Errors
/// When a tensor, or the metadata, is larger than a file may be; when there were more than 512
/// files; or see [`Writer::create`](super::Writer::create).
pub fn divide(
    metadata: &Metadata,
    tensors: &[TensorInfo],
    limits: PartLimits,
) -> Result<Vec<Part>> {
    let whole = plan(metadata, tensors)?;
    if !limits.any() {
        let (metadata, tensors) = (metadata.clone(), 0..tensors.len());
        return Ok(vec![Part { metadata, tensors, bytes: whole.bytes() }]);
    }
    let first = described(metadata.clone(), 0, 0, tensors.len())?;
    let mut other = Metadata::default();
    if let Some(alignment) = metadata.get(ALIGNMENT_KEY) {
        other.set(ALIGNMENT_KEY, alignment.clone());
    }
    let other = described(other, 0, 0, tensors.len())?;
    let ranges = ranges(&whole, tensors, [&first, &other], limits)?;
    let count = ranges.len();
    let parts = ranges.into_iter().enumerate().map(|(no, range)| {
        let metadata = if no == 0 { first.clone() } else { other.clone() };
        let metadata = described(metadata, no, count, tensors.len())?;
        let bytes = plan(&metadata, &tensors[range.clone()])?.bytes();
        Ok(Part { metadata, tensors: range, bytes })
    });
    parts.collect()
}

/// Says which part it is, in the types that llama.cpp wants.
fn described(mut metadata: Metadata, no: usize, count: usize, tensors: usize) -> Result<Metadata> {
    let number = |n: usize| u16::try_from(n).map_err(|_| too_many(n));
    metadata.set(NO, number(no)?);
    metadata.set(COUNT, number(count)?);
    let tensors = i32::try_from(tensors).map_err(|_| Error::unsupported("too many tensors"))?;
    metadata.set(TENSORS, tensors);
    Ok(metadata)
}

fn too_many(files: usize) -> Error {
    let what = format!("{files} files; at most {MAX_PARTS} are written");
    Error::usage(what).code("FB-2104").hint("choose larger files")
}

/// A file that is being filled.
#[derive(Clone, Copy)]
struct Open {
    head: u64,
    data: u64,
    tensors: usize,
}

impl Open {
    fn with(self, head: u64, data: u64) -> Open {
        Open { head: self.head + head, data: self.data + data, tensors: self.tensors + 1 }
    }

    fn bytes(self, alignment: u64) -> u64 {
        let head =
            if self.tensors == 0 { self.head } else { self.head.next_multiple_of(alignment) };
        head + self.data
    }
}

/// The tensors of each file; `heads` is the metadata of the first and of any other.
fn ranges(
    whole: &Plan,
    tensors: &[TensorInfo],
    heads: [&Metadata; 2],
    limits: PartLimits,
) -> Result<Vec<Range<usize>>> {
    let [first, other] = heads.map(|metadata| {
        let head = encode(metadata, &[], &[]).len() as u64;
        Open { head, data: 0, tensors: 0 }
    });
    let alignment = whole.alignment as u64;
    let fits = |open: Open| {
        open.tensors <= limits.tensors.unwrap_or(usize::MAX).max(1)
            && open.bytes(alignment) <= limits.bytes.unwrap_or(u64::MAX)
    };
    if !fits(first) {
        return Err(too_small("the metadata takes", first.bytes(alignment)));
    }
    let mut ranges = Vec::new();
    let (mut open, mut begin) = (first, 0);
    for (index, (info, slot)) in tensors.iter().zip(&whole.slots).enumerate() {
        // Name, rank, sizes, type and offset.
        let head = (8 + info.name.len() + 4 + 8 * info.shape.len() + 4 + 8) as u64;
        let data = (slot.len + slot.padding) as u64;
        if fits(open.with(head, data)) {
            open = open.with(head, data);
            continue;
        }
        ranges.push(begin..index);
        (open, begin) = (other.with(head, data), index);
        if !fits(open) {
            let what = format!("tensor {:?} alone takes", info.name);
            return Err(too_small(&what, open.bytes(alignment)));
        }
    }
    ranges.push(begin..tensors.len());
    match ranges.len() {
        count if count > MAX_PARTS => Err(too_many(count)),
        _ => Ok(ranges),
    }
}

fn too_small(what: &str, bytes: u64) -> Error {
    Error::usage(format!("{what} {bytes} bytes, a file may have less"))
        .code("FB-2106")
        .hint(format!("allow files of {bytes} bytes or more"))
}

/// The paths of `count` files: `path` itself for a model that is not split, else `path` with a
/// number before its ending.
///
/// # Errors
/// When the name of a split model does not end in `.gguf`, or has a number already.
pub fn part_paths(path: &Path, count: usize, limits: PartLimits) -> Result<Vec<PathBuf>> {
    if !limits.any() {
        return Ok(vec![path.to_path_buf()]);
    }
    let wrong = |what: &str| {
        Error::usage(what)
            .code("FB-2103")
            .hint("give NAME.gguf; the files will be NAME-00001-of-0000N.gguf")
            .at(format!("output {}", crate::mmap::shown(path)))
    };
    let is_gguf = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    let stem = path.file_stem().filter(|_| is_gguf);
    let stem = stem.ok_or_else(|| wrong("the name of a split model must end in .gguf"))?;
    if has_number(&stem.to_string_lossy()) {
        return Err(wrong("the name is that of a part already"));
    }
    let prefix = path.with_file_name(stem);
    Ok((0..count).map(|no| part_path(&prefix, no, count)).collect())
}
