//! Where the data of the tensors lies: one after the other, padded to the alignment.

use super::header::Header;
use fewbit_core::{Error, Result, ResultExt};
use std::ops::Range;

/// The bytes of each tensor, counted from the start of a file of `available` bytes.
///
/// # Errors
/// When a size overflows, a tensor is not where its predecessors end, or leaves the file.
pub(super) fn ranges(header: &Header, available: usize) -> Result<Vec<Range<usize>>> {
    let mut ranges = Vec::with_capacity(header.tensors.len());
    let mut next = 0usize;
    for (index, (info, offset)) in header.tensors.iter().enumerate() {
        let place = || format!("tensor[{index}] {:?}", info.name);
        let len = info.byte_len().at(place)?;
        check_offset(*offset, next, header.alignment).at(place)?;
        let start = header.data.checked_add(next).filter(|&start| start <= available);
        // A tensor without elements may stand behind the end, where padding was left out.
        let range = match start {
            Some(start) if len <= available - start => start..start + len,
            None if len == 0 => available..available,
            _ => return Err(cut_off(len, next, available.saturating_sub(header.data))).at(place),
        };
        let end =
            next.checked_add(len).and_then(|end| end.checked_next_multiple_of(header.alignment));
        next = end
            .ok_or_else(|| Error::bad_input("the data has no size").code("FB-3611").at(place()))?;
        ranges.push(range);
    }
    Ok(ranges)
}

fn check_offset(offset: u64, next: usize, alignment: usize) -> Result<()> {
    if offset == next as u64 {
        return Ok(());
    }
    let what = if offset.is_multiple_of(alignment as u64) {
        format!("is {offset}; the tensors before end at {next}")
    } else {
        format!("is {offset}, no multiple of the alignment {alignment}")
    };
    Err(Error::bad_input(what).code("FB-3612").at("offset"))
}

fn cut_off(len: usize, offset: usize, available: usize) -> Error {
    let what = format!("{len} bytes at offset {offset} leave the data of {available} bytes");
    Error::bad_input(what).code("FB-3613").hint("the file is cut off: download or copy it again")
}
