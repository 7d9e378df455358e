//! The head of a file: version, metadata, and what it says of each tensor.

use super::cursor::Cursor;
use super::metadata::Metadata;
use super::value::Value;
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAX_NAME, TensorInfo};
use crate::limits::{MAX_ALIGNMENT, MAX_METADATA_ENTRIES, MAX_TENSORS};
use fewbit_core::codec::block::BlockType;
use fewbit_core::{Error, Result, ResultExt};

/// Dimensions of one tensor, as ggml has them.
const MAX_DIMS: u32 = 4;

/// Bytes that an entry takes at least: length and type of an empty key with a one-byte value.
const SMALLEST_ENTRY: usize = 8 + 4 + 1;

/// Bytes that the description of a tensor takes at least.
const SMALLEST_TENSOR: usize = 8 + 4 + 4 + 8;

/// What the head of a file says; nothing in it is held against the data yet.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<(TensorInfo, u64)>,
    pub(super) alignment: usize,
    /// Where the data of the tensors begins.
    pub(super) data: usize,
}

/// Decodes the head of a file.
pub(super) fn read(bytes: &[u8]) -> Result<Header> {
    let mut from = Cursor::new(bytes, 4);
    let version = version(&mut from).at(|| "header: version")?;
    let tensors = count(&mut from, MAX_TENSORS).at(|| "header: number of tensors")?;
    let entries = count(&mut from, MAX_METADATA_ENTRIES).at(|| "header: number of keys")?;
    let entries = fits(entries, from.left(), SMALLEST_ENTRY).at(|| "header: number of keys")?;
    let metadata = metadata(&mut from, entries)?;
    let alignment = alignment(&metadata)?;
    let tensors = fits(tensors, from.left(), SMALLEST_TENSOR).at(|| "header: number of tensors")?;
    let mut infos = Vec::with_capacity(tensors);
    for index in 0..tensors {
        infos.push(tensor(&mut from, index)?);
    }
    let data = from.position().next_multiple_of(alignment);
    Ok(Header { version, metadata, tensors: infos, alignment, data })
}

fn version(from: &mut Cursor) -> Result<u32> {
    match from.u32()? {
        version @ (2 | 3) => Ok(version),
        0 => Err(Error::bad_input("is 0; 2 and 3 are allowed").code("FB-3601")),
        1 => Err(Error::unsupported("is 1; 2 and 3 are read")
            .code("FB-4601")
            .hint("convert the model again with a newer tool")),
        other if other & 0xffff == 0 => {
            Err(Error::unsupported("the file is for big-endian machines")
                .code("FB-4602")
                .hint("convert it with gguf_convert_endian of llama.cpp"))
        }
        other => Err(Error::unsupported(format!("is {other}; 2 and 3 are read"))
            .code("FB-4601")
            .hint("the file is damaged, or newer than this fewbit")),
    }
}

fn count(from: &mut Cursor, most: usize) -> Result<usize> {
    let count = from.u64()?;
    if count > i64::MAX as u64 {
        return Err(Error::bad_input(format!("{} is negative", count as i64)).code("FB-3602"));
    }
    match usize::try_from(count).ok().filter(|&count| count <= most) {
        Some(count) => Ok(count),
        None => {
            Err(Error::unsupported(format!("{count}; at most {most} are read")).code("FB-4604"))
        }
    }
}

/// Refuses a count that the bytes left cannot hold, before anything is allocated for it.
fn fits(count: usize, left: usize, smallest: usize) -> Result<usize> {
    if count <= left / smallest {
        return Ok(count);
    }
    Err(Error::bad_input(format!("{count} cannot lie in the {left} bytes left"))
        .code("FB-3602")
        .hint("the file is cut off or damaged: download or copy it again"))
}

fn metadata(from: &mut Cursor, entries: usize) -> Result<Metadata> {
    let mut metadata = Metadata::default();
    for index in 0..entries {
        let key = from.text().at(|| format!("metadata[{index}]: key"))?;
        check_key(key, &metadata).at(|| format!("metadata[{index}]"))?;
        let value = Value::read(from).at(|| format!("metadata[{index}] {key:?}"))?;
        metadata.set(key, value);
    }
    Ok(metadata)
}

fn check_key(key: &str, before: &Metadata) -> Result<()> {
    let wrong = |what: String| Err(Error::bad_input(what).code("FB-3605"));
    match key.len() {
        0 => wrong("the key is empty".into()),
        1..=0xffff if before.get(key).is_none() => Ok(()),
        1..=0xffff => wrong(format!("key {key:?} stands twice")),
        long => wrong(format!("the key has {long} bytes; at most 65535 are allowed")),
    }
}

fn alignment(metadata: &Metadata) -> Result<usize> {
    let wrong = |what: String| {
        let what = format!("{what}; a power of two up to {MAX_ALIGNMENT} is allowed, as u32");
        Error::bad_input(what).code("FB-3609").at(format!("metadata {ALIGNMENT_KEY:?}"))
    };
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(value)) => {
            let usable = |&value: &usize| value.is_power_of_two() && value <= MAX_ALIGNMENT;
            let size = usize::try_from(*value).ok().filter(usable);
            size.ok_or_else(|| wrong(format!("is {value}")))
        }
        Some(other) => Err(wrong(format!("is of type {}", other.type_name()))),
    }
}

fn tensor(from: &mut Cursor, index: usize) -> Result<(TensorInfo, u64)> {
    let name = from.text().at(|| format!("tensor[{index}]: name"))?;
    if !(1..=MAX_NAME).contains(&name.len()) {
        let what = format!("the name has {} bytes; 1 to {MAX_NAME} are allowed", name.len());
        return Err(Error::bad_input(what).code("FB-3610").at(format!("tensor[{index}]")));
    }
    let described = described(from).at(|| format!("tensor[{index}] {name:?}"))?;
    let (shape, ty, offset) = described;
    Ok((TensorInfo { name: name.to_string(), shape, ty }, offset))
}

fn described(from: &mut Cursor) -> Result<(Vec<usize>, BlockType, u64)> {
    let dims = from.u32().at(|| "dimensions")?;
    if dims > MAX_DIMS {
        let what = format!("{dims} dimensions; at most {MAX_DIMS} are allowed");
        return Err(Error::bad_input(what).code("FB-3611"));
    }
    let mut shape = Vec::with_capacity(dims as usize);
    for axis in 0..dims {
        let size = from.u64().at(|| format!("ne[{axis}]"))?;
        let size = i64::try_from(size).ok().and_then(|size| usize::try_from(size).ok());
        shape.push(size.ok_or_else(|| {
            Error::bad_input("a size is negative").code("FB-3611").at(format!("ne[{axis}]"))
        })?);
    }
    shape.reverse();
    let ty = BlockType::from_ggml_id(from.u32().at(|| "type")?).at(|| "type")?;
    Ok((shape, ty, from.u64().at(|| "offset")?))
}
