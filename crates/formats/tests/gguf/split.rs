//! Models in several files.

use crate::samples::*;
use fewbit_core::Error;
use fewbit_formats::gguf::{self, part_path};
use std::path::Path;

fn part(no: u16, count: u16, tensors: i32, name: &str) -> File {
    let mut file = File::new();
    if no == 0 {
        file.metadata.push(entry("general.architecture", 8, &text(b"llama")));
    }
    file.metadata.push(entry("split.no", 2, &no.to_le_bytes()));
    file.metadata.push(entry("split.count", 2, &count.to_le_bytes()));
    file.metadata.push(entry("split.tensors.count", 5, &tensors.to_le_bytes()));
    file.tensors = vec![tensor(name, &[4], 24, 0)];
    file.data = name.repeat(4).into_bytes();
    file
}

/// Three parts in a folder; the path of part `no`.
fn three() -> (tempfile::TempDir, impl Fn(usize) -> std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("my-model");
    let path = move |no| part_path(&prefix, no, 3);
    for (no, name) in ["a", "b", "c"].iter().enumerate() {
        std::fs::write(path(no), part(no as u16, 3, 3, name).bytes()).unwrap();
    }
    (dir, path)
}

fn refusal(path: &Path) -> Error {
    gguf::read(path).expect_err("must be refused")
}

#[test]
fn any_part_leads_to_all() {
    let (_dir, path) = three();
    assert!(path(0).ends_with("my-model-00001-of-00003.gguf"));
    for no in 0..3 {
        let found = gguf::read(&path(no)).unwrap();
        let names: Vec<(&str, usize)> =
            found.tensors().iter().map(|t| (t.name.as_str(), t.file)).collect();
        assert_eq!(names, [("a", 0), ("b", 1), ("c", 2)]);
        assert_eq!(found.require("c").unwrap().bytes.as_ref(), b"cccc");
        let keys: Vec<&str> = found.metadata().iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["general.architecture"]);
        assert_eq!(found.files().len(), 3);
    }
}

#[test]
fn a_missing_part() {
    let (_dir, path) = three();
    std::fs::remove_file(path(1)).unwrap();
    let error = refusal(&path(0));
    assert_eq!(error.stable_code(), "FB-3614");
    assert!(error.place().contains("00002-of-00003"), "{error}");
}

#[test]
fn parts_that_do_not_fit() {
    let cases: [(&str, usize, File); 8] = [
        ("swapped", 1, part(2, 3, 3, "b")),
        ("another count", 1, part(1, 4, 3, "b")),
        ("another number of tensors", 2, part(2, 3, 4, "c")),
        ("a tensor of another part", 2, part(2, 3, 3, "a")),
        ("no part", 1, File::small()),
        ("another model", 1, {
            let mut file = part(1, 3, 3, "b");
            file.metadata.push(entry("general.architecture", 8, &text(b"gemma2")));
            file
        }),
        ("more tensors", 1, {
            let mut file = part(1, 3, 3, "b");
            file.tensors.push(tensor("d", &[0], 24, 32));
            file
        }),
        ("no number", 1, {
            let mut file = part(1, 3, 3, "b");
            file.metadata[0] = entry("split.no", 8, &text(b"1"));
            file
        }),
    ];
    for (name, no, file) in cases {
        let (_dir, path) = three();
        std::fs::write(path(no), file.bytes()).unwrap();
        let error = refusal(&path(0));
        assert!(
            matches!(error.stable_code(), "FB-3614" | "FB-3610" | "FB-3606"),
            "{name}: {error:?}"
        );
        assert!(error.place().contains("my-model"), "{name}: {error}");
        assert_eq!(error.kind().exit_code(), 3, "{name}");
    }
}

#[test]
fn names_and_numbers_of_parts() {
    let (dir, path) = three();
    let renamed = dir.path().join("model.gguf");
    std::fs::copy(path(0), &renamed).unwrap();
    assert_eq!(refusal(&renamed).stable_code(), "FB-3614");
    for count in [u16::MAX, 2] {
        std::fs::write(path(0), part(0, count, 3, "a").bytes()).unwrap();
        assert_eq!(refusal(&path(0)).stable_code(), "FB-3614", "{count}");
    }
    let mut endless = part(0, 3, 3, "a");
    endless.metadata[2] = entry("split.count", 10, &u64::MAX.to_le_bytes());
    std::fs::write(path(0), endless.bytes()).unwrap();
    assert_eq!(refusal(&path(0)).stable_code(), "FB-3614");
}
