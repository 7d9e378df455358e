//! Weights in files beside the model.
//!
//! The location comes from an untrusted file, so it may only lead to a regular file below the
//! model's own folder: relative, without `..`, through no link that leaves the folder, and not
//! to a file that has another name elsewhere (a hard link to a secret would be read as weights).
//! Where the model is a link itself, as in a cache of Hugging Face, its folder is also the one
//! that it leads to: whoever laid the link of the weights laid that of the model beside it.

use crate::mmap::InputFile;
use crate::onnx::schema::StringStringEntryProto;
use bytes::Bytes;
use fewbit_core::{Error, Result, ResultExt};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The folder that external data may lie in, and the files opened so far.
#[derive(Default)]
pub(super) struct External {
    model: Option<InputFile>,
    base: Option<PathBuf>,
    /// The folder that the model's own file lies in, where its path is a link.
    target: Option<PathBuf>,
    open: RefCell<BTreeMap<String, InputFile>>,
}

/// What `TensorProto.external_data` says.
struct Place<'a> {
    location: &'a str,
    offset: u64,
    length: Option<u64>,
}

impl External {
    /// External data below `base`; none is allowed without a base.
    pub(super) fn new(base: Option<&Path>) -> Self {
        let base = base.map(Path::to_path_buf);
        External { model: None, base, target: None, open: RefCell::default() }
    }

    /// That of the model in `file`, which lies at `path`.
    pub(super) fn beside(file: &InputFile, path: &Path) -> Self {
        let base = path.parent().unwrap_or(Path::new(""));
        let target = path.is_symlink().then(|| std::fs::canonicalize(path).ok()).flatten();
        let target = target.and_then(|path| path.parent().map(Path::to_path_buf));
        External { model: Some(file.clone()), target, ..Self::new(Some(base)) }
    }

    /// The file that the model itself stands in, unless it was read from memory.
    pub(super) fn model(&self) -> Option<&InputFile> {
        self.model.as_ref()
    }

    /// The bytes of one tensor that needs `need` of them, and the file that they are in.
    pub(super) fn bytes(
        &self,
        entries: &[StringStringEntryProto],
        need: usize,
    ) -> Result<(Bytes, InputFile)> {
        let place = parse(entries)?;
        let file = self.file(place.location).at(|| format!("location {:?}", place.location))?;
        let available = file.bytes().len();
        let length = place.length.unwrap_or(need as u64);
        if length != need as u64 {
            let what = format!("`length` is {length}, the shape needs {need} bytes");
            return Err(Error::bad_input(what).code("FB-3221"));
        }
        let start = usize::try_from(place.offset).ok().filter(|&start| start <= available);
        let range = start.filter(|&start| need <= available - start).map(|s| s..s + need);
        let range = range.ok_or_else(|| {
            Error::bad_input(format!(
                "{need} bytes at offset {} leave the file of {available} bytes",
                place.offset
            ))
            .code("FB-3232")
            .at(format!("location {:?}", place.location))
            .hint("the file is cut off or belongs to another model")
        })?;
        Ok((file.bytes().slice(range), file))
    }

    /// The files opened so far.
    pub(super) fn into_files(self) -> impl Iterator<Item = InputFile> {
        self.open.into_inner().into_values()
    }

    fn file(&self, location: &str) -> Result<InputFile> {
        if let Some(file) = self.open.borrow().get(location) {
            return Ok(file.clone());
        }
        let base = self.base.as_deref().ok_or_else(|| {
            Error::unsupported("the model keeps weights in another file, but has no folder")
                .code("FB-4104")
                .hint("read the model by its path")
        })?;
        let file = InputFile::open(&resolve(base, self.target.as_deref(), location)?)?;
        self.open.borrow_mut().insert(location.to_string(), file.clone());
        Ok(file)
    }
}

fn outside(what: &str) -> Error {
    Error::bad_input(what)
        .code("FB-3231")
        .hint("weights must lie in or below the folder of the model, under a relative name")
}

fn resolve(base: &Path, target: Option<&Path>, location: &str) -> Result<PathBuf> {
    check_name(location)?;
    let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
    let open = |path: &Path| {
        std::fs::canonicalize(path)
            .map_err(|e| Error::bad_input(format!("cannot open: {e}")).code("FB-3001"))
    };
    let (root, path) = (open(base)?, open(&base.join(location))?);
    let beside = target.is_some_and(|target| path.parent() == Some(target));
    if !path.starts_with(&root) && !beside {
        return Err(outside("the location leads out of the model's folder through a link"));
    }
    let seen = std::fs::metadata(&path);
    let links =
        seen.map_or(1, |m| if m.is_file() { std::os::unix::fs::MetadataExt::nlink(&m) } else { 1 });
    if links > 1 {
        return Err(outside("the file has a second name elsewhere (a hard link)")
            .hint("copy the file, so that it has one name only"));
    }
    Ok(path)
}

fn check_name(location: &str) -> Result<()> {
    if location.is_empty() {
        return Err(outside("the location is empty"));
    }
    if location.contains('\0') || location.contains('\\') {
        return Err(outside("the location holds a NUL or a backslash"));
    }
    // ONNX Runtime marks weights in its own memory so; in a file that is an attack.
    if location.contains("_ORT_MEM_ADDR_") {
        return Err(outside("the location is a memory address"));
    }
    let plain = |c: Component| matches!(c, Component::Normal(_) | Component::CurDir);
    if !Path::new(location).components().all(plain) {
        return Err(outside("the location is absolute or contains `..`"));
    }
    Ok(())
}

fn parse(entries: &[StringStringEntryProto]) -> Result<Place<'_>> {
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in entries {
        let (key, value) =
            (entry.key.as_deref().unwrap_or(""), entry.value.as_deref().unwrap_or(""));
        let known = matches!(key, "location" | "offset" | "length" | "checksum" | "basepath");
        if !known && !key.starts_with("prepacked_") {
            return Err(Error::bad_input(format!("unknown key {key:?}")).code("FB-3230"));
        }
        if values.insert(key, value).is_some() {
            return Err(Error::bad_input(format!("key {key:?} stands twice")).code("FB-3230"));
        }
    }
    let number = |key: &str| match values.get(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
            Error::bad_input(format!("`{key}` is {text:?}, no count of bytes")).code("FB-3230")
        }),
    };
    let location =
        values.get("location").ok_or_else(|| Error::bad_input("no `location`").code("FB-3230"))?;
    Ok(Place { location, offset: number("offset")?.unwrap_or(0), length: number("length")? })
}
