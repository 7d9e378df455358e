//! Output files that are there whole or not at all.
//!
//! Bytes go to `OUT.partial-PID` beside the destination. [`OutputFile::commit`] brings them to
//! the disk, renames the file and brings the directory entry to the disk, so that neither a
//! crash nor `kill -9` leaves a damaged file under the final name. An output that is dropped
//! without a commit removes its partial file; a program that ends on a signal, and so drops
//! nothing, calls [`remove_partials`] before it exits.
//!
//! [`OutputFolder`] does the same for a folder with all that is in it, [`TemporaryFolder`] holds
//! what no commit shall make an output.
//!
//! Stable codes: FB-2101 the output is an input, FB-2102 it exists and must be kept, FB-2103 it is
//! no file name, FB-2105 it is a folder that holds something else, FB-5301 writing failed, FB-5302 the disk has too little space.

mod folder;
mod partials;
mod temporary;

pub use folder::OutputFolder;
pub use partials::{Ended, remove_partials};
pub use temporary::TemporaryFolder;

use crate::mmap::shown;
use fewbit_core::{Error, Result, ResultExt};
use partials::Partials;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::slice;

/// What an output file must respect.
#[derive(Clone, Debug, Default)]
pub struct OutputOptions {
    /// Files that are read by the same job; the output may be none of them.
    pub inputs: Vec<PathBuf>,
    /// Refuse to replace a file that exists.
    pub keep_existing: bool,
    /// Bytes that will be written at most; their space is reserved before the first one.
    pub expected_bytes: u64,
}

/// A file under construction; it implements [`Write`].
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    partial: PathBuf,
    keep_existing: bool,
    reserved: bool,
    file: Option<BufWriter<File>>,
    written: u64,
}

impl OutputFile {
    /// Checks the destination, makes its directory, reserves the space and opens the file.
    ///
    /// # Errors
    /// When the destination is an input or must be kept, the space does not suffice, or the
    /// directory cannot be written.
    pub fn create(path: &Path, options: &OutputOptions) -> Result<OutputFile> {
        Self::create_at(path, options).at(|| format!("output {}", shown(path)))
    }

    fn create_at(path: &Path, options: &OutputOptions) -> Result<OutputFile> {
        let path = ready_destination(path, options)?;
        let (partial, file) = open_partial(&path)?;
        let mut output = OutputFile {
            path,
            partial,
            keep_existing: options.keep_existing,
            reserved: false,
            file: None,
            written: 0,
        };
        output.reserved = reserve(&file, options.expected_bytes, &output.path)?;
        output.file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(output)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Brings all bytes to the disk, still under the partial name. Nothing can be written after.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn sync(&mut self) -> Result<()> {
        let Some(writer) = self.file.take() else { return Ok(()) };
        let sync = || {
            let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            if self.reserved {
                file.set_len(self.written)?;
            }
            file.sync_all()
        };
        sync().map_err(|e| write_failed(&self.path, &e))
    }

    /// Makes the file appear under its final name; the number of its bytes.
    ///
    /// # Errors
    /// When the bytes cannot be brought to the disk; the destination is then as before.
    pub fn commit(mut self) -> Result<u64> {
        self.sync()?;
        publish(slice::from_ref(&self))?;
        Ok(self.written)
    }

    /// Removes the output of an earlier run, if there is one.
    fn remove_existing(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed("cannot replace", &e).at(format!("output {}", shown(&self.path))))
            }
            _ => {
                sync_directory(&self.path);
                Ok(())
            }
        }
    }

    fn rename(&self) -> io::Result<()> {
        if self.keep_existing {
            // A link, unlike a rename, fails when somebody else made the file meanwhile.
            match fs::hard_link(&self.partial, &self.path) {
                Ok(()) => return fs::remove_file(&self.partial),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(e),
                Err(_) => {}
            }
        }
        fs::rename(&self.partial, &self.path)
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let count = file.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        // After a commit there is no file of this name any more.
        Partials::discard(&self.partial);
    }
}

/// Makes several files appear that only together are an output; programs find it by the last of
/// them. Gives the number of their bytes.
///
/// Until the last one is there, there is no output: an older file of its name is removed first,
/// and where one of them fails, those that appeared are removed.
///
/// # Errors
/// When bytes cannot be brought to the disk, or a file cannot get its name.
pub fn commit_all(mut outputs: Vec<OutputFile>) -> Result<u64> {
    outputs.iter_mut().try_for_each(OutputFile::sync)?;
    if let ([_, .., last], false) = (&outputs[..], outputs.iter().any(|o| o.keep_existing)) {
        last.remove_existing()?;
    }
    publish(&outputs)?;
    Ok(outputs.iter().map(|output| output.written).sum())
}

