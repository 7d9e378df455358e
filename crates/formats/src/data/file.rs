//! Opening files that others wrote: regular files only, with a size known before the first byte.

use crate::mmap::cannot_open;
use fewbit_core::{Error, Result};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A regular file, read at offsets without a shared cursor, so that threads may share it.
///
/// Reading goes through the operating system rather than a mapping: a file that shrinks
/// while it is open gives an error, never a fault.
#[derive(Debug)]
pub(crate) struct InputFile {
    file: File,
    len: u64,
}

impl InputFile {
    /// Opens `path`; directories, pipes and devices are refused before they are read.
    pub(crate) fn open(path: &Path) -> Result<InputFile> {
        let file = open_regular(path)?;
        let len = file.metadata().map_err(|e| io_error(&e).at(show(path)))?.len();
        Ok(InputFile { file, len })
    }

    /// Size in bytes when the file was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buf` from `offset`.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        read_exact_at(&self.file, offset, buf)
            .map_err(|e| io_error(&e).at(format!("{} bytes at offset {offset}", buf.len())))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buf.is_empty() {
        match file.seek_read(buf, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                offset += n as u64;
                buf = &mut buf[n..];
            }
        }
    }
    Ok(())
}

/// Opens a regular file for reading.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    // Opening a pipe would block, so its kind is asked first.
    let meta = std::fs::metadata(path).map_err(|e| cannot_open(e).at(show(path)))?;
    if !meta.is_file() {
        let kind = if meta.is_dir() { "a folder" } else { "a pipe or a device" };
        let error = Error::bad_input(format!("expected a file, found {kind}"));
        return Err(error.code("FB-3300").at(show(path)));
    }
    File::open(path).map_err(|e| cannot_open(e).at(show(path)))
}

/// Reads a whole file of at most `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open_regular(path)?;
    let len = file.metadata().map_err(|e| io_error(&e).at(show(path)))?.len();
    let mut bytes = Vec::with_capacity(len.min(limit) as usize + 1);
    // One byte more than allowed tells a full file from a longer one, also while it grows.
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|e| io_error(&e).at(show(path)))?;
    if bytes.len() as u64 > limit {
        let what = format!("the file has {len} bytes; at most {limit} are read here");
        return Err(Error::bad_input(what).code("FB-3300").at(show(path)));
    }
    Ok(bytes)
}

/// Damage is the file's fault (exit 3), everything else the system's (exit 5).
pub(crate) fn io_error(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::bad_input("the file ends too early").code("FB-3300"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::bad_input(format!("damaged data: {error}")).code("FB-3300")
        }
        _ => Error::resource(format!("cannot read: {error}")).code("FB-5300"),
    }
}

/// A path for messages: control characters escaped, so that a file name cannot steer a terminal.
pub(crate) fn show(path: &Path) -> String {
    show_text(&path.to_string_lossy())
}

/// Like [`show`], for names found inside files.
pub(crate) fn show_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_devices_are_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let e = open_regular(folder.path()).unwrap_err();
        assert_eq!((e.stable_code(), e.kind().exit_code()), ("FB-3300", 3));
        #[cfg(unix)]
        assert!(open_regular(Path::new("/dev/zero")).unwrap_err().what().contains("device"));
    }

    #[test]
    fn a_missing_file_is_named_with_advice() {
        let e = open_regular(Path::new("no such file")).unwrap_err();
        assert_eq!((e.stable_code(), e.kind().exit_code()), ("FB-3001", 3));
        assert!(e.place().contains("no such file") && e.advice().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_device_that_fails_is_told() {
        // Nothing is mapped at address 0: reading there is an error of the device.
        let file = InputFile { file: File::open("/proc/self/mem").unwrap(), len: 100 };
        let e = file.read_at(0, &mut [0; 10]).unwrap_err();
        assert_eq!((e.stable_code(), e.kind().exit_code()), ("FB-5300", 5));
        assert!(e.what().contains("Input/output error"), "{e}");
    }

    #[test]
    fn a_shrunken_file_gives_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, [1u8; 100]).unwrap();
        let file = InputFile::open(&path).unwrap();
        std::fs::write(&path, [1u8; 10]).unwrap();
        let e = file.read_at(50, &mut [0; 10]).unwrap_err();
        assert_eq!(e.kind().exit_code(), 3);
        assert_eq!(e.place(), "10 bytes at offset 50");
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(show_text("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
    }
}
