//! Folders of images: with `labels.csv`, with one folder per class, or without labels.

use super::{Loaded, images, list};
use crate::data::file::{io_error, show, show_text};
use crate::data::spec::SampleRange;
use fewbit_core::{Error, Result, ResultExt};
use std::path::{Path, PathBuf};

/// Opens a folder.
///
/// The folders of the classes, sorted by name, are the labels 0, 1, 2 and so on. Samples are
/// taken in turns, the first image of every class, then the second: so a range of the samples
/// is a fair sample of the classes.
pub(super) fn open(path: &Path, range: &SampleRange) -> Result<Loaded> {
    let contents = Contents::of(path)?;
    let files = if contents.has_labels {
        labelled(path, &contents)
    } else if contents.folders.is_empty() {
        Ok(contents.images.into_iter().map(|f| (path.join(f), None)).collect())
    } else if contents.images.is_empty() {
        classes(path, &contents.folders)
    } else {
        Err(mixed(&contents))
    };
    images(files.at(|| show(path))?, range).at(|| show(path))
}

/// Sorted names of what lies in a folder; hidden files do not count.
#[derive(Default)]
struct Contents {
    images: Vec<String>,
    folders: Vec<String>,
    has_labels: bool,
}

impl Contents {
    fn of(path: &Path) -> Result<Contents> {
        let failed = |e: std::io::Error| io_error(&e).at(show(path));
        let mut contents = Contents::default();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A name that is not UTF-8 could not be listed, sorted or reported alike everywhere.
            let name = entry.file_name().into_string().map_err(|name| {
                let error = Error::bad_input("a file name is not valid UTF-8").code("FB-3351");
                error.at(show(Path::new(&name))).at(show(path))
            })?;
            if name.starts_with('.') {
                continue;
            }
            if entry.path().is_dir() {
                contents.folders.push(name);
            } else if name == "labels.csv" {
                contents.has_labels = true;
            } else if is_image(&name) {
                contents.images.push(name);
            }
        }
        contents.images.sort();
        contents.folders.sort();
        Ok(contents)
    }
}

fn is_image(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or(String::new(), |(_, e)| e.to_lowercase());
    matches!(extension.as_str(), "jpg" | "jpeg" | "png")
}

fn mixed(contents: &Contents) -> Error {
    let what = format!(
        "{} images beside {} folders: which are the samples?",
        contents.images.len(),
        contents.folders.len()
    );
    Error::usage(what).code("FB-2302").hint("write labels.csv with the columns file,label")
}

type Labelled = Vec<(PathBuf, Option<f64>)>;

fn labelled(path: &Path, contents: &Contents) -> Result<Labelled> {
    let files = list::read_labels(&path.join("labels.csv"), path).at(|| "labels.csv")?;
    let named: std::collections::HashSet<&Path> = files.iter().map(|(p, _)| p.as_path()).collect();
    let missing = contents.images.iter().find(|name| !named.contains(path.join(name).as_path()));
    if let Some(name) = missing {
        let what = format!("the image `{}` has no label", show_text(name));
        let hint = "add a line for it, or move the file away; a .txt list takes a part of a folder";
        return Err(Error::bad_input(what).code("FB-3340").at("labels.csv").hint(hint));
    }
    Ok(files)
}

fn classes(path: &Path, folders: &[String]) -> Result<Labelled> {
    check_numbered(folders)?;
    let mut per_class = Vec::new();
    for folder in folders {
        let contents = Contents::of(&path.join(folder))?;
        let place = || format!("class folder `{}`", show_text(folder));
        if !contents.folders.is_empty() {
            let error = Error::bad_input("it has folders inside").code("FB-3345").at(place());
            return Err(error.hint("a class folder holds images only"));
        }
        if contents.images.is_empty() {
            return Err(super::empty().at(place()));
        }
        let paths = contents.images.iter().map(|f| path.join(folder).join(f));
        per_class.push(paths.collect::<Vec<_>>());
    }
    let most = per_class.iter().map(Vec::len).max().unwrap_or(0);
    let turn = |i: usize| {
        let images = per_class.iter().enumerate();
        images.filter_map(move |(c, paths)| Some((paths.get(i)?.clone(), Some(c as f64))))
    };
    Ok((0..most).flat_map(turn).collect())
}

/// Folders named 0, 1, 10, 2 sort into other labels than their names say.
fn check_numbered(folders: &[String]) -> Result<()> {
    let numbers: Option<Vec<usize>> = folders.iter().map(|f| f.parse().ok()).collect();
    let Some(numbers) = numbers else { return Ok(()) };
    match numbers.iter().enumerate().find(|(i, n)| i != *n) {
        None => Ok(()),
        Some((label, n)) => {
            let what = format!(
                "the class folder `{}` would become label {label}, not {n}",
                folders[label]
            );
            let hint = "pad the names with zeros, or write labels.csv with the columns file,label";
            Err(Error::usage(what).code("FB-2302").hint(hint))
        }
    }
}
