//! Folders of safetensors files and their index, as Hugging Face lays them out.
//!
//! A name in an index may only be that of a file in the same folder. It may be a symbolic link,
//! since the cache of Hugging Face consists of links.

use super::json::{self, Capped, Json};
use super::{SafetensorsFile, read_files};
use crate::limits::MAX_TENSORS;
use crate::mmap::{InputFile, shown};
use fewbit_core::{Error, Result, ResultExt};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The index of a folder whose tensors lie in several files.
pub const INDEX_NAME: &str = "model.safetensors.index.json";

/// Members of the index itself and of its metadata.
const MAX_MEMBERS: usize = 1024;

/// The `config.json` of a folder: what the model is; `None` when there is none.
///
/// # Errors
/// When it is there and no JSON object.
pub fn read_config(folder: &Path) -> Result<Option<serde_json::Map<String, serde_json::Value>>> {
    let path = folder.join("config.json");
    if !path.exists() {
        return Ok(None);
    }
    let file = InputFile::open_small(&path)?;
    let config = serde_json::from_slice(file.bytes()).map_err(|e| {
        Error::bad_input(format!("expected an object: {e}")).code("FB-3515").at(shown(&path))
    })?;
    Ok(Some(config))
}

/// Reads all safetensors of a folder.
pub(super) fn read(folder: &Path) -> Result<SafetensorsFile> {
    let index = folder.join(INDEX_NAME);
    if index.exists() {
        return read_index(&index);
    }
    let whole = folder.join("model.safetensors");
    if whole.exists() {
        return read_files([whole]);
    }
    read_files([only_file(folder).at(|| shown(folder))?])
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .map_err(|e| Error::bad_input(format!("cannot open: {e}")).code("FB-3001"))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> =
        paths.filter(|p| p.extension().is_some_and(|e| e == "safetensors")).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Error::bad_input("the folder holds no safetensors file").code("FB-3513")),
        count => Err(Error::bad_input(format!(
            "the folder holds {count} safetensors files and no {INDEX_NAME}"
        ))
        .code("FB-3513")
        .hint("download the index too, or give one of the files")),
    }
}

/// Reads the files that an index names, and holds it against them.
pub(super) fn read_index(path: &Path) -> Result<SafetensorsFile> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let places = weight_map(path).at(|| shown(path))?;
    let names: BTreeMap<&str, ()> = places.iter().map(|(_, file)| (file.as_str(), ())).collect();
    let mut files = Vec::with_capacity(names.len());
    for name in names.keys() {
        check_name(name).at(|| shown(path))?;
        let file = folder.join(name);
        if !file.exists() {
            return Err(Error::bad_input(format!("names {name:?}, which is missing"))
                .code("FB-3511")
                .at(shown(path))
                .hint("download the missing file, or give the folder of the whole model"));
        }
        files.push(file);
    }
    let found = read_files(files)?;
    check_places(&found, &places).at(|| shown(path))?;
    Ok(found)
}

fn damaged(what: impl Into<String>) -> Error {
    Error::bad_input(what).code("FB-3510")
}

/// Tensor and file names of an index.
fn weight_map(path: &Path) -> Result<Vec<(String, String)>> {
    let file = InputFile::open_small(path)?;
    let text = std::str::from_utf8(file.bytes())
        .map_err(|e| damaged("not UTF-8").at(format!("byte {}", e.valid_up_to())))?;
    let caps = [MAX_MEMBERS, MAX_TENSORS, MAX_MEMBERS];
    let index = match json::decode(text, 0, "FB-3510", Capped(&caps))? {
        Json::Map(map) => map,
        other => return Err(damaged(format!("expected an object, found {}", other.kind()))),
    };
    let Json::Map(map) = json::field(&index, "weight_map").map_err(|e| e.code("FB-3510"))? else {
        return Err(damaged("`weight_map` is no object"));
    };
    let place = |(name, file): &(String, Json)| match file {
        Json::Text(file) => Ok((name.clone(), file.clone())),
        other => {
            Err(damaged(format!("{name:?} is {}, no file name", other.kind())).at("weight_map"))
        }
    };
    map.iter().map(place).collect()
}

fn check_name(name: &str) -> Result<()> {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    if plain && !name.contains(['/', '\\', '\0']) {
        return Ok(());
    }
    Err(Error::bad_input(format!("names {name:?}, which is no file of this folder"))
        .code("FB-3511")
        .hint("the files of a model must lie in the folder of their index"))
}

/// Every tensor must lie where the index says, and be named once.
fn check_places(found: &SafetensorsFile, places: &[(String, String)]) -> Result<()> {
    let mut names: Vec<&str> = places.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(twin) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(damaged(format!("key {:?} stands twice", twin[0])).code("FB-3503"));
    }
    for (name, file) in places {
        let stored = found.get(name).map(|t| found.files[t.file].path());
        if stored.and_then(Path::file_name) != Some(file.as_ref()) {
            let really = stored.map_or("in no file".into(), |p| format!("in {}", shown(p)));
            return Err(damaged(format!(
                "tensor {name:?} should lie in {file:?}, but lies {really}"
            ))
            .code("FB-3512")
            .hint("the index and the files are of two models: download both again"));
        }
    }
    Ok(())
}
