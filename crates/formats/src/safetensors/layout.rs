//! Whether the tensors of a header fill the file exactly: no overlap, no hole, nothing left.

use super::header::Entry;
use fewbit_core::{DType, Error, Result, ResultExt, element_count};

/// Brings the entries into the order of their bytes, and holds each against its shape, its
/// neighbours and the `available` bytes.
pub(super) fn check(entries: &mut [Entry], available: usize) -> Result<()> {
    for entry in entries.iter() {
        check_size(entry).at(|| place(entry))?;
    }
    entries.sort_by_key(|e| (e.range.start, e.range.end));
    let mut filled = 0;
    for entry in entries.iter() {
        let start = entry.range.start;
        if entry.range.end > available {
            return Err(cut_off(entry, available)).at(|| place(entry));
        }
        if start != filled {
            let found =
                if start < filled { "overlaps the tensor before it" } else { "leaves a hole" };
            let what = format!("begins at {start} and {found}, which ends at {filled}");
            return Err(Error::bad_input(what).code("FB-3507")).at(|| place(entry));
        }
        filled = entry.range.end;
    }
    if filled == available {
        return Ok(());
    }
    Err(Error::bad_input(format!("{} bytes follow the last tensor", available - filled))
        .code("FB-3508")
        .hint("the file is damaged, or holds a second one"))
}

fn place(entry: &Entry) -> String {
    format!("tensor {:?}", entry.name)
}

fn cut_off(entry: &Entry, available: usize) -> Error {
    Error::bad_input(format!(
        "bytes {} to {} of the data leave the file, which has {available}",
        entry.range.start, entry.range.end
    ))
    .code("FB-3506")
    .hint("the file is cut off: download or copy it again")
}

/// Bytes that a shape needs.
pub(super) fn byte_len(dtype: DType, shape: &[usize]) -> Result<usize> {
    let wrong = |what: String| Error::bad_input(what).code("FB-3505").at("shape");
    let bits = element_count(shape).and_then(|count| count.checked_mul(dtype.bits()));
    match bits {
        None => Err(wrong(format!("a {dtype} tensor of shape {shape:?} has no size"))),
        Some(bits) if bits % 8 != 0 => {
            Err(wrong(format!("{bits} bits of {dtype} do not end on a byte")))
        }
        Some(bits) => Ok(bits / 8),
    }
}

fn check_size(entry: &Entry) -> Result<()> {
    let Entry { dtype, shape, range, .. } = entry;
    let (need, found) = (byte_len(*dtype, shape)?, range.len());
    if need != found {
        let what = format!("{dtype} {shape:?} needs {need} bytes, found {found}");
        return Err(Error::bad_input(what).code("FB-3505").at("shape"));
    }
    Ok(())
}
