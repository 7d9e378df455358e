//! Where samples come from: image files, or rows of arrays.

mod arrays;
mod folder;
mod kind;
mod list;
mod rows;
mod table;

use super::card::Card;
use super::image;
use super::preprocess::{Preprocess, Stored};
use super::spec::SampleRange;
use fewbit_core::{Error, Result, Tensor};
use kind::Kind;
use rows::Rows;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The selected samples of a data set, read one by one.
pub(super) enum Samples {
    /// One file each.
    Images(Vec<PathBuf>),
    /// One row of every array each, with the name of the graph's input where known.
    Arrays(Vec<(Option<String>, Rows)>),
}

/// Samples with what is known to be true of them.
pub(super) struct Loaded {
    pub(super) samples: Samples,
    /// Index of the first selected sample in the whole data.
    pub(super) first: usize,
    /// Labels or target values, one row per selected sample.
    pub(super) truth: Option<Tensor>,
}

/// Opens a folder or file and selects a range of its samples.
pub(super) fn open(path: &Path, card: Option<&Card>, range: &SampleRange) -> Result<Loaded> {
    match kind::of(path)? {
        Kind::Folder => folder::open(path, range),
        Kind::Npy => arrays::open_npy(path, range),
        Kind::Npz => arrays::open_npz(path, card, range),
        Kind::Csv => table::open(path, card, range),
        Kind::List => list::open(path, range),
        Kind::Image => images(vec![(path.to_path_buf(), None)], range),
    }
}

/// Image files with the text of their labels, either all of them or none.
fn images(files: Vec<(PathBuf, Option<f64>)>, range: &SampleRange) -> Result<Loaded> {
    if files.is_empty() {
        return Err(empty());
    }
    let selected = range.resolve(files.len())?;
    let first = selected.start;
    let files = &files[selected];
    let labels: Option<Vec<f64>> = files.iter().map(|(_, label)| *label).collect();
    let truth = labels.map(|l| numbers(&l)).transpose()?;
    let paths = files.iter().map(|(path, _)| path.clone()).collect();
    Ok(Loaded { samples: Samples::Images(paths), first, truth })
}

/// Labels written as text: integers where all of them are, real numbers otherwise.
fn numbers(values: &[f64]) -> Result<Tensor> {
    let whole = |v: &f64| v.fract() == 0.0 && v.abs() < 9e15;
    match values.iter().all(whole) {
        true => {
            let values: Vec<i64> = values.iter().map(|v| *v as i64).collect();
            Ok(Tensor::vector(&values))
        }
        false => Tensor::from_slice(vec![values.len()], values),
    }
}

pub(super) fn empty() -> Error {
    Error::bad_input("the data set has no samples")
        .code("FB-3342")
        .hint("samples are .jpg, .jpeg and .png files, or the rows of an array")
}

impl Samples {
    /// Number of selected samples.
    pub(super) fn len(&self) -> usize {
        match self {
            Samples::Images(paths) => paths.len(),
            Samples::Arrays(arrays) => arrays.first().map_or(0, |(_, rows)| rows.len()),
        }
    }

    /// The model inputs of sample `i`, which must exist.
    pub(super) fn read(
        &self,
        i: usize,
        steps: &Preprocess,
    ) -> Result<Vec<(Option<String>, Tensor)>> {
        match self {
            Samples::Images(paths) => Ok(vec![(None, steps.image(image::read(&paths[i])?)?)]),
            Samples::Arrays(arrays) => arrays
                .iter()
                .map(|(name, rows)| {
                    let bytes = rows.get(i)?;
                    let stored = Stored { dtype: rows.dtype(), shape: rows.shape(), bytes: &bytes };
                    Ok((name.clone(), steps.array(&stored)?))
                })
                .collect(),
        }
    }

    /// A name for messages and reports: the file, or nothing for rows.
    pub(super) fn file_name(&self, i: usize) -> Option<String> {
        match self {
            Samples::Images(paths) => paths.get(i)?.file_name().map(|n| n.to_string_lossy().into()),
            Samples::Arrays(_) => None,
        }
    }

    /// Adds the stored bytes of sample `i` to a hash.
    pub(super) fn hash(&self, i: usize, hash: &mut Sha256) -> Result<()> {
        match self {
            Samples::Images(paths) => {
                let bytes = image::read_bytes(&paths[i])?;
                hash.update((bytes.len() as u64).to_le_bytes());
                hash.update(&bytes);
            }
            Samples::Arrays(arrays) => {
                for (name, rows) in arrays {
                    hash.update(name.as_deref().unwrap_or("x").as_bytes());
                    hash.update([0]);
                    hash.update(rows.dtype().name().as_bytes());
                    rows.shape().iter().for_each(|d| hash.update((*d as u64).to_le_bytes()));
                    hash.update(rows.get(i)?);
                }
            }
        }
        Ok(())
    }
}
