//! Output folders that are there whole or not at all.

use super::partials::Partials;
use super::{OutputOptions, failed, parent, partial_path, sync_directory, write_file};
use crate::mmap::shown;
use fewbit_core::{Error, Result, ResultExt};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file by which a folder is known to hold a model, and may be replaced.
const MARK: &str = "config.json";

/// Endings of the files that folders of models hold.
const ENDINGS: &[&str] = &[
    "json",
    "jsonl",
    "safetensors",
    "txt",
    "model",
    "jinja",
    "md",
    "bin",
    "gguf",
    "onnx",
    "py",
    "tiktoken",
    "bpe",
    "spm",
    "vocab",
    "yaml",
    "yml",
    "png",
    "jpg",
    "jpeg",
    "svg",
    "pdf",
];

/// Files of models that have another ending or none.
const NAMES: &[&str] = &[".gitattributes", "LICENSE", "LICENCE", "NOTICE", "USE_POLICY"];

/// Folders within them, of sentence-transformers.
const FOLDERS: &[&str] = &["1_Pooling", "2_Normalize"];

/// The first entry, by name, that no model's folder has. A folder that somebody works in may hold
/// a config.json too; what else is in it is not ours to remove.
fn stranger(path: &Path) -> Option<String> {
    let known = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            return FOLDERS.iter().any(|known| name == *known) && stranger(&entry.path()).is_none();
        }
        let ending = Path::new(&name).extension();
        let ends = |known: &&str| ending.is_some_and(|e| e.eq_ignore_ascii_case(known));
        NAMES.iter().any(|known| name == *known) || ENDINGS.iter().any(ends)
    };
    let others = fs::read_dir(path).ok()?.flatten().filter(|entry| !known(entry));
    others.map(|entry| entry.file_name().to_string_lossy().into_owned()).min()
}

/// A folder under construction beside its destination.
///
/// [`commit`](OutputFolder::commit) renames it; a folder of that name is replaced in one step
/// where the file system can do that. Dropping it leaves nothing.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
    partial: PathBuf,
}

impl OutputFolder {
    /// Checks the destination and makes the folder under a name of its own.
    ///
    /// # Errors
    /// When the destination is an input or holds one, must be kept, is no folder, or is one that
    /// holds something else than a model.
    pub fn create(path: &Path, options: &OutputOptions) -> Result<OutputFolder> {
        let place = || format!("output {}", shown(path));
        check(path, options).at(place)?;
        fs::create_dir_all(parent(path)).map_err(|e| failed("cannot make the directory", &e))?;
        for number in 0..1000 {
            let partial = partial_path(path, number);
            match Partials::make(&partial, |path| fs::create_dir(path)) {
                Ok(()) => return Ok(OutputFolder { path: path.to_path_buf(), partial }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed("cannot make the folder", &e)).at(place),
            }
        }
        Err(Error::internal("no name is left for the partial folder"))
    }

    /// Where files go until the folder is committed.
    pub fn work_path(&self) -> &Path {
        &self.partial
    }

    /// Writes a small file into the folder; `name` may lead through folders within it.
    ///
    /// # Errors
    /// When writing fails, or the name leads out of the folder.
    pub fn write(&self, name: &Path, bytes: &[u8]) -> Result<u64> {
        let inside = name.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !inside {
            return Err(Error::internal(format!("{name:?} leads out of the output folder")));
        }
        write_file(&self.partial.join(name), bytes, &OutputOptions::default())
    }

    /// Makes the folder appear under its final name.
    ///
    /// # Errors
    /// When it cannot be renamed; the destination is then as before.
    pub fn commit(self) -> Result<()> {
        self.rename()
            .map_err(|e| failed("cannot rename the finished folder", &e))
            .at(|| format!("output {}", shown(&self.path)))?;
        sync_directory(&self.path);
        // What was exchanged is removed on drop.
        Ok(())
    }

    fn rename(&self) -> io::Result<()> {
        let _alone = Partials::lock();
        match self.path.exists() {
            true => exchange(&self.partial, &self.path),
            false => fs::rename(&self.partial, &self.path),
        }
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        Partials::discard(&self.partial);
    }
}

/// Both folders change names, at once where the file system can do that.
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    if renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    let aside = partial_path(old, 1000);
    fs::rename(old, &aside)?;
    match fs::rename(new, old) {
        Ok(()) => fs::rename(&aside, new),
        Err(e) => {
            fs::rename(&aside, old)?;
            Err(e)
        }
    }
}

