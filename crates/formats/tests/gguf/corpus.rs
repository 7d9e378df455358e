//! Real files of the zoo: read, written again, and the same.

use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::gguf;
use std::path::{Path, PathBuf};

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "gguf") {
            found.push(path);
        }
    }
}

#[test]
fn real_files_survive() {
    let Some(zoo) = std::env::var_os("FEWBIT_ZOO") else {
        eprintln!("skipped: FEWBIT_ZOO is not set");
        return;
    };
    let mut paths = Vec::new();
    files_below(Path::new(&zoo), &mut paths);
    let dir = tempfile::tempdir().unwrap();
    for path in paths {
        let found = gguf::read(&path).unwrap_or_else(|e| panic!("{e:?}"));
        let copy = dir.path().join("copy.gguf");
        let options = OutputOptions::default();
        gguf::write(&copy, found.metadata(), found.tensors(), &options).unwrap();
        let again = gguf::read(&copy).unwrap();
        assert_eq!(again.metadata(), found.metadata(), "{}", path.display());
        assert_eq!(again.tensors().len(), found.tensors().len());
        for (a, b) in again.tensors().iter().zip(found.tensors()) {
            assert_eq!(a.info, b.info);
            assert!(a.bytes.as_ref() == b.bytes.as_ref(), "{} {}", path.display(), a.name);
        }
        if found.files().len() == 1 && found.version() == 3 {
            let same = std::fs::read(&copy).unwrap() == std::fs::read(&path).unwrap();
            println!("{}: {}", path.display(), if same { "same bytes" } else { "same content" });
        }
    }
}
