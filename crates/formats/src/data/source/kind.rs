//! What a path holds, told by its content and its extension, which must not contradict each other.

use crate::data::file::{io_error, open_regular, show};
use fewbit_core::{Error, Result};
use std::io::Read;
use std::path::Path;

/// The forms of data that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    Npy,
    Npz,
    Csv,
    List,
    Image,
}

impl Kind {
    fn describe(self) -> &'static str {
        match self {
            Kind::Folder => "a folder",
            Kind::Npy => "an .npy array",
            Kind::Npz => "an .npz archive",
            Kind::Csv => "a .csv table",
            Kind::List => "a .txt list",
            Kind::Image => "an image",
        }
    }

    fn is_text(self) -> bool {
        matches!(self, Kind::Csv | Kind::List)
    }
}

/// Decides how to read `path`.
///
/// # Errors
/// `FB-2302` when nothing tells, `FB-3304` when extension and content contradict each other,
/// `FB-4340` for pickles and other containers that are never loaded.
pub(super) fn of(path: &Path) -> Result<Kind> {
    if path.is_dir() {
        return Ok(Kind::Folder);
    }
    let mut file = open_regular(path)?;
    let mut start = Vec::new();
    let read = file.by_ref().take(8).read_to_end(&mut start);
    read.map_err(|e| io_error(&e).at(show(path)))?;
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let named = by_extension(extension.as_deref().unwrap_or_default());
    match (named, by_content(&start)) {
        (Named::Foreign(advice), _) => Err(foreign(path, advice)),
        (Named::Known(kind), None) => Ok(kind),
        (Named::Known(kind), Some(found)) if kind == found => Ok(kind),
        (Named::Known(kind), Some(found)) if found.is_text() == kind.is_text() => Ok(found),
        (Named::Known(kind), Some(found)) => Err(contradiction(path, kind, found)),
        (Named::Unknown, Some(found)) => Ok(found),
        (Named::Unknown, None) => Err(unknown(path)),
    }
}

enum Named {
    Known(Kind),
    Foreign(&'static str),
    Unknown,
}

fn by_extension(extension: &str) -> Named {
    Named::Known(match extension {
        "npy" => Kind::Npy,
        "npz" => Kind::Npz,
        "csv" => Kind::Csv,
        "txt" => Kind::List,
        "jpg" | "jpeg" | "png" => Kind::Image,
        "pt" | "pth" | "bin" | "ckpt" | "pkl" | "pickle" | "joblib" => {
            return Named::Foreign(
                "it may be a pickle, which is a program; save np.savez(f, x=x, y=y)",
            );
        }
        "h5" | "hdf5" | "keras" | "mat" | "parquet" | "tfrecord" | "arrow" => {
            return Named::Foreign("convert it to arrays: np.savez(f, x=x, y=y)");
        }
        _ => return Named::Unknown,
    })
}

fn by_content(start: &[u8]) -> Option<Kind> {
    match start {
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Kind::Npy),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Kind::Npz),
        [0xFF, 0xD8, ..] | [0x89, b'P', b'N', b'G', ..] => Some(Kind::Image),
        _ => None,
    }
}

fn foreign(path: &Path, advice: &str) -> Error {
    let error = Error::unsupported("this kind of file is recognised but never loaded as data");
    error.code("FB-4340").at(show(path)).hint(advice)
}

fn contradiction(path: &Path, named: Kind, found: Kind) -> Error {
    let what = format!("named like {}, but it holds {}", named.describe(), found.describe());
    Error::bad_input(what).code("FB-3304").at(show(path)).hint("rename the file")
}

fn unknown(path: &Path) -> Error {
    Error::usage("cannot tell what kind of data this is").code("FB-2302").at(show(path)).hint(
        "data is a folder of images, .npz, .npy, .csv or .txt, or a card data.toml: \
         path = \"...\"; task = \"classify\"; [input] scale = 255.0; layout = \"NCHW\"",
    )
}
