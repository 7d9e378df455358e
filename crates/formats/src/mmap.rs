//! Opening input files: mapped, bounded, and never anything but a regular file.
//!
//! **Policy.** Inputs are opened read-only and without blocking, so a pipe, a socket, a device
//! or a directory is refused instead of waited for. Files up to [`MAX_READ_BYTES`] are read into
//! memory once, after which nothing that happens to the file matters; larger ones are mapped
//! privately. Either way weights are views into these bytes and never copied; those of a mapped
//! file cost no memory until they are used.
//!
//! A mapped file that another program truncates while it is in use ends the process with
//! `SIGBUS` at the next touch of a missing page; no program that maps files can rule that out.
//! What can be done is done: every range is checked against the length before it is first
//! touched, and [`InputFile::check_unchanged`] compares length and modification time with the
//! file on disk, so that a reader calls it after its walk and a long job before it writes.
//! Replacing a file by renaming another one over it is always safe: the map keeps the old file.
//!
//! Pages of a map that were touched count towards the memory of the process. A job that has
//! copied what it needs gives them back with [`InputFile::release_pages`]; tensors that view a
//! file can do so for their own part.

#![allow(unsafe_code)]

use crate::limits::{MAX_READ_BYTES, MAX_TEXT_BYTES};
use bytes::Bytes;
use fewbit_core::{Backing, Error, Owner, Result};
use memmap2::{Mmap, UncheckedAdvice};
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open input file with its bytes; clones share both.
#[derive(Clone, Debug)]
pub struct InputFile {
    path: PathBuf,
    file: Arc<File>,
    seen: Metadata,
    bytes: Bytes,
    map: Option<Arc<Mmap>>,
}

/// A map as the owner of [`Bytes`].
struct MapOwner(Arc<Mmap>);

impl AsRef<[u8]> for MapOwner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A part of a file as memory of tensors.
struct Part {
    bytes: Bytes,
    map: Option<Arc<Mmap>>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Backing for Part {
    fn release(&self, range: Range<usize>) {
        if let (Some(map), Some(part)) = (&self.map, self.bytes.get(range)) {
            release(map, part);
        }
    }
}

/// Bytes as memory of tensors. Where they are a part of `file`, and it is mapped, they can be
/// released.
pub(crate) fn owner(bytes: Bytes, file: Option<&InputFile>) -> Owner {
    Arc::new(Part { bytes, map: file.and_then(|file| file.map.clone()) })
}

/// Pages are released in units of this size, a multiple of that of every system's pages.
const RELEASED: usize = 64 << 10;

/// Takes the pages of a part of a map out of memory, and those beside it that share its units;
/// does nothing for bytes that lie elsewhere.
fn release(map: &Mmap, part: &[u8]) {
    let Some(start) = (part.as_ptr() as usize).checked_sub(map.as_ptr() as usize) else { return };
    let Some(end) = start.checked_add(part.len()).filter(|&end| end <= map.len()) else { return };
    let (start, end) = (start - start % RELEASED, map.len().min(end.next_multiple_of(RELEASED)));
    if start < end {
        // SAFETY: as in `InputFile::release_pages`; the range lies within the map.
        let released =
            unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        // It is advice: where the system refuses it, the pages stay.
        drop(released);
    }
}

impl InputFile {
    /// Opens and maps (or, when small, reads) a regular file.
    ///
    /// # Errors
    /// When it cannot be opened, is empty, or is no regular file.
    pub fn open(path: &Path) -> Result<InputFile> {
        Self::open_at(path).map_err(|e| e.at(shown(path)))
    }

    /// Opens a file of text, such as an index, that is read into memory as a whole.
    ///
    /// # Errors
    /// See [`open`](InputFile::open); also when it is larger than [`MAX_TEXT_BYTES`].
    pub fn open_small(path: &Path) -> Result<InputFile> {
        let file = Self::open(path)?;
        let len = file.bytes().len();
        if len > MAX_TEXT_BYTES {
            let what = format!("{len} bytes; files of this kind have at most {MAX_TEXT_BYTES}");
            return Err(Error::bad_input(what).code("FB-3006").at(shown(path)));
        }
        Ok(file)
    }

