//! NumPy's `.npz` files: zip archives of named arrays.
//!
//! Every member must be an array (`NAME.npy`), stored or deflated. Encrypted members, other
//! compressions, nested archives, repeated names and names that leave the archive are refused.
//! A member may not claim more data than its compressed bytes can hold, and its array header
//! must account for all of it, so that nothing large is allocated for a small file.

use super::file::{io_error, open_regular, show, show_text};
use super::npy::{self, Header};
use crate::atomic::{OutputOptions, write_file};
use fewbit_core::{Error, Result, ResultExt, Tensor};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, Write};
use std::path::Path;
use zip::read::ZipFile;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// Deflate cannot expand a byte to more than this (258 bytes from 2 bits).
const MAX_DEFLATE_RATIO: u64 = 1032;

/// An open archive.
#[derive(Debug)]
pub struct Archive {
    zip: ZipArchive<BufReader<File>>,
    members: Vec<Member>,
    index: HashMap<String, usize>,
}

/// One array of an archive.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    bytes: u64,
    stored: bool,
}

impl Archive {
    /// Opens an archive and checks its directory; reads no array yet.
    ///
    /// # Errors
    /// `FB-3320` for a damaged archive, `FB-3321` for a member name that is not allowed, `FB-3322`
    /// for a name that is there twice, `FB-3323` for a member that is no array, `FB-3324` for an
    /// impossible size, `FB-4320` for encryption and compressions other than deflate.
    pub fn open(path: &Path) -> Result<Archive> {
        let file = open_regular(path)?;
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|e| zip_error(&e));
        let mut zip = zip.at(|| show(path))?;
        let members = check_directory(&mut zip).at(|| show(path))?;
        let index = members.iter().enumerate().map(|(i, m)| (m.name.clone(), i)).collect();
        Ok(Archive { zip, members, index })
    }

    /// Names of the arrays, in the order of the file, without `.npy`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|m| m.name.as_str())
    }

    /// Whether there is an array of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Reads one array.
    ///
    /// # Errors
    /// `FB-3325` when there is none of this name; see [`npy::read`] for damaged arrays.
    pub fn read(&mut self, name: &str) -> Result<Tensor> {
        let (mut member, bytes) = self.member(name)?;
        let array = npy::read_from(&mut member, bytes);
        array.and_then(|t| at_end(&mut member).map(|()| t)).at(|| place(name))
    }

    /// The header of an array and a stream of its data, which decompresses as it is read.
    ///
    /// # Errors
    /// As [`read`](Archive::read).
    pub(crate) fn stream(&mut self, name: &str) -> Result<(Header, impl Read + '_)> {
        let (mut member, bytes) = self.member(name)?;
        let header = Header::read(&mut member, bytes).at(|| place(name))?;
        Ok((header, member))
    }

    /// Where a member that is not compressed starts in the file.
    pub(crate) fn stored_at(&mut self, name: &str) -> Result<Option<u64>> {
        let index = self.index(name)?;
        if !self.members[index].stored {
            return Ok(None);
        }
        let member = self.zip.by_index(index).map_err(|e| zip_error(&e).at(place(name)))?;
        Ok(member.data_start())
    }

    fn index(&self, name: &str) -> Result<usize> {
        self.index.get(name).copied().ok_or_else(|| {
            let names: Vec<_> = self.names().map(show_text).collect();
            let error = Error::bad_input(format!("there is no array `{}`", show_text(name)));
            error.code("FB-3325").hint(format!("the arrays are: {}", names.join(", ")))
        })
    }

    fn member(&mut self, name: &str) -> Result<(ZipFile<'_, BufReader<File>>, u64)> {
        let index = self.index(name)?;
        let bytes = self.members[index].bytes;
        let member = self.zip.by_index(index).map_err(|e| zip_error(&e).at(place(name)))?;
        Ok((member, bytes))
    }
}

fn place(name: &str) -> String {
    format!("array `{}`", show_text(name))
}

/// Reads every array.
///
/// # Errors
/// See [`Archive::open`] and [`Archive::read`].
pub fn read(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let mut archive = Archive::open(path)?;
    let names: Vec<String> = archive.names().map(str::to_owned).collect();
    let read = |name: String| archive.read(&name).at(|| show(path)).map(|t| (name, t));
    names.into_iter().map(read).collect()
}

