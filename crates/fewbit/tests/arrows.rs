//! The walls of the house: which crate may use which, and where unsafe code may be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate's folder, and those of our crates that it may use. Tests and examples of a crate
/// (its dev-dependencies) may use more.
const ARROWS: [(&str, &[&str]); 8] = [
    ("core", &[]),
    ("kernels", &[]),
    ("formats", &["fewbit-core"]),
    ("exec", &["fewbit-core", "fewbit-kernels"]),
    ("quant", &["fewbit-core", "fewbit-exec", "fewbit-kernels"]),
    ("llm", &["fewbit-core", "fewbit-formats", "fewbit-exec"]),
    (
        "fewbit",
        &[
            "fewbit-core",
            "fewbit-kernels",
            "fewbit-formats",
            "fewbit-exec",
            "fewbit-quant",
            "fewbit-llm",
        ],
    ),
    ("cli", &["fewbit"]),
];

/// The only module outside `kernels` that may hold unsafe code.
const MMAP: &str = "formats/src/mmap.rs";

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Our crates in the dependency tables of a manifest, for building and on any platform.
fn ours(manifest: &str) -> BTreeSet<String> {
    let mut relevant = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            relevant = table.ends_with("dependencies") && !table.ends_with("dev-dependencies");
        } else if relevant {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.extend(name.starts_with("fewbit").then(|| name.to_string()));
        }
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_crate_stands_in_the_table() {
    let folders = fs::read_dir(crates()).unwrap().map(|e| e.unwrap().path());
    let folders = folders.filter(|path| path.join("Cargo.toml").exists());
    let found: BTreeSet<String> =
        folders.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let known: BTreeSet<String> = ARROWS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(found, known);
}

#[test]
fn arrows_run_downward_only() {
    for (name, allowed) in ARROWS {
        let used = ours(&read(&crates().join(name).join("Cargo.toml")));
        let allowed: BTreeSet<String> = allowed.iter().map(|s| s.to_string()).collect();
        let beyond: Vec<&String> = used.difference(&allowed).collect();
        assert!(beyond.is_empty(), "{name} must not use {beyond:?}");
    }
}

#[test]
fn unsafe_code_stays_in_its_two_places() {
    for (name, _) in ARROWS.into_iter().filter(|(name, _)| *name != "kernels") {
        let mut files = Vec::new();
        sources(&crates().join(name).join("src"), &mut files);
        for file in files.iter().filter(|file| !file.ends_with(MMAP)) {
            let text = read(file);
            let used = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"];
            let found = used.iter().find(|word| text.contains(*word));
            assert!(found.is_none(), "{}: {found:?}", file.display());
        }
    }
}

#[test]
fn manifests_are_understood() {
    let text = "[package]\nname = \"fewbit-x\"\n[dependencies]\nfewbit-core.workspace = true\n\
                serde = \"1\"\n[target.'cfg(unix)'.dependencies]\nfewbit-exec = { path = \"..\" }\n\
                [dev-dependencies]\nfewbit-formats.workspace = true\n[lints]\nworkspace = true\n";
    let names: Vec<String> = ours(text).into_iter().collect();
    assert_eq!(names, ["fewbit-core", "fewbit-exec"]);
}
