//! The older form, `.dat`: for each tensor its name, a number of calls, and means times calls.
//!
//! It has no magic number, so everything in it is held against what can be.

use super::{Entry, ImportanceMatrix, none};
use crate::gguf::Cursor;
use crate::limits::MAX_TENSORS;
use fewbit_core::{Error, Result, ResultExt};

/// Longest name of a tensor or of a data set.
const MAX_TEXT: u32 = 4096;

pub(super) fn read(bytes: &[u8]) -> Result<ImportanceMatrix> {
    let mut from = Cursor::new(bytes, 0);
    let count = from.u32().map_err(|_| none("the file has less than 4 bytes"))?;
    if !(1..=MAX_TENSORS as u32).contains(&count) {
        return Err(none("no importance matrix, in neither form"));
    }
    let mut found = ImportanceMatrix::default();
    for index in 0..count {
        let (name, entry) = entry(&mut from).at(|| format!("entry[{index}]"))?;
        if found.entries.insert(name.clone(), entry).is_some() {
            let what = format!("tensor {name:?} stands twice");
            return Err(Error::bad_input(what).code("FB-3704").at(format!("entry[{index}]")));
        }
    }
    if from.left() > 0 {
        found.chunk_count = from.u32().at(|| "number of chunks")?;
    }
    if from.left() > 0 {
        let dataset = text(&mut from).at(|| "data set")?;
        found.datasets.extend(Some(dataset).filter(|name| !name.is_empty()));
    }
    match from.left() {
        0 => Ok(found),
        left => Err(none("no importance matrix, in neither form")
            .at(format!("byte {}: {left} bytes follow the end", from.position()))),
    }
}

fn text(from: &mut Cursor) -> Result<String> {
    let at = from.position();
    let length = from.u32()?;
    if length > MAX_TEXT {
        let what = "no importance matrix, in neither form";
        return Err(none(what).at(format!("byte {at}: a text of {length} bytes")));
    }
    let bytes = from.take(length.into())?;
    let text = std::str::from_utf8(bytes).map_err(|_| {
        Error::bad_input("a text is not UTF-8").code("FB-3604").at(format!("byte {}", at + 4))
    })?;
    Ok(text.to_string())
}

fn entry(from: &mut Cursor) -> Result<(String, Entry)> {
    let name = text(from)?;
    let calls = i32::from_le_bytes(from.u32()?.to_le_bytes());
    if calls < 0 {
        return Err(Error::bad_input(format!("{calls} calls")).code("FB-3703"));
    }
    let count = values(from)?;
    let values = from.take(u64::from(count) * 4)?;
    let sums: Vec<f32> = bytemuck::pod_collect_to_vec(values);
    // Without calls the values count as they are.
    Ok((name, Entry { sums, counts: vec![calls.max(1) as f32] }))
}

/// Number of values of an entry.
fn values(from: &mut Cursor) -> Result<u32> {
    let at = from.position();
    match from.u32()? {
        count @ 1..=0x7fff_ffff => Ok(count),
        count => Err(Error::bad_input(format!("{} values", count as i32))
            .code("FB-3702")
            .at(format!("byte {at}"))),
    }
}

/// Encodes the matrix; what the form cannot say (counts of each matrix, several data sets) is
/// lost, the importance is not.
pub(super) fn encode(imatrix: &ImportanceMatrix) -> Result<Vec<u8>> {
    let mut out = count(imatrix.entries.len())?;
    for (name, entry) in &imatrix.entries {
        out.extend(length(name)?);
        out.extend(name.as_bytes());
        let calls = calls(entry, imatrix.chunk_size);
        out.extend((calls as i32).to_le_bytes());
        out.extend(count(entry.sums.len())?);
        let scaled = entry.means().into_iter().map(|mean| mean * calls);
        scaled.for_each(|value| out.extend(value.to_le_bytes()));
    }
    out.extend(imatrix.chunk_count.to_le_bytes());
    let dataset = imatrix.datasets.last().map_or("", String::as_str);
    out.extend(length(dataset)?);
    out.extend(dataset.as_bytes());
    Ok(out)
}

/// Chunks behind the sums, at least one; exact below 2^24.
fn calls(entry: &Entry, chunk_size: u32) -> f32 {
    let tokens = entry.counts.iter().copied().fold(0.0, f32::max);
    (tokens / chunk_size.max(1) as f32).ceil().clamp(1.0, 16_777_216.0)
}

fn count(count: usize) -> Result<Vec<u8>> {
    let count = i32::try_from(count)
        .map_err(|_| Error::unsupported(format!("{count} are too many")).code("FB-3702"))?;
    Ok(count.to_le_bytes().to_vec())
}

fn length(text: &str) -> Result<Vec<u8>> {
    if text.len() > MAX_TEXT as usize {
        let what = format!("a name has {} bytes; at most {MAX_TEXT} fit", text.len());
        return Err(Error::unsupported(what).code("FB-3702"));
    }
    count(text.len())
}