/// Checks a destination before any work is done for it.
fn check(path: &Path, options: &OutputOptions) -> Result<()> {
    if path.file_name().is_none() {
        return Err(Error::usage("the output has no folder name").code("FB-2103"));
    }
    let Ok(existing) = fs::symlink_metadata(path) else { return Ok(()) };
    if !existing.is_dir() {
        return Err(Error::usage("the output is no folder, and would be replaced by one")
            .code("FB-2103")
            .hint("choose another name for the output"));
    }
    let same = |folder: &Path| {
        fs::metadata(folder).is_ok_and(|m| (m.dev(), m.ino()) == (existing.dev(), existing.ino()))
    };
    if let Some(input) = options.inputs.iter().find(|input| input.ancestors().any(same)) {
        return Err(Error::usage(format!("the output holds the input {}", shown(input)))
            .code("FB-2101")
            .hint("choose another name for the output"));
    }
    let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    match (empty, options.keep_existing) {
        (true, _) => Ok(()),
        (false, true) => Err(Error::usage("the output exists already")
            .code("FB-2102")
            .hint("choose another name, or allow overwriting with --force")),
        (false, false) if !path.join(MARK).is_file() => {
            Err(Error::usage(format!("the output is a folder without {MARK}, and is kept"))
                .code("FB-2105")
                .hint("only folders that hold a model are replaced: choose another name"))
        }
        (false, false) => match stranger(path) {
            None => Ok(()),
            Some(name) => {
                let what = format!("the output is a folder that also holds {name:?}, and is kept");
                Err(Error::usage(what)
                    .code("FB-2105")
                    .hint("only folders that hold a model alone are replaced: choose another name"))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::names;
    use super::*;

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/model");
        let folder = OutputFolder::create(&path, &OutputOptions::default()).unwrap();
        folder.write(Path::new("sub/a"), b"a").unwrap();
        assert!(!path.exists());
        drop(folder);
        assert!(names(&dir.path().join("deep")).is_empty());
        let folder = OutputFolder::create(&path, &OutputOptions::default()).unwrap();
        folder.write(Path::new("config.json"), b"{}").unwrap();
        assert!(folder.write(Path::new("../x"), b"").is_err());
        folder.commit().unwrap();
        assert_eq!(names(&path), ["config.json"]);
        assert_eq!(names(&dir.path().join("deep")), ["model"]);
    }

    #[test]
    fn only_models_are_replaced_and_never_inputs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        let create = |inputs: Vec<PathBuf>, keep_existing: bool| {
            let options = OutputOptions { inputs, keep_existing, expected_bytes: 0 };
            OutputFolder::create(&path, &options).map_err(|e| e.stable_code())
        };
        fs::create_dir(&path).unwrap();
        assert!(create(vec![], true).is_ok());
        fs::write(path.join("precious"), b"x").unwrap();
        assert_eq!(create(vec![], false).unwrap_err(), "FB-2105");
        fs::write(path.join("config.json"), b"{}").unwrap();
        assert_eq!(create(vec![], true).unwrap_err(), "FB-2102");
        assert_eq!(create(vec![path.join("precious")], false).unwrap_err(), "FB-2101");
        assert_eq!(create(vec![], false).unwrap_err(), "FB-2105");
        fs::remove_file(path.join("precious")).unwrap();
        for folder in [".git", "src", "model.json"] {
            fs::create_dir(path.join(folder)).unwrap();
            assert_eq!(create(vec![], false).unwrap_err(), "FB-2105", "{folder}");
            fs::remove_dir(path.join(folder)).unwrap();
        }
        fs::create_dir(path.join("1_Pooling")).unwrap();
        for file in ["LICENSE", ".gitattributes", "README.md", "model-00001-of-00002.safetensors"] {
            fs::write(path.join(file), b"x").unwrap();
        }
        let folder = create(vec![], false).unwrap();
        folder.write(Path::new("config.json"), b"new").unwrap();
        folder.commit().unwrap();
        assert_eq!(fs::read(path.join("config.json")).unwrap(), b"new");
        assert_eq!(
            (names(&path), names(dir.path())),
            (vec!["config.json".into()], vec!["model".into()])
        );
    }

    #[test]
    fn files_are_no_folders() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), b"x").unwrap();
        let error = OutputFolder::create(&dir.path().join("x"), &OutputOptions::default());
        assert_eq!(error.unwrap_err().stable_code(), "FB-2103");
    }
}