/// Gives files their names in one go: partial files are not removed between the first and the
/// last of them.
fn publish(outputs: &[OutputFile]) -> Result<()> {
    let _alone = Partials::lock();
    for (done, output) in outputs.iter().enumerate() {
        if let Err(error) = output.rename() {
            for appeared in &outputs[..done] {
                // The error below is what the user can do something about.
                let _ = fs::remove_file(&appeared.path);
            }
            return Err(failed("cannot rename the finished file", &error))
                .at(|| format!("output {}", shown(&output.path)));
        }
        sync_directory(&output.path);
    }
    Ok(())
}

/// Some file systems cannot sync a directory; what matters is safe without it.
fn sync_directory(path: &Path) {
    let _ = File::open(parent(path)).and_then(|dir| dir.sync_all());
}

/// Writes a whole file at once.
///
/// # Errors
/// See [`OutputFile::create`] and [`OutputFile::commit`].
pub fn write_file(path: &Path, bytes: &[u8], options: &OutputOptions) -> Result<u64> {
    let options = OutputOptions { expected_bytes: bytes.len() as u64, ..options.clone() };
    let mut output = OutputFile::create(path, &options)?;
    output.write_all(bytes).map_err(|e| write_failed(path, &e))?;
    output.commit()
}

/// The error of a failed write to `path`.
pub fn write_failed(path: &Path, error: &io::Error) -> Error {
    failed("cannot write", error).at(format!("output {}", shown(path)))
}

/// Checks a destination before any work is done for it.
///
/// # Errors
/// When it is a directory, a pipe or a device, one of the inputs (also through a link), or exists
/// and must be kept.
pub fn check_destination(path: &Path, options: &OutputOptions) -> Result<()> {
    check(path, options).at(|| format!("output {}", shown(path)))
}

fn check(path: &Path, options: &OutputOptions) -> Result<()> {
    if path.file_name().is_none() {
        return Err(Error::usage("the output has no file name").code("FB-2103"));
    }
    let Ok(existing) = fs::metadata(path) else { return Ok(()) };
    if existing.is_dir() {
        return Err(Error::usage("the output is a directory")
            .code("FB-2103")
            .hint("give the name of a file in it"));
    }
    if !existing.is_file() {
        return Err(Error::usage("the output is no regular file, and would be replaced by one")
            .code("FB-2103")
            .hint("choose another name for the output"));
    }
    if let Some(input) = options.inputs.iter().find(|input| is_file(input, &existing)) {
        return Err(Error::usage(format!("the output is the input {}", shown(input)))
            .code("FB-2101")
            .hint("choose another name for the output"));
    }
    if options.keep_existing {
        return Err(Error::usage("the output exists already")
            .code("FB-2102")
            .hint("choose another name, or allow overwriting with --force"));
    }
    Ok(())
}

/// Checks a destination, makes its directory, and tries whether a file can be made in it; for a
/// job to know before its work.
///
/// # Errors
/// As [`OutputFile::create`].
pub fn try_destination(path: &Path, options: &OutputOptions) -> Result<()> {
    let tried = ready_destination(path, options).and_then(|real| open_partial(&real));
    let (partial, _) = tried.at(|| format!("output {}", shown(path)))?;
    Partials::discard(&partial);
    Ok(())
}

/// The file to write, checked, in a directory that is there.
fn ready_destination(path: &Path, options: &OutputOptions) -> Result<PathBuf> {
    let path = destination(path)?;
    check(&path, options)?;
    let dir = parent(&path);
    // A file where the directory should be is no output that exists.
    fs::create_dir_all(dir).map_err(|e| {
        Error::resource(format!("cannot make the directory {}: {e}", shown(dir))).code("FB-5301")
    })?;
    Ok(path)
}

/// Links, hard or symbolic, lead to the same device and inode.
fn is_file(path: &Path, other: &Metadata) -> bool {
    fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (other.dev(), other.ino()))
}

/// Where the bytes shall really go: a symbolic link stays one, its target is replaced.
fn destination(path: &Path) -> Result<PathBuf> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_symlink());
    if !is_link {
        return Ok(path.to_path_buf());
    }
    fs::canonicalize(path).map_err(|e| failed("the output is a broken link", &e))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Opens a new file beside the destination, with a number where the name is taken: by another