/// Writes named arrays as `numpy.savez` does, not compressed, whole or not at all.
///
/// Names are kept as they are, `/` and `:` included, so that they match the graph's.
/// Element types without a NumPy dtype are widened as in [`npy::write`].
///
/// # Errors
/// `FB-3321` for an empty name or one with `..` in it, `FB-3322` for a name that
/// is there twice, `FB-4312` for strings; see [`write_file`] for the destination.
pub fn write(path: &Path, arrays: &[(&str, &Tensor)], options: &OutputOptions) -> Result<()> {
    let zip = write_to(Cursor::new(Vec::new()), arrays).at(|| show(path))?;
    write_file(path, zip.get_ref(), options).map(drop)
}

/// Writes named arrays to a stream and gives it back; see [`write()`].
///
/// # Errors
/// As [`write()`], and `FB-5303` when writing fails.
pub fn write_to<W: Write + Seek>(out: W, arrays: &[(&str, &Tensor)]) -> Result<W> {
    let mut zip = ZipWriter::new(out);
    let mut seen = HashSet::new();
    for (name, tensor) in arrays {
        check_name(name).at(|| place(name))?;
        if !seen.insert(name) {
            return Err(twice(name));
        }
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(true);
        zip.start_file(format!("{name}.npy"), options).map_err(|e| zip_write_error(e, name))?;
        npy::write_to(&mut zip, tensor).at(|| place(name))?;
    }
    zip.finish().map_err(|e| zip_write_error(e, "directory"))
}

fn zip_write_error(error: ZipError, name: &str) -> Error {
    Error::resource(format!("cannot write: {error}")).code("FB-5303").at(place(name))
}

fn check_directory(zip: &mut ZipArchive<BufReader<File>>) -> Result<Vec<Member>> {
    if zip.has_duplicate_names() {
        let error = Error::bad_input("a member name is there twice in the archive");
        return Err(error.code("FB-3322").at("zip directory"));
    }
    let mut members = Vec::new();
    for index in 0..zip.len() {
        let entry = zip.by_index_data(index).map_err(|e| zip_error(&e))?;
        let file_name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let at = || format!("member `{}`", show_text(&file_name));
        let method = entry.compression();
        if entry.encrypted() {
            let error = Error::unsupported("the member is encrypted").code("FB-4320");
            return Err(error.at(at()).hint("save it again without a password"));
        }
        check_name(&file_name).at(at)?;
        let Some(name) = file_name.strip_suffix(".npy") else {
            let error = Error::bad_input("not an array: the name does not end in .npy");
            return Err(error.code("FB-3323").at(at()));
        };
        if !matches!(method, CompressionMethod::Stored | CompressionMethod::Deflated) {
            let error = Error::unsupported(format!("compression {method:?}")).code("FB-4320");
            return Err(error.at(at()).hint("np.savez and np.savez_compressed are read"));
        }
        let stored = method == CompressionMethod::Stored;
        check_size(entry.size(), entry.compressed_size(), stored).at(at)?;
        members.push(Member { name: name.to_owned(), bytes: entry.size(), stored });
    }
    Ok(members)
}

fn check_size(bytes: u64, compressed: u64, stored: bool) -> Result<()> {
    let most = match stored {
        true => compressed,
        false => compressed.saturating_mul(MAX_DEFLATE_RATIO),
    };
    if bytes <= most && (!stored || bytes == compressed) {
        return Ok(());
    }
    let what = format!("{compressed} bytes in the file cannot hold the claimed {bytes}");
    Err(Error::bad_input(what).code("FB-3324"))
}

/// A name must stay inside the archive, also for tools that unpack it. These take off a slash that
/// it begins with, as names of values do that PyTorch writes.
fn check_name(name: &str) -> Result<()> {
    let escapes = name.split(['/', '\\']).any(|part| part == "..");
    if name.is_empty() || escapes || name.contains('\0') {
        let error = Error::bad_input("the name is empty or leaves the archive");
        return Err(error.code("FB-3321"));
    }
    Ok(())
}

fn twice(name: &str) -> Error {
    Error::bad_input("the name is there twice").code("FB-3322").at(place(name))
}

/// The data must end where the header says; this also makes the archive check its CRC.
fn at_end(member: &mut impl Read) -> Result<()> {
    match member.read(&mut [0u8; 1]).map_err(|e| io_error(&e))? {
        0 => Ok(()),
        _ => Err(Error::bad_input("the array is longer than its member claims").code("FB-3324")),
    }
}

fn zip_error(error: &ZipError) -> Error {
    match error {
        ZipError::Io(e) => io_error(e).code("FB-3320"),
        ZipError::UnsupportedArchive(what) => {
            Error::unsupported(format!("zip: {what}")).code("FB-4320")
        }
        ZipError::CompressionMethodNotSupported(_) => {
            Error::unsupported(format!("zip: {error}")).code("FB-4320")
        }
        _ => Error::bad_input(format!("not a sound zip archive: {error}")).code("FB-3320"),
    }
}
