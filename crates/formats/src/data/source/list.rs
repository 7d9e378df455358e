//! Lists of image files: `labels.csv` inside a folder, and `.txt` lists.

use super::{Loaded, images};
use crate::data::file::{show, show_text};
use crate::data::spec::SampleRange;
use crate::data::text::read_text;
use fewbit_core::{Error, Result, ResultExt};
use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

/// Reads `labels.csv`: a header with the columns `file` and `label`, then one line per image.
pub(super) fn read_labels(csv: &Path, folder: &Path) -> Result<Vec<(PathBuf, Option<f64>)>> {
    let text = read_text(csv)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| super::table::csv_error(&e))?.clone();
    let column = |name: &str| {
        header.iter().position(|h| h.trim() == name).ok_or_else(|| {
            let error = Error::bad_input(format!("there is no column `{name}`")).code("FB-3354");
            error.at("line 1").hint("the first line is: file,label")
        })
    };
    let (file, label) = (column("file")?, column("label")?);
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| super::table::csv_error(&e))?;
        let line = record.position().map_or(0, |p| p.line());
        let at = || format!("line {line}");
        let name = record.get(file).unwrap_or_default();
        let value = number(record.get(label).unwrap_or_default()).at(at)?;
        let path = inside(folder, name).at(at)?;
        if !seen.insert(path.clone()) {
            let error = Error::bad_input(format!("`{}` is there twice", show_text(name)));
            return Err(error.code("FB-3340").at(at()));
        }
        files.push((path, Some(value)));
    }
    Ok(files)
}

/// Opens a `.txt` list: one image per line, relative to the list, with a label after it or
/// without; blank lines and lines that start with `#` do not count.
pub(super) fn open(path: &Path, range: &SampleRange) -> Result<Loaded> {
    let text = read_text(path).at(|| show(path))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut files: Vec<(PathBuf, Option<f64>)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = || format!("line {}", number + 1);
        let entry = entry(folder, line).at(at).at(|| show(path))?;
        if files.first().is_some_and(|first| first.1.is_some() != entry.1.is_some()) {
            let error = Error::bad_input("some lines have a label and some have none");
            return Err(error.code("FB-3340").at(at()).at(show(path)));
        }
        files.push(entry);
    }
    images(files, range).at(|| show(path))
}

/// One line of a list. The user wrote it like a command, so it may point anywhere.
fn entry(folder: &Path, line: &str) -> Result<(PathBuf, Option<f64>)> {
    let whole = folder.join(line);
    if whole.is_file() {
        return Ok((whole, None));
    }
    if let Some((name, label)) = line.rsplit_once(char::is_whitespace) {
        let path = folder.join(name.trim_end());
        if path.is_file() {
            return Ok((path, Some(number(label)?)));
        }
    }
    let shown: String = show_text(line).chars().take(80).collect();
    let error = Error::bad_input(format!("there is no file `{shown}`")).code("FB-3343");
    Err(error.hint("a .txt data set lists image files, one per line, each with its label or none"))
}

/// A file that `labels.csv` names must lie inside the folder.
fn inside(folder: &Path, name: &str) -> Result<PathBuf> {
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
    if name.is_empty() || name.contains('\\') || !Path::new(name).components().all(plain) {
        let error = Error::bad_input(format!("`{}` is not inside the folder", show_text(name)));
        return Err(error.code("FB-3344"));
    }
    let path = folder.join(name);
    match path.is_file() {
        true => Ok(path),
        false => {
            let error = Error::bad_input(format!("there is no file `{}`", show_text(name)));
            Err(error.code("FB-3343"))
        }
    }
}

/// A finite number.
fn number(text: &str) -> Result<f64> {
    let parsed = text.trim().parse::<f64>().ok().filter(|v| v.is_finite());
    parsed.ok_or_else(|| super::table::not_a_number(text, "label"))
}