    fn open_at(path: &Path) -> Result<InputFile> {
        // Opening a pipe or a device may block or have effects, so look before opening too.
        refuse_special(&std::fs::metadata(path).map_err(cannot_open)?)?;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(path)
            .map_err(cannot_open)?;
        let seen = file.metadata().map_err(cannot_open)?;
        refuse_special(&seen)?;
        let (bytes, map) = load(&mut file, seen.len())?;
        let file = Arc::new(file);
        Ok(InputFile { path: path.to_path_buf(), file, seen, bytes, map })
    }

    /// The content. Clones and slices share it and keep it alive.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Reads bytes from `offset` on into `out`, past the map: pages that are touched there count
    /// as memory of this process.
    ///
    /// # Errors
    /// When the system cannot read them.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(out, offset).map_err(|e| {
            Error::resource(format!("cannot read: {e}")).code("FB-5303").at(shown(&self.path))
        })
    }

    /// Takes the pages of a mapped file out of the memory of this process; what is touched again
    /// comes back from the file. Files that were read instead of mapped stay in memory.
    pub fn release_pages(&self) {
        let Some(map) = &self.map else { return };
        // SAFETY: the map is private and read-only and was never written to, so no change can be
        // lost: a page that is touched again holds what the file holds, as when it was first
        // touched. The addresses stay mapped, so that all views remain valid.
        let released = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        // It is advice: where the system refuses it, the pages stay.
        drop(released);
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode: what makes two paths the same file.
    pub fn identity(&self) -> (u64, u64) {
        (self.seen.dev(), self.seen.ino())
    }

    /// Fails when the file on disk has another length or modification time than when opened.
    ///
    /// # Errors
    /// When another program has changed the file.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(cannot_open)?;
        let same = now.len() == self.seen.len()
            && (now.mtime(), now.mtime_nsec()) == (self.seen.mtime(), self.seen.mtime_nsec());
        if same {
            return Ok(());
        }
        Err(Error::bad_input(format!(
            "the file changed while it was read ({} bytes before, {} now)",
            self.seen.len(),
            now.len()
        ))
        .code("FB-3005")
        .at(shown(&self.path))
        .hint("let the program that writes it finish, then try again"))
    }
}

fn load(file: &mut File, len: u64) -> Result<(Bytes, Option<Arc<Mmap>>)> {
    if len == 0 {
        return Err(Error::bad_input("the file is empty").code("FB-3003"));
    }
    if len > MAX_READ_BYTES {
        let map = Arc::new(map(file)?);
        return Ok((Bytes::from_owner(MapOwner(Arc::clone(&map))), Some(map)));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    // One byte more than expected tells a growing file from a whole one.
    let read = file.take(len + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::resource(format!("cannot read: {e}")).code("FB-5201"))?;
    if bytes.len() as u64 != len {
        return Err(Error::bad_input(format!(
            "the file changed while it was read ({len} bytes before, {} now)",
            bytes.len()
        ))
        .code("FB-3005"));
    }
    Ok((bytes.into(), None))
}

fn map(file: &File) -> Result<Mmap> {
    // SAFETY: the map is private and read-only, the file was opened read-only, and the bytes are
    // only ever read as plain `u8`. Another process may still write to or truncate the file: its
    // writes can change what we read, which every parser here withstands because nothing that
    // was checked is read a second time for an address or a length; truncation ends the process
    // (see the module documentation) and never exposes memory that is not the file's.
    let map = unsafe { memmap2::MmapOptions::new().map(file) };
    map.map_err(|e| Error::resource(format!("cannot map: {e}")).code("FB-5202"))
}

/// What is wrong with the path is the caller's fault (exit 3), everything else the system's.
pub(crate) fn cannot_open(error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    let hint = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
            "check the path"
        }
        ErrorKind::InvalidInput => "a path holds no NUL",
        ErrorKind::PermissionDenied => "give the current user read permission",
        _ => return Error::resource(format!("cannot open: {error}")).code("FB-5203"),
    };
    Error::bad_input(format!("cannot open: {error}")).code("FB-3001").hint(hint)
}

fn refuse_special(seen: &Metadata) -> Result<()> {
    let kind = seen.file_type();
    let found = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "no regular file",
    };
    let error = Error::bad_input(format!("expected a file, found {found}")).code("FB-3002");
    Err(if kind.is_dir() { error.hint("give the name of a file in it") } else { error })
}

