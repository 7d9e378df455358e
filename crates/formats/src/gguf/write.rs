//! Writing: the head first, then tensor after tensor in chunks of any size.

use super::parts::Part;
use super::value::{Array, Value};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, GgufTensor, Metadata, TensorInfo, header, layout};
use crate::atomic::{OutputFile, OutputOptions, commit_all};
use crate::fill::{Filling, Slot};
use crate::mmap::shown;
use fewbit_core::{Error, Result, ResultExt};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// The version that is written.
const VERSION: u32 = 3;

/// A GGUF file, or all files of a split model, under construction in bounded memory.
///
/// Metadata and the types of all tensors are known before the first byte of data. Then each
/// tensor is given in the order of the list, whole or in chunks. Files appear under their names
/// only when [`finish`](Writer::finish) succeeds; dropping the writer leaves nothing.
///
/// ```
/// use fewbit_core::codec::block::BlockType;
/// use fewbit_formats::{atomic::OutputOptions, gguf::{Metadata, TensorInfo, Writer, read}};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("x.gguf");
/// let metadata: Metadata = [("general.architecture", "llama")].into_iter().collect();
/// let norm = TensorInfo { name: "output_norm.weight".into(), shape: vec![8], ty: BlockType::F32 };
/// let mut writer = Writer::create(&path, &metadata, &[norm], &OutputOptions::default())?;
/// writer.write("output_norm.weight", &[0; 24])?;
/// writer.write("output_norm.weight", &[0; 8])?;
/// writer.finish()?;
/// assert_eq!(read(&path)?.require("output_norm.weight")?.shape, [8]);
/// # Ok::<(), fewbit_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer {
    /// Files that are not full yet.
    parts: VecDeque<Filling>,
    /// Files that wait for the others.
    complete: Vec<OutputFile>,
}

impl Writer {
    /// Checks everything, reserves the space of the whole file and writes the head.
    ///
    /// Tensors are padded to `general.alignment` where the metadata sets it, else to 32 bytes.
    /// `options.expected_bytes` is computed here.
    ///
    /// # Errors
    /// When the description is not one that [`read`](super::read) takes back (the codes are the
    /// same), or see [`OutputFile::create`](crate::atomic::OutputFile::create).
    pub fn create(
        path: &Path,
        metadata: &Metadata,
        tensors: &[TensorInfo],
        options: &OutputOptions,
    ) -> Result<Writer> {
        Writer::new([filling(path, metadata, tensors, options)?].into())
    }

    /// As [`create`](Writer::create), for the files into which [`divide`](super::divide) divides
    /// `tensors`; the space of all of them is reserved.
    ///
    /// # Errors
    /// As `create`.
    pub fn create_parts(
        paths: &[PathBuf],
        parts: &[Part],
        tensors: &[TensorInfo],
        options: &OutputOptions,
    ) -> Result<Writer> {
        let part = |(path, part): (&PathBuf, &Part)| {
            let tensors = tensors.get(part.tensors.clone());
            let tensors = tensors.ok_or_else(|| Error::internal("a part of another model"))?;
            filling(path, &part.metadata, tensors, options)
        };
        Writer::new(paths.iter().zip(parts).map(part).collect::<Result<_>>()?)
    }

    fn new(parts: VecDeque<Filling>) -> Result<Writer> {
        let mut writer = Writer { parts, complete: Vec::new() };
        writer.advance()?;
        Ok(writer)
    }

    /// Takes files that are full to the disk, but for the last one.
    fn advance(&mut self) -> Result<()> {
        while self.parts.len() > 1 && self.next_tensor().is_none() {
            let full = self.parts.pop_front().map(Filling::complete).transpose()?;
            self.complete.extend(full);
        }
        Ok(())
    }

    /// The tensor that comes next and how many of its bytes are missing; `None` when all are
    /// written. Tensors without elements are passed over.
    pub fn next_tensor(&self) -> Option<(&str, usize)> {
        self.parts.front().and_then(Filling::next)
    }

    /// Appends bytes to the tensor `name`, which must be the next one.
    ///
    /// # Errors
    /// When writing fails; an internal error when another tensor is due, or fewer bytes.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.parts.front_mut() {
            Some(part) => part.write(name, bytes)?,
            None => return Err(Error::internal("a writer without files")),
        }
        self.advance()
    }

    /// Brings the files to the disk and to their final names, the first one last: without it no
    /// program reads the others. Gives the number of their bytes.
    ///
    /// # Errors
    /// When the disk fails; an internal error when bytes are missing. No file of a split model is
    /// there then.
    pub fn finish(mut self) -> Result<u64> {
        for part in self.parts {
            self.complete.push(part.complete()?);
        }
        if !self.complete.is_empty() {
            self.complete.rotate_left(1);
        }
        commit_all(self.complete)
    }
}

