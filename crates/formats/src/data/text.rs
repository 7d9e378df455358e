//! Text that others wrote: UTF-8 without NUL, in lines of a bounded length.

use super::file::read_limited;
use fewbit_core::{Error, Result};
use std::path::Path;

/// Largest text file that is read whole.
const MAX_TEXT_BYTES: u64 = 256 << 20;
/// Longest line; a longer one is no list and no table.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Reads a text file whole and checks it.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = read_limited(path, MAX_TEXT_BYTES)?;
    check_lines(&bytes)?;
    utf8(&bytes)?;
    String::from_utf8(bytes).map_err(|_| Error::internal("checked text is not UTF-8"))
}

/// The bytes as text.
///
/// # Errors
/// `FB-3350` for a NUL, `FB-3351` for invalid UTF-8, with the byte offset.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str> {
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        let error = Error::bad_input("a NUL byte: this is not text").code("FB-3350");
        return Err(error.at(format!("byte {at}")));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        let error = Error::bad_input("the text is not valid UTF-8").code("FB-3351");
        error.at(format!("byte {}", e.valid_up_to())).hint("save the file as UTF-8")
    })
}

fn check_lines(bytes: &[u8]) -> Result<()> {
    for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if line.len() > MAX_LINE_BYTES {
            let what = format!("a line of {} bytes; at most {MAX_LINE_BYTES}", line.len());
            return Err(Error::bad_input(what).code("FB-3352").at(format!("line {}", number + 1)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> (&'static str, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.txt");
        std::fs::write(&path, bytes).unwrap();
        let e = read_text(&path).unwrap_err();
        assert_eq!(e.kind().exit_code(), 3);
        (e.stable_code(), e.place())
    }

    #[test]
    fn damaged_text_is_refused_with_its_place() {
        assert_eq!(refused(b"a\nb\0c"), ("FB-3350", "byte 3".into()));
        assert_eq!(refused(b"abc\xff\xfe"), ("FB-3351", "byte 3".into()));
        let mut long = b"x\n".to_vec();
        long.resize(3 << 20, b'y');
        assert_eq!(refused(&long), ("FB-3352", "line 2".into()));
    }
}