/// A path for messages; control characters are escaped, so that no name can write to a terminal.
pub fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let shown = text.chars().flat_map(|c| {
        let escaped: Vec<char> =
            if c.is_control() { c.escape_default().collect() } else { vec![c] };
        escaped
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> Error {
        InputFile::open(path).expect_err("must be refused")
    }

    #[test]
    fn special_files_are_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(refused(dir.path()).stable_code(), "FB-3002");
        assert_eq!(refused(Path::new("/dev/zero")).stable_code(), "FB-3002");
        assert_eq!(refused(&dir.path().join("missing")).stable_code(), "FB-3001");

        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(refused(&socket).stable_code(), "FB-3002");

        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert_eq!(refused(&pipe).stable_code(), "FB-3002");
    }

    #[test]
    fn a_device_that_fails_is_told() {
        // Nothing is mapped at address 0: reading there is an error of the device.
        let mut memory = File::open("/proc/self/mem").unwrap();
        let error = load(&mut memory, 100).unwrap_err();
        assert_eq!((error.stable_code(), error.kind().exit_code()), ("FB-5201", 5));
        assert!(error.what().contains("Input/output error"), "{error}");
    }

    #[test]
    fn empty_files_are_refused_and_names_are_escaped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a\x1b[2Jb");
        std::fs::write(&path, b"").unwrap();
        let error = refused(&path);
        assert_eq!(error.stable_code(), "FB-3003");
        assert!(!error.to_string().contains('\x1b'), "{error}");
    }

    #[test]
    fn small_and_large_files_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        for len in [1, MAX_READ_BYTES as usize, MAX_READ_BYTES as usize + 1] {
            let path = dir.path().join("x");
            let content: Vec<u8> = (0..len).map(|i| i as u8).collect();
            std::fs::write(&path, &content).unwrap();
            let file = InputFile::open(&path).unwrap();
            assert!(file.bytes()[..] == content[..]);
            file.check_unchanged().unwrap();
        }
    }

    #[test]
    fn released_pages_read_the_same_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let content: Vec<u8> = (0..=MAX_READ_BYTES as usize).map(|i| (i / 7) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = InputFile::open(&path).unwrap();
        assert!(file.bytes()[..] == content[..]);
        assert!(resident_kilobytes(file.bytes()) >= MAX_READ_BYTES / 1024);
        file.release_pages();
        assert_eq!(resident_kilobytes(file.bytes()), 0);
        assert!(file.bytes()[..] == content[..]);
    }

    #[test]
    fn a_part_is_released_by_the_tensor_that_views_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let content: Vec<u8> = (0..=MAX_READ_BYTES as usize).map(|i| (i / 5) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = InputFile::open(&path).unwrap();
        assert!(file.bytes()[..] == content[..]);
        let before = resident_kilobytes(file.bytes());
        let (first, last) = (100_000, 1_100_000);
        let part = owner(file.bytes().slice(first..last), Some(&file));
        let view = fewbit_core::SharedBytes::view(part, 0..last - first).unwrap();
        view.release();
        assert!(resident_kilobytes(file.bytes()) <= before - 900);
        assert!(view.as_ref() == &content[first..last]);
        // Bytes of somewhere else are left alone.
        owner(Bytes::from(vec![7; 200_000]), Some(&file)).release(0..200_000);
        assert!(file.bytes()[..] == content[..]);
    }

    /// Memory of the one map that `bytes` lie in; other tests map files at the same time.
    fn resident_kilobytes(bytes: &[u8]) -> u64 {
        let start = format!("{:x}-", bytes.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|l| !l.starts_with(&start));
        let rss = lines.find_map(|l| l.strip_prefix("Rss:")).unwrap();
        rss.trim().strip_suffix("kB").unwrap().trim().parse().unwrap()
    }

    #[test]
    fn a_file_that_shrinks_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for len in [1 << 20, MAX_READ_BYTES as usize + 1] {
            std::fs::write(&path, vec![1u8; len]).unwrap();
            let file = InputFile::open(&path).unwrap();
            OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
            assert_eq!(file.check_unchanged().unwrap_err().stable_code(), "FB-3005");
            // What was read stays; what is mapped must not be touched any more.
            assert!(len as u64 > MAX_READ_BYTES || file.bytes().iter().all(|&b| b == 1));
        }
    }
}