fn filling(
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorInfo],
    options: &OutputOptions,
) -> Result<Filling> {
    let plan = plan(metadata, tensors).at(|| format!("output {}", shown(path)))?;
    Filling::create(path, &plan.head, plan.slots, options)
}

/// Bytes that a file of this content has.
///
/// # Errors
/// See [`Writer::create`].
pub fn file_size(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<u64> {
    Ok(plan(metadata, tensors)?.bytes())
}

/// Writes tensors that are in memory, or mapped, as they are.
///
/// # Errors
/// See [`Writer::create`].
pub fn write<'t>(
    path: &Path,
    metadata: &Metadata,
    tensors: impl IntoIterator<Item = &'t GgufTensor> + Clone,
    options: &OutputOptions,
) -> Result<u64> {
    let infos: Vec<TensorInfo> = tensors.clone().into_iter().map(|t| t.info.clone()).collect();
    let mut writer = Writer::create(path, metadata, &infos, options)?;
    for tensor in tensors {
        writer.write(&tensor.name, tensor.bytes.as_ref())?;
    }
    writer.finish()
}

/// The layout of one file.
pub(super) struct Plan {
    head: Vec<u8>,
    pub(super) slots: Vec<Slot>,
    pub(super) alignment: usize,
}

impl Plan {
    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = self.slots.iter().map(|slot| (slot.len + slot.padding) as u64);
        self.head.len() as u64 + bytes.sum::<u64>()
    }
}

pub(super) fn plan(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<Plan> {
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        Some(Value::U32(value)) => (*value).max(1) as usize,
        _ => DEFAULT_ALIGNMENT,
    };
    let mut slots = Vec::with_capacity(tensors.len());
    let mut offsets = Vec::with_capacity(tensors.len());
    let mut end = 0usize;
    for info in tensors {
        let len = info.byte_len().at(|| format!("tensor {:?}", info.name))?;
        offsets.push(end as u64);
        let next = end.checked_add(len).and_then(|next| next.checked_next_multiple_of(alignment));
        let next = next
            .filter(|&next| i64::try_from(next).is_ok())
            .ok_or_else(|| Error::bad_input("the tensors together have no size").code("FB-3611"))?;
        slots.push(Slot { name: info.name.clone(), len, padding: next - end - len });
        end = next;
    }
    let mut head = encode(metadata, tensors, &offsets);
    check(&head, end)?;
    if !tensors.is_empty() {
        head.resize(head.len().next_multiple_of(alignment), 0);
    }
    Ok(Plan { head, slots, alignment })
}

/// What the reader would refuse is not written.
fn check(head: &[u8], data: usize) -> Result<()> {
    let header = header::read(head)?;
    layout::ranges(&header, header.data.saturating_add(data))?;
    let mut names: Vec<&str> = header.tensors.iter().map(|(info, _)| info.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(Error::bad_input(format!("tensor {:?} stands twice", pair[0])).code("FB-3610"))
        }
        None => Ok(()),
    }
}

pub(super) fn encode(metadata: &Metadata, tensors: &[TensorInfo], offsets: &[u64]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        text(&mut out, key);
        out.extend(value.type_id().to_le_bytes());
        encode_value(&mut out, value);
    }
    for (info, offset) in tensors.iter().zip(offsets) {
        text(&mut out, &info.name);
        out.extend((info.shape.len() as u32).to_le_bytes());
        info.shape.iter().rev().for_each(|&size| out.extend((size as u64).to_le_bytes()));
        out.extend(info.ty.ggml_id().to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn encode_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.push(*v as u8),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => text(out, v),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
        Value::Array(array) => encode_array(out, array),
    }
}

fn encode_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.type_id().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => out.extend(v.iter().map(|&v| v as u8)),
        Array::U16(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::Bool(v) => out.extend(v.iter().map(|&v| u8::from(v))),
        Array::String(v) => v.iter().for_each(|v| text(out, v)),
        Array::U64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|v| out.extend(v.to_le_bytes())),
    }
}
