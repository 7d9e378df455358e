//! Inputs of a single run, from arrays and images.

use crate::plan::read_text;
use fewbit_core::{DType, Error, Result, ResultExt, Tensor};
use fewbit_exec::Port;
use fewbit_formats::data::{Card, Preprocess, image, npy, npz};
use fewbit_formats::detect::{Format, detect};
use fewbit_formats::mmap::{InputFile, shown};
use fewbit_quant::as_taken;
use std::path::Path;

/// Reads the tensor of one input from `.npy`, `.npz` (the array of that name, or the only one),
/// or an image, which takes the input steps of a card.
///
/// Arrays of `float64` are rounded to what the model takes; all other types must be right.
///
/// # Errors
/// When the file is damaged, of another kind, or of a type that the input does not take.
pub fn read_input(port: &Port, path: &Path, card: Option<&Path>) -> Result<Tensor> {
    let tensor = match format_of(path)? {
        Some(Format::Npy) => npy::read(path)?,
        Some(Format::Npz) => pick(&port.name, path)?,
        Some(Format::Png | Format::Jpeg) => read_image(port, path, card)?,
        other => {
            let found = other.map_or("something else", Format::name);
            let error = Error::unsupported(format!("expected an array or an image, found {found}"));
            return Err(error.at(shown(path)).hint("inputs are .npy, .npz, .png or .jpg files"));
        }
    };
    fit(port, tensor).at(|| shown(path))
}

/// All arrays of an archive, as inputs of the same names.
///
/// # Errors
/// When the archive is damaged, or an array has no input of its name.
pub fn read_inputs_npz(ports: &[Port], path: &Path) -> Result<Vec<(String, Tensor)>> {
    let arrays = npz::read(path)?;
    arrays
        .into_iter()
        .map(|(name, tensor)| {
            let port = find(ports, &name).at(|| shown(path))?;
            Ok((name, fit(port, tensor)?))
        })
        .collect()
}

/// The inputs of a session by name.
///
/// # Errors
/// With the names there are, when `name` is none of them.
pub fn named_inputs<'p>(ports: &'p [Port], name: &str) -> Result<&'p Port> {
    find(ports, name)
}

fn find<'p>(ports: &'p [Port], name: &str) -> Result<&'p Port> {
    ports.iter().find(|p| p.name == name).ok_or_else(|| {
        let list: Vec<String> = ports.iter().map(|p| format!("{} {}", p.name, p.ty)).collect();
        Error::usage(format!("the model has no input `{name}`"))
            .hint(format!("its inputs: {}", list.join(", ")))
    })
}

fn format_of(path: &Path) -> Result<Option<Format>> {
    Ok(detect(InputFile::open(path)?.bytes()))
}

fn pick(name: &str, path: &Path) -> Result<Tensor> {
    let mut archive = npz::Archive::open(path)?;
    let names: Vec<String> = archive.names().map(str::to_string).collect();
    match names.as_slice() {
        _ if archive.contains(name) => archive.read(name),
        [only] => archive.read(only),
        _ => Err(Error::usage(format!("the archive has no array `{name}`"))
            .at(shown(path))
            .hint(format!("its arrays: {}", names.join(", ")))),
    }
}

fn read_image(port: &Port, path: &Path, card: Option<&Path>) -> Result<Tensor> {
    let steps = match card {
        Some(card) => Card::parse(&read_text(card)?).at(|| shown(card))?.input,
        None if port.ty.dtype.is_none_or(|d| d == DType::U8) => Default::default(),
        None => {
            return Err(Error::usage(format!(
                "input `{}` is {}, and nothing says how an image becomes that",
                port.name, port.ty
            ))
            .at(shown(path))
            .hint("give a data card with the input steps: --card card.toml"));
        }
    };
    let image = Preprocess::new(steps)?.image(image::read(path)?).at(|| shown(path))?;
    as_taken(port, image)
}

/// NumPy's own default type is `float64`; models rarely take it.
fn fit(port: &Port, tensor: Tensor) -> Result<Tensor> {
    match port.ty.dtype {
        Some(wanted) if wanted.is_float() && tensor.dtype() == DType::F64 => tensor.cast(wanted),
        _ => Ok(tensor),
    }
}