/// thread, or by the remains of a dead process that had our id.
fn open_partial(path: &Path) -> Result<(PathBuf, File)> {
    for number in 0.. {
        let partial = partial_path(path, number);
        let new = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
        match Partials::make(&partial, new) {
            Ok(file) => return Ok((partial, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < 1000 => {}
            Err(e) => return Err(failed("cannot create the file", &e)),
        }
    }
    Err(Error::internal("no name is left for the partial file"))
}

/// Keeps the name short enough: a file system allows 255 bytes.
fn partial_path(path: &Path, number: usize) -> PathBuf {
    let mut suffix = format!(".partial-{}", std::process::id());
    if number > 0 {
        suffix += &format!("-{number}");
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    if name.len() + suffix.len() > 255 {
        name = "out".into();
    }
    name.push(suffix);
    path.with_file_name(name)
}

/// Takes the space now, so that a full disk is known before the work and not after it.
fn reserve(file: &File, bytes: u64, path: &Path) -> Result<bool> {
    if bytes == 0 {
        return Ok(false);
    }
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
            let free = rustix::fs::statvfs(parent(path)).map_or(0, |s| s.f_bavail * s.f_frsize);
            Err(Error::resource(format!("needs {bytes} bytes of disk space, {free} are free"))
                .code("FB-5302")
                .hint("free some space, or choose an output on another disk"))
        }
        // Not every file system can reserve; writing will tell.
        Err(_) => Ok(false),
    }
}

fn failed(what: &str, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Error::usage("the output exists already").code("FB-2102");
    }
    Error::resource(format!("{what}: {error}")).code("FB-5301")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies in a folder, sorted.
    pub(super) fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_appears_only_when_committed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/deep/out");
        let options = OutputOptions { expected_bytes: 1000, ..Default::default() };
        let mut output = OutputFile::create(&path, &options).unwrap();
        output.write_all(b"whole").unwrap();
        assert!(!path.exists());
        assert_eq!(output.commit().unwrap(), 5);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(&dir.path().join("new/deep")), ["out"]);
    }

    #[test]
    fn an_abandoned_file_leaves_nothing_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        write_file(&path, b"old", &OutputOptions::default()).unwrap();
        let mut output = OutputFile::create(&path, &OutputOptions::default()).unwrap();
        output.write_all(&vec![0; 3 << 20]).unwrap();
        assert_eq!(names(dir.path()).len(), 2);
        drop(output);
        assert_eq!(names(dir.path()), ["out"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn inputs_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("in"), b"precious").unwrap();
        std::os::unix::fs::symlink(at("in"), at("symbolic")).unwrap();
        fs::hard_link(at("in"), at("hard")).unwrap();
        let options = OutputOptions { inputs: vec![at("in")], ..Default::default() };
        for name in ["in", "symbolic", "hard", "./in"] {
            let error = write_file(&at(name), b"x", &options).unwrap_err();
            assert_eq!(error.stable_code(), "FB-2101", "{name}");
        }
        assert_eq!(fs::read(at("in")).unwrap(), b"precious");
        assert_eq!(names(dir.path()), ["hard", "in", "symbolic"]);
    }

    #[test]
    fn existing_files_are_kept_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let keep = OutputOptions { keep_existing: true, ..Default::default() };
        let early = OutputFile::create(&path, &keep).unwrap();
        write_file(&path, b"first", &keep).unwrap();
        assert_eq!(write_file(&path, b"second", &keep).unwrap_err().stable_code(), "FB-2102");
        assert_eq!(early.commit().unwrap_err().stable_code(), "FB-2102");
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }

    #[test]
    fn what_a_committed_or_dropped_output_leaves_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mine = || Partials::within(dir.path());
        let first = OutputFile::create(&dir.path().join("a"), &OutputOptions::default()).unwrap();
        let second = OutputFile::create(&dir.path().join("b"), &OutputOptions::default()).unwrap();
        assert_eq!(mine(), 2);
        drop(first);
        second.commit().unwrap();
        assert_eq!(mine(), 0);
        assert_eq!(names(dir.path()), ["b"]);
    }

    #[test]
    fn several_files_appear_together_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let keep = OutputOptions { keep_existing: true, ..Default::default() };
        let make = |name: &str| {
            let mut output = OutputFile::create(&dir.path().join(name), &keep).unwrap();
            output.write_all(name.as_bytes()).unwrap();
            output
        };
        assert_eq!(commit_all(vec![make("a"), make("b")]).unwrap(), 2);
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"b");
        assert_eq!(names(dir.path()), ["a", "b"]);
        let outputs = vec![make("c"), make("d")];
        // Somebody else makes the last one meanwhile.
        fs::write(dir.path().join("d"), b"precious").unwrap();
        assert_eq!(commit_all(outputs).unwrap_err().stable_code(), "FB-2102");
        assert_eq!(names(dir.path()), ["a", "b", "d"]);
        assert_eq!(fs::read(dir.path().join("d")).unwrap(), b"precious");
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_file(&link, b"new", &OutputOptions::default()).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
    }

    #[test]
    fn too_little_space_is_known_before_the_work() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let options = OutputOptions { expected_bytes: 1 << 60, ..Default::default() };
        match OutputFile::create(&path, &options) {
            Err(error) => assert_eq!(error.kind().exit_code(), 5),
            // A file system without reservation, or one without a limit, finds out later.
            Ok(output) => drop(output),
        }
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn directories_are_no_output() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_file(dir.path(), b"x", &OutputOptions::default()).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
    }
}
