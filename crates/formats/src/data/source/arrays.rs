//! `.npy` and `.npz` data: samples lie along the first dimension.

use super::rows::{self, Rows};
use super::{Loaded, Samples};
use crate::data::card::Card;
use crate::data::file::{InputFile, show};
use crate::data::npy::Header;
use crate::data::npz::Archive;
use crate::data::spec::SampleRange;
use fewbit_core::{AlignedBytes, Error, Result, ResultExt, Tensor};
use std::ops::Range;
use std::path::Path;

/// One array without labels.
pub(super) fn open_npy(path: &Path, range: &SampleRange) -> Result<Loaded> {
    let file = InputFile::open(path)?;
    let header = Header::read_at(&file).at(|| show(path))?;
    let (count, _) = rows::split(&header).at(|| show(path))?;
    let range = range.resolve(count)?;
    let first = range.start;
    let rows = Rows::in_file(&header, file, header.data_start(), range).at(|| show(path))?;
    Ok(Loaded { samples: Samples::Arrays(vec![(None, rows)]), first, truth: None })
}

/// Arrays `x` and `y`, or one array per input of the model under the input's name.
pub(super) fn open_npz(path: &Path, card: Option<&Card>, range: &SampleRange) -> Result<Loaded> {
    let mut archive = Archive::open(path)?;
    let names = Names::choose(&archive, card).at(|| show(path))?;
    let count = names.count(&mut archive).at(|| show(path))?;
    let range = range.resolve(count)?;
    let mut arrays = Vec::new();
    for (name, array) in &names.inputs {
        let rows = load(&mut archive, path, array, range.clone());
        arrays.push((name.clone(), rows.at(|| place(array)).at(|| show(path))?));
    }
    let truth = match &names.truth {
        Some(y) => Some(load_truth(&mut archive, y, range.clone()).at(|| show(path))?),
        None => None,
    };
    Ok(Loaded { samples: Samples::Arrays(arrays), first: range.start, truth })
}

fn place(name: &str) -> String {
    format!("array `{}`", crate::data::file::show_text(name))
}

/// Which array is what.
struct Names {
    /// Name of the graph's input where known, name of the array.
    inputs: Vec<(Option<String>, String)>,
    truth: Option<String>,
}

impl Names {
    fn choose(archive: &Archive, card: Option<&Card>) -> Result<Names> {
        let asked_y = card.and_then(|c| c.y.clone());
        let y = asked_y.clone().unwrap_or_else(|| "y".to_owned());
        if asked_y.is_some() && !archive.contains(&y) {
            return Err(missing(archive, &y));
        }
        let truth = archive.contains(&y).then(|| y.clone());
        if let Some(x) = card.and_then(|c| c.x.clone()) {
            if !archive.contains(&x) {
                return Err(missing(archive, &x));
            }
            return Ok(Names { inputs: vec![(None, x)], truth });
        }
        let mut inputs: Vec<(Option<String>, String)> = archive
            .names()
            .filter(|name| *name != y)
            .map(|name| (Some(name.to_owned()), name.to_owned()))
            .collect();
        match inputs.as_mut_slice() {
            [] => return Err(missing(archive, "x")),
            // What numpy.savez calls its arguments says nothing about the graph.
            [(name, array)] if array == "x" || array == "arr_0" => *name = None,
            _ => {}
        }
        Ok(Names { inputs, truth })
    }

    /// The number of samples, the same in every array.
    fn count(&self, archive: &mut Archive) -> Result<usize> {
        let mut first: Option<(usize, &str)> = None;
        let inputs = self.inputs.iter().map(|(_, array)| array.as_str());
        for name in inputs.chain(self.truth.as_deref()) {
            let (header, _) = archive.stream(name)?;
            let (count, _) = rows::split(&header).at(|| place(name))?;
            match first {
                Some((other, of)) if other != count => return Err(counts(name, count, of, other)),
                _ => first = Some((count, name)),
            }
        }
        Ok(first.map_or(0, |(count, _)| count))
    }
}

fn counts(name: &str, count: usize, of: &str, other: usize) -> Error {
    let what = format!("{} has {count} samples, {} has {other}", place(name), place(of));
    Error::bad_input(what).code("FB-3340")
}

fn missing(archive: &Archive, name: &str) -> Error {
    let names: Vec<_> = archive.names().map(crate::data::file::show_text).collect();
    let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let error = Error::bad_input(format!("there is no array `{name}`; found: {found}"));
    error.code("FB-3325").hint("name the arrays in a card: x = \"...\" and y = \"...\"")
}

fn load(archive: &mut Archive, path: &Path, name: &str, range: Range<usize>) -> Result<Rows> {
    if let Some(start) = archive.stored_at(name)? {
        let (header, _) = archive.stream(name)?;
        let file = InputFile::open(path)?;
        let start = start + header.data_start();
        return Rows::in_file(&header, file, start, range);
    }
    let (header, mut stream) = archive.stream(name)?;
    Rows::from_stream(&header, &mut stream, range)
}

/// The selected rows of the labels.
fn load_truth(archive: &mut Archive, name: &str, range: Range<usize>) -> Result<Tensor> {
    let all = archive.read(name)?;
    let row = all.bytes().len() / all.shape()[0];
    let bytes = AlignedBytes::copy_of(&all.bytes()[range.start * row..range.end * row]);
    let mut shape = all.shape().to_vec();
    shape[0] = range.len();
    Tensor::from_bytes(all.dtype(), shape, bytes.into())
}
