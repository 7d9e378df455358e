//! Models in several files, `NAME-00001-of-00003.gguf` and so on.
//!
//! Each part says which one it is and how many there are; the first carries the metadata.

use super::metadata::Metadata;
use super::{GgufFile, read_file};
use crate::mmap::shown;
use fewbit_core::{Error, Result, ResultExt};
use std::path::{Path, PathBuf};

/// Number of this part, from 0.
pub(super) const NO: &str = "split.no";
/// Number of parts.
pub(super) const COUNT: &str = "split.count";
/// Tensors of all parts together.
pub(super) const TENSORS: &str = "split.tensors.count";

/// Most parts; their number has five digits.
const MAX_PARTS: usize = 99_999;

/// The path of part `no` (from 0) of `count`, as in `folder/NAME-00001-of-00003.gguf`.
pub fn part_path(prefix: &Path, no: usize, count: usize) -> PathBuf {
    let mut path = prefix.as_os_str().to_os_string();
    path.push(format!("-{:05}-of-{count:05}.gguf", no + 1));
    path.into()
}

/// Whether a file is a part, and of how many.
pub(super) fn parts(metadata: &Metadata) -> Result<Option<usize>> {
    match metadata.find::<usize>(COUNT)? {
        None | Some(0 | 1) => Ok(None),
        Some(count) if count <= MAX_PARTS => Ok(Some(count)),
        Some(count) => Err(wrong(format!("{count} parts; at most {MAX_PARTS} are allowed"))),
    }
}

/// Removes what says that a file is a part.
pub(super) fn forget(metadata: &mut Metadata) {
    for key in [NO, COUNT, TENSORS] {
        metadata.remove(key);
    }
}

fn wrong(what: impl Into<String>) -> Error {
    Error::bad_input(what).code("FB-3614")
}

/// Reads all parts of the model that `path` is a part of.
pub(super) fn read(path: &Path, count: usize) -> Result<GgufFile> {
    let prefix = prefix(path, count).at(|| shown(path))?;
    let mut whole: Option<GgufFile> = None;
    for no in 0..count {
        let path = part_path(&prefix, no, count);
        if !path.exists() {
            return Err(wrong(format!("part {} of {count} is missing", no + 1))
                .at(shown(&path))
                .hint("all parts must lie in one folder under the names they were made with"));
        }
        let part = read_file(&path)?;
        check_part(&part.metadata, no, count).at(|| shown(&path))?;
        match &mut whole {
            None => whole = Some(part),
            Some(whole) => append(whole, part).at(|| shown(&path))?,
        }
    }
    let whole = whole.ok_or_else(|| wrong("no parts"))?;
    finish(whole).at(|| shown(path))
}

/// The name without number and ending.
fn prefix(path: &Path, count: usize) -> Result<PathBuf> {
    let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    let stem = name.strip_suffix(&format!("-of-{count:05}.gguf"));
    let split = stem.and_then(|stem| stem.rsplit_once('-'));
    match split {
        Some((prefix, no)) if is_number(no) => Ok(path.with_file_name(prefix)),
        _ => Err(wrong(format!("one of {count} parts, but not named like one"))
            .hint(format!("parts are named like NAME-00001-of-{count:05}.gguf"))),
    }
}

fn is_number(text: &str) -> bool {
    text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a name without its ending is that of a part, as in `NAME-00001-of-00003`.
pub(super) fn has_number(stem: &str) -> bool {
    let parts = stem.rsplit_once("-of-");
    let numbers = parts.and_then(|(front, count)| Some((front.rsplit_once('-')?.1, count)));
    numbers.is_some_and(|(no, count)| is_number(no) && is_number(count))
}

fn check_part(metadata: &Metadata, no: usize, count: usize) -> Result<()> {
    let (found_no, found_count) = (metadata.find::<usize>(NO)?, metadata.find::<usize>(COUNT)?);
    if (found_no, found_count) == (Some(no), Some(count)) {
        return Ok(());
    }
    let text = |n: Option<usize>| n.map_or("none".to_string(), |n| n.to_string());
    Err(wrong(format!(
        "`{NO}` is {} and `{COUNT}` is {}; the name says {no} and {count}",
        text(found_no),
        text(found_count)
    ))
    .hint("the parts were renamed, or are of two models"))
}

/// Adds a part; what it says beyond its number must be what the first one says.
fn append(whole: &mut GgufFile, part: GgufFile) -> Result<()> {
    for (key, value) in part.metadata.iter().filter(|(key, _)| !key.starts_with("split.")) {
        if whole.metadata.get(key) != Some(value) {
            return Err(wrong(format!("metadata {key:?} is another one than in the first part"))
                .hint("the parts are of two models"));
        }
    }
    if part.metadata.get(TENSORS) != whole.metadata.get(TENSORS) {
        return Err(wrong(format!("`{TENSORS}` is another one than in the first part"))
            .hint("the parts are of two models"));
    }
    let before = whole.files.len();
    whole.files.extend(part.files);
    let tensors = part.tensors.into_iter();
    whole.tensors.extend(tensors.map(|mut tensor| {
        tensor.file += before;
        tensor
    }));
    Ok(())
}

fn finish(mut whole: GgufFile) -> Result<GgufFile> {
    let (found, wanted) = (whole.tensors.len(), whole.metadata.find::<usize>(TENSORS)?);
    if wanted.is_some_and(|wanted| wanted != found) {
        return Err(wrong(format!("the parts hold {found} tensors, `{TENSORS}` says otherwise"))
            .hint("the parts are of two models"));
    }
    forget(&mut whole.metadata);
    whole.index()?;
    Ok(whole)
}
